"""The whole Generator on a card: every engine and precision that can run a plan there."""

from __future__ import annotations

import itertools
from typing import Any

from gpu.networks import psnr
from gpu.results import NotRunError, Recorder, first_line
from gpu.setting import Setting
from torch import Tensor

from cgnrt import Generator
from cgnrt.backends import backends_for
from cgnrt.backends.base import BUSY_PIXELS
from cgnrt.errors import CgnrtError
from cgnrt.plan import Plan

PRECISIONS = ("fp32", "fp16", "bf16")


def measure_engines(setting: Setting, recorder: Recorder) -> None:
    """Images a second in float16, every one new, and their PSNR to the same engine's float32."""
    setting.wait_for_turn(recorder)
    with Plan.open(setting.plan) as plan:
        height, width = plan.manifest.resolution
    n = min(setting.sizes.mnist_batch, BUSY_PIXELS // (height * width))  # one batch of the networks
    for name in dict.fromkeys([*(entry.name for entry in backends_for(setting.device.type)), "torch"]):
        truth: Tensor | None = None
        for what, precision, options in cases_of(name, n):
            try:
                setting.budget.require(5, "its engines")
                images, times = run(setting, n, backend=name, precision=precision, **options)
            except (NotRunError, CgnrtError, MemoryError) as error:
                recorder.skipped(what, first_line(error))
                continue
            truth = images if precision == "fp32" else truth
            level: dict[str, float] = {} if truth is None else {"psnr_db": psnr(images, truth)}
            recorder.row(what, times, count=n, **level)
            setting.release()


def cases_of(name: str, n: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Title, precision and options of each row of a backend; torch also captures CUDA graphs of n images."""
    cases: list[tuple[str, str, dict[str, Any]]] = [(name, precision, {}) for precision in PRECISIONS]
    if name == "torch":
        cases += [("torch, CUDA graph,", precision, {"engine_batches": (n,)}) for precision in PRECISIONS[1:]]
    return [
        (f"Generator, {how} {precision}, batch {n}", precision, options) for how, precision, options in cases
    ]


def run(setting: Setting, n: int, **options: Any) -> tuple[Tensor, list[float]]:
    """Images of one stream, and the seconds of batches of n, each of a new one."""
    generator = Generator(setting.plan, device=str(setting.device), dtype="float16", **options)
    images: Tensor = generator.sample(setting.sizes.parity, seed=0).torch().images
    seeds = itertools.count(1)
    call = {"call": lambda: generator.sample(n, seed=next(seeds)).torch()}
    return images, setting.turns(call, limit_s=2)["call"]
