"""Streams against plain loops over `gen.sample`, and a `DataLoader` of two workers against one process.

MNIST plan, a renewing pool of 256 entries of each mechanism that are reused 16 times, batches of 64 images: the
networks run for 4 new entries a batch. Every case goes on in a stream of its own from round to round, with its first
window made before the clock starts.

- loop: `gen.sample(64, seed, start=..., pool=256, refresh=16)`, the next when the one before is there;
- stream: `gen.stream(64, seed, pool=256, refresh=16)`; and with `prefetch=0`, which has no thread;
- workers: `DataLoader(CounterfactualDataset(gen, 64, ...), batch_size=None, num_workers=2)`, a thread each;
- the consumer's own work beside a stream, on one thread each: what the background thread costs it. Python code is the
  worst case, since it holds the interpreter's lock; a training step seldom does;
- a training step beside two busy processes, by `bench/neighbours.py`, in a process for which nothing is set.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from report import ROOT, median_ratio, print_table, summary, time_in_turns, write_json
from torch.utils.data import DataLoader

from cgnrt import Generator
from cgnrt.torch import CounterfactualDataset
from cgnrt_training.classifier.model import Classifier

HERE = Path(__file__).resolve().parent
BATCH = 64
POOL: dict[str, Any] = {"pool": 256, "refresh": 16}
WINDOW = 256 * 16 // BATCH  # batches until every entry is one that came later
SEEDS = itertools.count(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", type=Path, default=ROOT / "plans" / "double-colored.plan")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=200, help="batches a round")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    plan, count, rounds = arguments.plan, arguments.batches, arguments.rounds

    print(f"load of the machine before: {os.getloadavg()[0]:.1f}")
    rates = [*against_a_loop(plan, count, rounds), *against_workers(plan, count, rounds)]
    print_table("Images per second, and medians of ratios within a round", rates)
    beside = consumer_beside(plan, count, rounds)
    print_table("The consumer's own work beside a stream", beside)
    unset = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    subprocess.run(
        [sys.executable, "neighbours.py", "--plan", plan.resolve()], cwd=HERE, env=unset, check=True
    )
    write_json(
        "stream",
        {"batches": count, "rounds": rounds, "load": os.getloadavg()[0], "rows": rates, "beside": beside},
        arguments.json,
    )


def taking(batches: Iterator[Any], count: int, warm: int) -> Callable[[], None]:
    """Take `count` batches; the first `warm` are taken now."""

    def take(n: int = count) -> None:
        for _ in zip(range(n), batches, strict=False):
            pass

    take(warm)
    return take


def loop(generator: Generator, **options: Any) -> Iterator[Any]:
    seed = next(SEEDS)
    for start in itertools.count(0, BATCH):
        yield generator.sample(BATCH, seed, start=start, **options)


def against_a_loop(plan: Path, count: int, rounds: int) -> list[dict[str, Any]]:
    rows = []
    for name, options in (("renewing pool", POOL), ("fixed pool", {"pool": 256}), ("every image new", {})):
        n = count if options else max(1, count // 2)
        warm = WINDOW if options else 2
        with (
            Generator(plan).stream(BATCH, next(SEEDS), **options) as stream,
            Generator(plan).stream(BATCH, next(SEEDS), prefetch=0, **options) as unthreaded,
        ):
            cases = {
                f"{name}: loop": taking(loop(Generator(plan), **options), n, warm),
                f"{name}: stream": taking(stream, n, warm),
                f"{name}: stream, prefetch=0": taking(unthreaded, n, warm),
            }
            times = time_in_turns(cases, rounds=rounds)
        rows += _rows(times, n, f"{name}: loop")
    return rows


def against_workers(plan: Path, count: int, rounds: int) -> list[dict[str, Any]]:
    dataset = CounterfactualDataset(Generator(plan), BATCH, next(SEEDS), **POOL)
    workers = iter(DataLoader(dataset, batch_size=None, num_workers=2))
    one = "one process, two threads: stream"
    with (
        Generator(plan, threads=2).stream(BATCH, next(SEEDS), **POOL) as two_threads,
        Generator(plan, threads=1).stream(BATCH, next(SEEDS), **POOL) as one_thread,
    ):
        cases = {
            one: taking(two_threads, count, WINDOW),
            "one process, one thread: stream": taking(one_thread, count, WINDOW),
            "two workers, one thread each": taking(workers, count, 2 * WINDOW),
        }
        times = time_in_turns(cases, rounds=rounds)
    return _rows(times, count, one)


def consumer_beside(plan: Path, count: int, rounds: int) -> list[dict[str, Any]]:
    """A consumer's work on one core, alone and with a stream of one thread that it takes batches from."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))

    def train(batch: Any) -> None:
        x, y = (images, labels) if batch is None else (batch.torch().images, batch.torch().labels.shape)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    def python(batch: Any) -> None:
        sum(k * k for k in range(200_000))

    rows = []
    n = max(1, count // 10)
    for name, work in (("training step", train), ("Python code", python)):
        with Generator(plan, threads=1).stream(BATCH, next(SEEDS), **POOL) as stream:
            cases = {
                f"{name} alone": taking(map(work, itertools.repeat(None)), n, 2),
                f"{name} beside a stream": taking(map(work, stream), n, WINDOW),
            }
            times = time_in_turns(cases, rounds=rounds)
        alone = times[f"{name} alone"]
        rows += [
            {"case": case, "ms": summary(t)["median_ms"] / n, "x alone": median_ratio(t, alone)}
            for case, t in times.items()
        ]
    return rows


def _rows(times: dict[str, list[float]], count: int, base: str) -> list[dict[str, Any]]:
    return [
        {
            "case": name,
            "images/s": BATCH * count / (summary(seconds)["median_ms"] / 1e3),
            **summary(seconds),
            "x": median_ratio(times[base], seconds),
        }
        for name, seconds in times.items()
    ]


if __name__ == "__main__":
    main()
