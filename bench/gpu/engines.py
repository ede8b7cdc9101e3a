"""The whole Generator on a card: every engine and precision that can run a plan there."""

from __future__ import annotations

import itertools

import torch
from gpu.networks import psnr
from gpu.results import NotRunError, Recorder, first_line
from gpu.setting import Setting

from cgnrt import Generator
from cgnrt.backends import backends_for
from cgnrt.errors import CgnrtError

PRECISIONS = ("fp32", "fp16", "bf16")


def measure_engines(setting: Setting, recorder: Recorder) -> None:
    """Images a second in float16, every one new, and their PSNR to the same engine's float32."""
    setting.wait_for_turn(recorder)
    setting.need_kernels()
    n = setting.sizes.mnist_batch
    for name in (entry.name for entry in backends_for(setting.device.type)):
        truth: torch.Tensor | None = None
        for precision in PRECISIONS:
            what = f"Generator, {name} {precision}, batch {n}"
            try:
                setting.budget.require(5, "its engines")
                generator = Generator(
                    setting.plan,
                    device=str(setting.device),
                    backend=name,
                    precision=precision,
                    dtype="float16",
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
