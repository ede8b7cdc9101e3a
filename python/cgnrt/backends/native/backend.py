"""The native backend: which of the two engines runs a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cgnrt import _core
from cgnrt.backends.base import Device, Engine, Setup
from cgnrt.backends.native.graph import UnsupportedGraphError
from cgnrt.backends.native.layers import NativeEngine, compile_layers
from cgnrt.errors import BackendError
from cgnrt.plan import Network


@dataclass(frozen=True)
class NativeCandidate:
    """A network that one of the two engines runs: `make` makes it, from what was compiled, for a number of threads."""

    name: str
    make: Callable[[int | None], Engine]

    def load(self, threads: int | None = None, stream: Any = None) -> Engine:
        try:
            return self.make(threads)
        except (UnsupportedGraphError, ValueError) as error:
            raise BackendError(
                f"mechanism '{self.name}': the native engine does not support {error}"
            ) from error


def examine(network: Network) -> NativeCandidate:
    """Compile a network for the engine that runs it.

    Raises:
      BackendError: neither does; the message has both reasons.
    """
    try:
        layers = compile_layers(network)
    except UnsupportedGraphError as error:
        small = error
    else:
        return NativeCandidate(network.name, lambda threads: NativeEngine(network, layers, threads))
    from cgnrt.backends.native.deep import (  # not needed by small generators
        NativeDeepEngine,
        compile_pictures,
    )

    try:
        pictures = compile_pictures(network)
    except UnsupportedGraphError as error:
        raise BackendError(
            f"mechanism '{network.name}': the native engine for small generators does not support {small}; the one "
            f"for deep networks does not support {error}"
        ) from error
    return NativeCandidate(network.name, lambda threads: NativeDeepEngine(network, pictures, threads))


class NativeBackend:
    def version(self) -> str:
        return str(_core.build_info()["version"])

    def refusal(self, device: Device, precision: str) -> str | None:
        return None if precision == "fp32" else f"it has no {precision}"

    def examine(self, network: Network, setup: Setup) -> NativeCandidate:
        return examine(network)
