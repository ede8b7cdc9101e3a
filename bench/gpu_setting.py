"""Where a section of the GPU benchmark runs, and its sizes: on a card, or, for a dry run, a few pixels on the CPU."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_results import Budget, NotRunError
from report import host_seconds, time_in_turns

from cgnrt import cuda
from cgnrt.backends import BACKENDS, choose
from cgnrt.errors import BackendError
from cgnrt.plan import Mechanism

# What a section needs besides torch and cgnrt, by import name. Engines are asked themselves.
REFERENCE = ("pytorch_pretrained_biggan", "boto3", "botocore", "requests", "scipy")
EXPORT = ("onnx", "onnxscript")
CLOCKS = "clocks.sm,clocks.mem,temperature.gpu,power.draw,clocks_event_reasons.active"


@dataclass(frozen=True)
class Sizes:
    """Of the cases; the defaults are what is measured."""

    copy_bytes: int = 4 << 30  # read and written
    product: int = 8192
    compose: tuple[int, int] = (1024, 256)  # images, side
    case_bytes: int = 1 << 30  # read and written by the further cases of compose
    patch_grid: tuple[int, int, int] = (256, 128, 256)  # images, side of the sources, side of the result
    imagenet_batches: tuple[int, ...] = (1, 8, 32, 64, 128)
    reference_batches: tuple[int, ...] = (1, 8, 32, 64)
    compiled_batch: int = 64
    parity: int = 16  # images that PSNR is taken of
    pool: tuple[int, int] = (64, 32)  # entries, reuse
    mnist_batches: tuple[int, ...] = (1024, 4096, 16384)
    mnist_eager: tuple[int, ...] = (100, 4096)
    mnist_parity: int = 256
    train_batch: int = 256
    train_steps: int = 32  # steps of a round
    train_reuse: tuple[int, ...] = (32, 8, 128)  # the first is the measure's
    width: int = 64  # of the ResNet-50
    rounds: int = 15  # at most


TINY = Sizes(
    copy_bytes=1 << 16,
    product=32,
    compose=(4, 16),
    case_bytes=1 << 16,
    patch_grid=(2, 32, 32),
    imagenet_batches=(1, 2),
    reference_batches=(1, 2),
    compiled_batch=2,
    parity=2,
    pool=(2, 4),
    mnist_batches=(2, 4),
    mnist_eager=(2, 4),
    mnist_parity=2,
    train_batch=4,
    train_steps=2,
    train_reuse=(2, 4),
    width=4,
    rounds=3,
)


@dataclass(frozen=True)
class Setting:
    """What a section is run with.

    Attributes:
      work: where the ImageNet CGN and its plan lie.
      engines: backends that are tried, the fastest first.
      low: precisions that count for the measures.
      min_psnr: decibels to float32 from which one does. A dry run asks for none: its modules are not those of its plan.
      compile: what a module or a function goes through to be torch's compiled peer.
      earlier: facts of sections that were run before.
    """

    dry: bool
    device: torch.device
    work: Path
    sizes: Sizes
    engines: tuple[str, ...]
    low: tuple[str, ...]
    min_psnr: float
    compile: Callable[[Any], Any]
    budget: Budget
    earlier: Mapping[str, Any]

    @classmethod
    def on_card(cls, work: Path, budget: Budget, earlier: Mapping[str, Any]) -> Setting:
        """The first CUDA device."""
        return cls(
            dry=False,
            device=torch.device("cuda", 0),
            work=work,
            sizes=Sizes(),
            engines=("tensorrt", "onnxruntime"),
            low=("fp16", "bf16"),
            min_psnr=35.0,
            compile=lambda module: torch.compile(module, mode="max-autotune", dynamic=False),
            budget=budget,
            earlier=earlier,
        )

    @classmethod
    def dry_run(cls, work: Path, budget: Budget, earlier: Mapping[str, Any]) -> Setting:
        """The CPU, a few pixels, nothing compiled; only fp32 is sure to be there."""
        return cls(
            dry=True,
            device=torch.device("cpu"),
            work=work,
            sizes=TINY,
            engines=("tensorrt", "native", "onnxruntime"),
            low=("fp32",),
            min_psnr=0.0,
            compile=lambda module: module,
            budget=budget,
            earlier=earlier,
        )

    @property
    def precisions(self) -> tuple[str, ...]:
        """All that are measured, those that count first."""
        return tuple(dict.fromkeys((*self.low, "fp32", "bf16")))

    @property
    def stream(self) -> int | None:
        """The handle of torch's current stream, for the ops; None is the default stream, whose handle is 0."""
        if self.device.type == "cpu":
            return None
        return torch.cuda.current_stream(self.device).cuda_stream or None

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
            several,
            rounds=min(rounds, self.sizes.rounds),
            warmup=warmup,
            seconds=take,
            limit_s=limit_s,
        )
        return {name: [seconds / calls for seconds in found] for name, found in times.items()}

    def release(self) -> None:
        """Give cached device memory back, for what allocates by other means."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()

    def refusal(self, name: str, precision: str, mechanisms: Sequence[Mechanism]) -> str | None:
        """Why an engine is not measured; None where it is."""
        if not BACKENDS[name].installed():
            return "not installed"
        try:
            choose(name, backend=name, device=str(self.device), precision=precision, networks=mechanisms)
        except BackendError as error:
            return str(error)
        return None


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


def absent(names: Sequence[str]) -> list[str]:
    """Which of these packages cannot be imported."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def need(names: Sequence[str]) -> None:
    """Raise a NotRunError that names what is not installed."""
    if missing := absent(names):
        raise NotRunError(f"{', '.join(missing)} not installed")


def describe_device(setting_is_dry: bool) -> dict[str, Any]:
    """The card, its driver and libraries."""
    if setting_is_dry:
        return {"name": "none: dry run on the CPU"}
    found = torch.cuda.get_device_properties(0)
    return {
        "name": found.name,
        "memory_bytes": found.total_memory,
        "multiprocessors": found.multi_processor_count,
        "l2_bytes": getattr(found, "L2_cache_size", None),
        "driver": _smi("driver_version"),
        "cuda_of_torch": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "cgnrt": cuda.info(),
    }


def clocks(setting_is_dry: bool) -> str:
    """Clocks, temperature, power and what holds the clocks down, as nvidia-smi has them now."""
    return "dry run" if setting_is_dry else f"{CLOCKS}: {_smi(CLOCKS)}"


def _smi(query: str) -> str:
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown: {error}"
    return done.stdout.strip() or f"unknown: {done.stderr.strip()}"
