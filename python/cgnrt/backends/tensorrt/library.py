"""`tensorrt` or `tensorrt_rtx`, whichever is installed, as one thing."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cgnrt.backends.base import TENSORRT_PACKAGES
from cgnrt.errors import BackendError

# The first whose parser takes weights from memory. 11 has strongly typed networks only, and ignores the flag for them.
_OLDEST = (10, 13)
_STRONGLY_TYPED = "STRONGLY_TYPED"

log = logging.getLogger("cgnrt.tensorrt")
# What matters is in the exceptions; the rest is for who configures logging.
log.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Library:
    """The imported package.

    Attributes:
      name: "tensorrt" or "tensorrt_rtx".
      version: in full, such as "10.13.3.9": an engine runs on no other.
      api: the module.
      logger: the one logger of this process, which hands everything on to Python's logging.
    """

    name: str
    version: str
    api: Any
    logger: Any

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT for RTX: ahead of time for an architecture, without tuning, finished on the card."""
        return self.name == "tensorrt_rtx"

    def network_flags(self) -> int:
        """Flags that make a network strongly typed, in versions that know any other."""
        flags = self.api.NetworkDefinitionCreationFlag
        return 1 << int(getattr(flags, _STRONGLY_TYPED)) if hasattr(flags, _STRONGLY_TYPED) else 0

    def supports(self, architecture: str) -> bool:
        """Whether it makes engines for an architecture such as "sm_90"; the full TensorRT is not asked."""
        return not self.is_rtx or hasattr(self.api.ComputeCapability, _member(architecture))

    def capability(self, architecture: str) -> Any:
        """TensorRT for RTX's name for an architecture."""
        return getattr(self.api.ComputeCapability, _member(architecture))

    @contextlib.contextmanager
    def errors(self) -> Iterator[list[str]]:
        """What the library logs as errors within the block."""
        found: list[str] = []
        # By identity: lists without errors are all equal.
        self.logger.listeners[id(found)] = found
        try:
            yield found
        finally:
            del self.logger.listeners[id(found)]


def installed() -> str | None:
    """The package that would be imported, told without importing it: for every card, or for RTX cards only."""
    return next((name for name in TENSORRT_PACKAGES if importlib.util.find_spec(name) is not None), None)


@functools.cache
def load() -> Library:
    """Import the installed package.

    Raises:
      BackendError: none is installed, it cannot be imported, or it is too old.
    """
    name = installed()
    if name is None:
        raise BackendError(
            "load TensorRT: package is missing, expected tensorrt or tensorrt-rtx. "
            "Run: pip install 'cgnrt[tensorrt]'"
        )
    try:
        api = importlib.import_module(name)
        version = str(api.__version__)
        logger = _make_logger(api)
    except Exception as error:  # a package whose libraries are missing fails in ways of its own
        raise BackendError(
            f"load TensorRT: package '{name}' is installed but does not import ({error}), expected a whole one. "
            f"Install it again, or remove it."
        ) from error
    if name == "tensorrt" and tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise BackendError(
            f"load TensorRT: version is {version}, expected {oldest} or newer. Run: pip install -U tensorrt"
        )
    return Library(name, version, api, logger)


def _member(architecture: str) -> str:
    return architecture.replace("_", "").upper()


def _make_logger(api: Any) -> Any:
    """TensorRT's logger as one of Python's; its errors also go to whoever listens."""
    severity = api.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.INFO,
    }

    class Logger(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)
            self.listeners: dict[int, list[str]] = {}

        def log(self, level: Any, message: str) -> None:
            mapped = levels.get(level, logging.DEBUG)
            log.log(mapped, "%s", message)
            if mapped == logging.ERROR:
                for listener in list(self.listeners.values()):
                    listener.append(message.strip())

    return Logger()
