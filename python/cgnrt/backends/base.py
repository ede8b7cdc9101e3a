"""The protocol between the runtime and the engine libraries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from cgnrt.errors import BackendError
from cgnrt.plan import Network, Plan

PRECISIONS = ("fp32", "bf16", "fp16")
# The import names of TensorRT: the first one that is installed is used.
TENSORRT_PACKAGES = ("tensorrt", "tensorrt_rtx")
AMD_DRIVER = "/dev/kfd"

# Pictures of this many pixels at once keep the matrix units of a GPU busy; what a network holds meanwhile grows with
# them.
BUSY_PIXELS = 64 * 256 * 256


# Kinds of device, by torch's names; AMD's GPUs are "cuda" there.
KINDS = ("cpu", "cuda", "mps", "xpu")


@dataclass(frozen=True)
class Device:
    """Where an engine runs and where its outputs lie: `cpu`, or another of `KINDS` with an index."""

    kind: str = "cpu"
    index: int = 0

    @classmethod
    def parse(cls, text: str) -> Device:
        """Read `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"` or `"xpu:0"`, as users and `torch.device` write them.

        Raises:
          ValueError: anything else.
        """
        kind, colon, index = text.partition(":")
        if text in ("cpu", "cpu:0"):
            return cls()
        if kind in KINDS[1:] and (not colon or index.isdecimal()):
            return cls(kind, int(index or 0))
        names = ", ".join(repr(name) for name in KINDS)
        raise ValueError(
            f"load: device is {text!r}, expected 'auto', {names}, or a GPU with its index, such as 'cuda:1'."
        )

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


@dataclass(frozen=True)
class EngineOptions:
    """What a caller may say of the engines on a GPU.

    Attributes:
      trust_engines: run a plan's ready engines, which are native code.
      rebuild: build engines where those of a trusted plan do not fit this card.
      batches: batch sizes that engines are built for, or captured as CUDA graphs at; None leaves it to the backend.
      compile: let torch.compile make kernels of the networks' operations.
      tf32: let NVIDIA's GPUs compute float32 products with ten bits of mantissa.
    """

    trust_engines: bool = False
    rebuild: bool = False
    batches: tuple[int, ...] | None = None
    compile: bool = False
    tf32: bool = False


@dataclass(frozen=True)
class Setup:
    """How networks are to be run.

    Attributes:
      plan: where they are from; None where that does not matter.
    """

    device: Device
    precision: str
    plan: Plan | None = None
    options: EngineOptions = field(default_factory=EngineOptions)


class Engine(Protocol):
    """One network, compiled. Not thread-safe: one caller at a time.

    An engine with a limit has it as `largest_batch`. One with a true `reentrant` takes several callers at once, and the
    arrays that it returns are new ones.
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
            `cgnrt.cuda.DeviceArray`s or torch tensors on the engine's device, as the render device has them.
          outputs: arrays to write into, by output name; None leaves the choice to the engine (only on the CPU).
          stream: the `cgnrt.cuda.Stream` to enqueue on, without waiting; None on the CPU, and for torch tensors. The
            caller orders streams.
        Returns:
          Every named output, on the engine's device. Arrays that the engine chose itself are only good until
          its next run.
        """
        ...


class Candidate(Protocol):
    """A network that a backend has examined and can run, prepared as far as the examination took it."""

    def load(self, threads: int | None = None, stream: Any = None) -> Engine:
        """Load it; may be called several times, for engines that are independent of each other.

        Args:
          threads: of an engine on the CPU; None takes the cores that this process may use.
          stream: the `cgnrt.cuda.Stream` that an engine on a GPU will be run on.
        Raises:
          BackendError: the engine library refuses the graph, or the plan's engines do not fit.
        """
        ...


class Backend(Protocol):
    """An engine library. `choice.BACKENDS` says what is known of it without importing it."""

    def version(self) -> str:
        """The version of the engine library."""
        ...

    def refusal(self, device: Device, precision: str) -> str | None:
        """Why this backend cannot run `precision` on `device` on this machine; None where it can."""
        ...

    def examine(self, network: Network, setup: Setup) -> Candidate:
        """Look at a network, where `refusal` found nothing against the setup.

        Raises:
          BackendError: the backend does not support the network; the message says why.
        """
        ...


def deliver(
    produced: dict[str, np.ndarray], outputs: Mapping[str, np.ndarray] | None
) -> dict[str, np.ndarray]:
    """What an engine produced, copied to where the caller wants it.

    Raises:
      BackendError: an output is missing, or its shape or dtype is not that of its memory.
    """
    if outputs is None:
        return produced
    check_outputs("run", produced, {name: target.shape for name, target in outputs.items()})
    for name, target in outputs.items():
        target[...] = produced[name]
    return {**produced, **outputs}


def check_outputs(
    operation: str, produced: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Compare outputs of a network on the CPU with what the plan says: NumPy would broadcast others without a word.

    Raises:
      BackendError: an output is missing, or is not float32 of its shape.
    """
    for name, shape in shapes.items():
        found = produced.get(name)
        if found is None:
            raise BackendError(f"{operation}: output {name!r} is missing, expected every output of the plan.")
        if found.shape != shape or found.dtype != np.float32:
            raise BackendError(
                f"{operation}: output {name!r} is {found.dtype} {found.shape}, expected float32 {shape}, as the plan "
                "says. Correct the network, and export it again."
            )
