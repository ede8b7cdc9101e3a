"""The loop of docs/training-loops.md against the same step on tensors in memory, alone and beside busy processes.

Nothing is set for torch: no number of threads, no OMP_WAIT_POLICY, unless you set it or pass --torch-threads. The
classifier is the CNN of Table 2, batches of 64 from a renewing pool of 512 entries that are reused 16 times, made
between two steps on torch's own threads (`prefetch=0`) or by a thread in the background. A round takes some steps of
each case in turn, first without and then with two processes that do nothing but count.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from report import ROOT, median_ratio, print_table, summary, time_in_turns, write_json

import cgnrt
from cgnrt_training.classifier.model import Classifier

BATCH = 64
KEPT = 64  # batches in memory: 50 MB, more than the processor's caches
OPTIONS: dict[str, Any] = {"pool": 512, "refresh": 16}
WINDOW = 512 * 16 // BATCH  # batches until every entry is one that came later


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", type=Path, default=ROOT / "plans" / "double-colored.plan")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20, help="steps a round")
    parser.add_argument("--torch-threads", type=int, help="of the training; torch's own choice by default")
    parser.add_argument("--neighbours", type=int, default=2, help="busy processes")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    if arguments.torch_threads is not None:
        torch.set_num_threads(arguments.torch_threads)
    rows = measure(arguments.plan, arguments.rounds, arguments.steps, arguments.neighbours)
    policy = os.environ.get("OMP_WAIT_POLICY", "not set")
    print_table(
        f"A training step; {torch.get_num_threads()} threads of torch, OMP_WAIT_POLICY {policy}", rows
    )
    about = {"torch_threads": torch.get_num_threads(), "wait_policy": policy, "steps": arguments.steps}
    write_json("neighbours", {**about, "rounds": arguments.rounds, "rows": rows}, arguments.json)


def measure(plan: Path, rounds: int, steps: int, neighbours: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    rows = []
    with (
        cgnrt.Generator(plan) as gen,
        cgnrt.Generator(plan) as other,
        gen.stream(BATCH, seed=0, **OPTIONS, prefetch=0) as stream,
        other.stream(BATCH, seed=0, **OPTIONS) as threaded,
    ):
        kept = [next(stream).torch() for _ in range(KEPT)]
        for _, _ in zip(range(WINDOW), zip(stream, threaded, strict=True), strict=False):
            pass
        cases = {
            "in memory": training(itertools.cycle(kept), steps),
            "prefetch=0": training((batch.torch() for batch in stream), steps),
            "by a thread": training((batch.torch() for batch in threaded), steps),
        }
        for name, beside in (("alone", 0), (f"beside {neighbours} busy processes", neighbours)):
            with busy(beside):
                times = time_in_turns(cases, rounds=rounds)
            rows += [
                {
                    "case": f"{case}, {name}",
                    "step ms": summary(taken)["median_ms"] / steps,
                    "p95 ms": summary(taken)["p95_ms"] / steps,
                    "x in memory": median_ratio(taken, times["in memory"]),
                    "x of the sums": sum(taken) / sum(times["in memory"]),
                }
                for case, taken in times.items()
            ]
    return rows


def training(batches: Iterator[Any], steps: int) -> Callable[[], None]:
    """Some steps of a training of its own."""
    model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)

    def run() -> None:
        for _, batch in zip(range(steps), batches, strict=False):
            loss = F.cross_entropy(model(batch.images), batch.labels.shape)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that take all the processor time they can get."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
