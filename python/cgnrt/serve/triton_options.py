"""What the `parameters` in a config.pbtxt may say."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cgnrt.serve.limits import Limits

# A stream's pieces may wait in Triton's memory until the client takes them.
_STREAMED_REQUESTS = 16


@dataclass(frozen=True)
class Options:
    """Options of a model in a Triton repository; None is the usual.

    Attributes:
      backend, precision, threads, trust_engines: as for `Generator`.
      images: of one request at most.  stream_images: of one request that is answered as a stream.
      queue: images that wait at most.  timeout_s: from a request to its answer.
    """

    backend: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    trust_engines: bool = False
    images: int | None = None
    stream_images: int | None = None
    queue: int | None = None
    timeout_s: float | None = None

    @classmethod
    def read(cls, model: str, parameters: Mapping[str, Mapping[str, Any]]) -> Options:
        """From the parameters of Triton's model configuration; those in capitals are Triton's own.

        Raises:
          ValueError: one that is not known, or has no good value.
        """
        readers = {
            "backend": _text,
            "precision": _text,
            "threads": _count,
            "trust_engines": _switch,
            "images": _count,
            "stream_images": _count,
            "queue": _count,
            "timeout_s": _seconds,
        }
        found: dict[str, Any] = {}
        for name, value in parameters.items():
            if name == name.upper():
                continue
            if name not in readers:
                close = difflib.get_close_matches(name, readers, n=1)
                hint = f" Did you mean '{close[0]}'?" if close else ""
                raise ValueError(
                    f"load '{model}': parameter is '{name}', expected one of {', '.join(readers)}.{hint}"
                )
            text = str(value.get("string_value", ""))
            try:
                found[name] = readers[name](text)
            except ValueError as error:
                raise ValueError(
                    f"load '{model}': parameter {name} is {text!r}, expected {error}. Mend its config.pbtxt."
                ) from None
        return cls(**found)

    def limits(self, resolution: tuple[int, int]) -> Limits:
        """The limits of a service with these options."""
        usual = Limits.usual(resolution, images=self.images, queue=self.queue, timeout_s=self.timeout_s)
        return dataclasses.replace(
            usual, stream_images=self.stream_images or _STREAMED_REQUESTS * usual.images
        )


def _text(text: str) -> str:
    if not text:
        raise ValueError("a name or 'auto'")
    return text


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
        raise ValueError("a whole number of at least 1")
    return int(text)


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError("seconds above 0")
    return value
