"""A step of an ensemble's training with counterfactuals streamed, against the same tensors already in memory.

EfficientNet-Lite0 with three heads, pictures enlarged to `--input-size` (71 MMAC an image forward at 96 px),
random weights, half of a batch counterfactuals, half random pixels in the photos' place. A background thread makes the
batches ahead, as in `cgnrt-train ensemble`. A round times each case for some steps; the cases take turns.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from report import ROOT, median_ratio, print_table, summary, write_json

from cgnrt._support.prefetch import Prefetch
from cgnrt._support.terminal import progress_bar
from cgnrt_training.ensemble.config import EnsembleConfig
from cgnrt_training.ensemble.sources import Batches, PhotoImages, PlanImages, StepBatch, open_generator
from cgnrt_training.ensemble.train import Inputs, Run
from cgnrt_training.photos.pack import Photos
from cgnrt_training.settings import override

WARM = 2  # steps before the clock starts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", type=Path, default=ROOT / "plans" / "imagenette64.plan")
    parser.add_argument("--input-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="of torch and of the generator")
    parser.add_argument("--reuse", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="steps a case and round")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = override(
        EnsembleConfig(),
        {
            "model": {"backbone": "efficientnet_lite0", "input_size": arguments.input_size},
            "train": {"batch_size": arguments.batch_size},
        },
    )
    run, cases = prepare(config, arguments.plan, arguments.reuse)
    times: dict[str, list[float]] = {name: [] for name in cases}
    with progress_bar(arguments.rounds, unit="round") as bar:
        for turn in range(arguments.rounds):
            for name, batches in cases.items():
                start = turn * (arguments.steps + WARM)
                times[name].append(
                    seconds_a_step(
                        run, map(batches, itertools.count(start)), arguments.steps, name != "memory"
                    )
                )
            bar.update()
    rows = [
        {"case": name, **summary(seconds), "to memory": median_ratio(seconds, times["memory"])}
        for name, seconds in times.items()
    ]
    print_table(
        "A training step, ms, and its ratio to tensors in memory (median of ratios within a round)", rows
    )
    write_json(
        "ensemble",
        {"input_size": arguments.input_size, "batch_size": arguments.batch_size, "rows": rows},
        arguments.json,
    )


def prepare(
    config: EnsembleConfig, plan: Path, reuses: Iterable[int]
) -> tuple[Run, dict[str, Callable[[int], StepBatch]]]:
    """A run, and what gives its batches by case."""
    from cgnrt.plan import Plan

    with Plan.open(plan) as opened:
        size, _ = opened.manifest.resolution
        names = opened.manifest.mechanisms["shape"].classes
    random = np.random.default_rng(0)
    n = 4 * config.train.batch_size
    pixels = random.integers(0, 256, (n, 3, size, size)).astype(np.uint8)
    photos = Photos(pixels, np.arange(n) % len(names), None, tuple(names), size, "0")
    generator = open_generator(plan, size)
    cases: dict[str, Callable[[int], StepBatch]] = {}
    for reuse in reuses:
        other = PlanImages(generator, photos.classes, reuse=reuse)
        cases[f"streamed, reuse {reuse}"] = Batches(config, PhotoImages(photos, 0), other)
    made = [next(iter(cases.values()))(step) for step in range(4)]
    run = Run(config, Inputs(photos, None, None, None, {}))
    run.model.train()
    return run, {"memory": lambda step: made[step % len(made)], **cases}


def seconds_a_step(run: Run, batches: Iterable[StepBatch], steps: int, ahead: bool) -> float:
    """Mean time of a step, after some that warm up."""
    if not ahead:
        return _time(run, iter(batches), steps)
    with Prefetch(batches, depth=4) as prefetched:
        return _time(run, prefetched, steps)


def _time(run: Run, batches: Iterable[StepBatch], steps: int) -> float:
    batches = iter(batches)
    for batch in itertools.islice(batches, WARM):
        run.step(batch)
    begin = time.perf_counter()
    for batch in itertools.islice(batches, steps):
        run.step(batch)
    return (time.perf_counter() - begin) / steps


if __name__ == "__main__":
    main()
