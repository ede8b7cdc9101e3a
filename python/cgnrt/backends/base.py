"""The protocol between the runtime and the engine libraries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from cgnrt.plan import Mechanism, Plan

PRECISIONS = ("fp32", "bf16", "fp16")

# Pictures of this many pixels at once keep the matrix units of a GPU busy; what a network holds meanwhile grows with
# them.
BUSY_PIXELS = 64 * 256 * 256


@dataclass(frozen=True)
class Device:
    """Where an engine runs and where its outputs lie: `cpu`, or `cuda` with an index."""

    kind: str = "cpu"
    index: int = 0

    @classmethod
    def parse(cls, text: str) -> Device:
        """Read `"cpu"`, `"cuda"` or `"cuda:1"`.

        Raises:
          ValueError: anything else.
        """
        kind, colon, index = text.partition(":")
        if kind == "cuda" and (not colon or index.isdecimal()):
            return cls("cuda", int(index or 0))
        if text == "cpu":
            return cls()
        raise ValueError(f"load: device is {text!r}, expected 'auto', 'cpu', 'cuda' or 'cuda:<index>'.")

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


@dataclass(frozen=True)
class EngineOptions:
    """What a caller may say of the engines on a GPU.

    Attributes:
      trust_engines: run a plan's ready engines, which are native code.
      rebuild: build engines where those of a trusted plan do not fit this card.
      batches: batch sizes that engines are built for, or captured as CUDA graphs at; None leaves it to the backend.
    """

    trust_engines: bool = False
    rebuild: bool = False
    batches: tuple[int, ...] | None = None


class Engine(Protocol):
    """One mechanism, compiled. Not thread-safe: one caller at a time.

    An engine with a limit has it as `largest_batch`.
    """

    def run(
        self,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any] | None = None,
        stream: Any = None,
    ) -> dict[str, Any]:
        """Run the graph on one batch.

        Args:
          inputs: every named input of the manifest, float32, C-contiguous, one batch size for all: NumPy arrays, or
            `cgnrt.cuda.DeviceArray`s on the engine's device.
          outputs: arrays to write into, by output name; None leaves the choice to the engine, on the CPU alone.
          stream: the `cgnrt.cuda.Stream` to enqueue on, without waiting; None on the CPU. The caller orders streams.
        Returns:
          Every named output, on the engine's device. Arrays that the engine chose itself are only good until
          its next run.
        """
        ...


class Backend(Protocol):
    """An engine library."""

    name: str
    extra: str

    def installed(self) -> bool:
        """Whether the package is there, told without importing it."""
        ...

    def version(self) -> str:
        """The version of the engine library."""
        ...

    def refusal(self, device: Device, precision: str, mechanisms: Sequence[Mechanism] = ()) -> str | None:
        """Why this backend cannot run `precision` on `device` on this machine, or one of the mechanisms at all.

        None where it can.
        """
        ...

    def load(self, mechanism: Mechanism, device: Device, precision: str, threads: int | None) -> Engine:
        """Compile one mechanism of a plan.

        Raises:
          BackendError: the engine refuses the graph.
        """
        ...


@runtime_checkable
class DeviceBackend(Protocol):
    """What a backend for GPUs has besides."""

    def plan_refusal(self, plan: Plan, device: Device, precision: str, options: EngineOptions) -> str | None:
        """Why it cannot run this plan with these options, where `refusal` found nothing. None where it can."""
        ...

    def load_on(
        self,
        stream: Any,
        plan: Plan,
        mechanism: Mechanism,
        device: Device,
        precision: str,
        options: EngineOptions,
    ) -> Engine:
        """Load one mechanism of a plan, to be run on a `cgnrt.cuda.Stream`.

        Raises:
          BackendError: the engine refuses the graph, or the plan's engines do not fit.
        """
        ...


def deliver(
    produced: dict[str, np.ndarray], outputs: Mapping[str, np.ndarray] | None
) -> dict[str, np.ndarray]:
    """What an engine produced, copied to where the caller wants it."""
    if outputs is None:
        return produced
    for name, target in outputs.items():
        target[...] = produced[name]
    return {**produced, **outputs}
