"""Where a section runs, and its sizes: on a card, or, for a dry run, a few pixels on the CPU."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu.results import Budget, NotRunError, Recorder
from report import host_seconds, time_in_turns
from torch import Tensor

from cgnrt import cuda, ops

_CLOCKS = "clocks.sm,clocks.mem,temperature.gpu,power.draw,clocks_event_reasons.active"
_WARMUPS = 3  # before a capture


@dataclass(frozen=True)
class Sizes:
    """Of the cases; the defaults are what is measured."""

    copy_bytes: int = 4 << 30  # read and written
    product: int = 8192
    compose: tuple[int, int] = (1024, 256)  # images, side
    patch_grid: tuple[int, int, int] = (256, 128, 256)  # images, side of the sources, side of the result
    noise: tuple[int, int] = (1 << 20, 128)  # samples, numbers of each
    imagenet_batches: tuple[int, ...] = (64, 32)
    parity: int = 16  # images that PSNR is taken of
    mnist_eager: int = 100
    mnist_batch: int = 4096
    mnist_samples: int = 256  # for the statistics of random weights
    train_batch: int = 256
    train_steps: int = 32  # of a round
    reuse: int = 32
    width: int = 64  # of the ResNet-50
    rounds: int = 15  # at most


TINY = Sizes(
    copy_bytes=1 << 16,
    product=32,
    compose=(4, 16),
    patch_grid=(2, 32, 32),
    noise=(8, 8),
    imagenet_batches=(2, 1),
    parity=2,
    mnist_eager=2,
    mnist_batch=4,
    mnist_samples=8,
    train_batch=4,
    train_steps=4,
    reuse=2,
    width=4,
    rounds=3,
)


@dataclass(frozen=True)
class Setting:
    """What a section is run with.

    Attributes:
      out: for logs.
      batch: of ImageNet counterfactuals.
      min_psnr: decibels to float32 from which images count.
      compile_mode: of torch.compile; None: nothing is compiled.
      plan: what the engines section runs.
      waits: it must wait for its turn, since other sections use the card before it.
    """

    dry: bool
    device: torch.device
    out: Path
    sizes: Sizes
    batch: int
    min_psnr: float
    compile_mode: str | None
    plan: Path
    budget: Budget
    waits: bool = False

    @property
    def stream(self) -> int | None:
        """The handle of torch's current stream, for the ops; None is the default stream, whose handle is 0."""
        if self.device.type == "cpu":
            return None
        return torch.cuda.current_stream(self.device).cuda_stream or None

    def wait_for_turn(self, recorder: Recorder) -> None:
        """Wait until no other section uses the card; the section's time begins then."""
        recorder.fact("ready", True)
        if self.waits:
            sys.stdin.readline()
        self.budget.start()

    def need_kernels(self) -> None:
        """Raise a NotRunError if cgnrt's kernels cannot be used."""
        if not self.dry and (reason := cuda.refusal(0)) is not None:
            raise NotRunError(reason)

    def compiled(self, module: Any) -> Any:
        """The module through torch.compile, for fixed sizes; in a dry run the module itself.

        Raises:
          NotRunError: --no-compile was given.
        """
        if self.dry:
            return module
        if self.compile_mode is None:
            raise NotRunError("--no-compile")
        return torch.compile(module, mode=self.compile_mode, dynamic=False)

    def captured(self, call: Callable[[], Tensor | tuple[Tensor, ...]]) -> Callable[[], Any]:
        """A call as a CUDA graph, which returns the same tensors each time; in a dry run the call itself."""
        if self.device.type == "cpu":
            return call
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(_WARMUPS):
                call()
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            found = call()

        def replay() -> Any:
            graph.replay()
            return found

        return replay

    def composed(
        self, mask: Tensor, foreground: Tensor, background: Tensor, out: Tensor, rolls: Tensor | None
    ) -> Tensor:
        """Eq. 2 in float16 by our kernel; by torch, without rolls, if this build has no kernels."""
        if self.dry or cuda.refusal(0) is None:
            ops.compose(
                mask, foreground, background, out=out, dtype="float16", stream=self.stream, rolls=rolls
            )
        else:
            out.copy_(mask * foreground + (1 - mask) * background)
        return out

    def turns(
        self,
        cases: Mapping[str, Callable[[], object]],
        *,
        limit_s: float,
        calls: int = 1,
        warmup: int = 2,
        rounds: int = 15,
    ) -> dict[str, list[float]]:
        """Seconds of a call, by CUDA events, the cases in turn.

        Args:
          calls: that are timed together, one enqueued behind the other, so that what the host does for a short one is
            not in its time unless it takes longer than the GPU.
          limit_s, warmup, rounds: see `time_in_turns`.
        """
        take = host_seconds if self.device.type == "cpu" else event_seconds
        several = {name: _repeated(call, calls) for name, call in cases.items()}
        times = time_in_turns(
            several, rounds=min(rounds, self.sizes.rounds), warmup=warmup, seconds=take, limit_s=limit_s
        )
        return {name: [seconds / calls for seconds in found] for name, found in times.items()}

    def release(self) -> None:
        """Give cached device memory back, for what allocates by other means."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()


def _repeated(call: Callable[[], object], times: int) -> Callable[[], object]:
    def run() -> None:
        for _ in range(times):
            call()

    return run


def event_seconds(call: Callable[[], object]) -> float:
    """Seconds between two events on torch's stream, around what a call enqueues there or makes it wait for."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Products and convolutions of float32 in TF32, or in float32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def matrix_product(setting: Setting) -> Callable[[], Tensor]:
    """The float16 product whose rate counts as the card's."""
    size = setting.sizes.product
    a, b = (torch.randn(size, size, device=setting.device).half() for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.matmul(a, b, out=out)


def describe_device(*, dry: bool) -> dict[str, Any]:
    """The card, its driver and libraries."""
    if dry:
        return {"name": "none: dry run on the CPU"}
    found = torch.cuda.get_device_properties(0)
    return {
        "name": found.name,
        "memory_bytes": found.total_memory,
        "multiprocessors": found.multi_processor_count,
        "l2_bytes": getattr(found, "L2_cache_size", None),
        "driver": smi("driver_version"),
        "clocks": f"{_CLOCKS}: {smi(_CLOCKS)}",
        "cuda_of_torch": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "cgnrt": cuda.info(),
    }


def smi(query: str) -> str:
    """What nvidia-smi answers."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown: {error}"
    return done.stdout.strip() or f"unknown: {done.stderr.strip()}"
