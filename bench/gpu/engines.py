"""The whole Generator on a card: every engine and precision that can run a plan there."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from gpu.networks import psnr
from gpu.results import NotRunError, Recorder, first_line
from gpu.setting import Setting

from cgnrt import Generator
from cgnrt.backends import BACKENDS, backends_for
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
        truth: torch.Tensor | None = None
        for precision, options in cases_of(name, n):
            what = ", ".join([f"Generator, {name} {precision}", *options, f"batch {n}"])
            try:
                setting.budget.require(5, "its engines")
                generator = Generator(
                    setting.plan,
                    device=str(setting.device),
                    backend=name,
                    precision=precision,
                    dtype="float16",
                    **options,
                )
                images = generator.sample(setting.sizes.parity, seed=0).torch().images
            except (NotRunError, CgnrtError, MemoryError) as error:
                recorder.skipped(what, first_line(error))
                continue
            truth = images if truth is None else truth
            seeds = itertools.count(1)
            call = lambda: generator.sample(n, seed=next(seeds)).torch()  # noqa: E731, B023
            times = setting.turns({"call": call}, limit_s=2)["call"]
            recorder.row(what, times, count=n, psnr_db=psnr(images, truth))
            setting.release()


def cases_of(name: str, n: int) -> list[tuple[str, dict[str, Any]]]:
    """Precisions and options of a backend; CUDA graphs of n images where it captures them."""
    cases: list[tuple[str, dict[str, Any]]] = [(precision, {}) for precision in PRECISIONS]
    if "compile" in BACKENDS[name].flags:
        cases += [(precision, {"engine_batches": (n,)}) for precision in ("fp16", "bf16")]
    return cases
