"""Generator against plain PyTorch, and against the engine called by hand.

The peers, all on the same weights and in the same run, in turn:
- torch eager: the three modules as trained, fp32, batch 100, no_grad, each run once an image, composed with tensor
  arithmetic: what a user has today;
- by hand: every engine on the rewritten graphs, networks alone, batch 100, inputs made beforehand. "x library" is
  against the best engine library, whichever precision it takes; the limit of a pool takes the fastest networks of all.
Every timed call of the Generator has a new seed, so that no pool is answered from before.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import median_ratio, print_table, summary, time_in_turns, write_json

from cgnrt import Generator, ops
from cgnrt._support.machine import describe_machine
from cgnrt.backends import BACKENDS, load_engine, supports
from cgnrt.plan import Plan
from cgnrt.sampling import MECHANISMS
from cgnrt_export import export_plan, read_checkpoint
from cgnrt_training.mnist.models import CGN

BATCH = 100  # of the peers, as the reference generates
REUSE = 16


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="a trained MNIST CGN; random weights otherwise")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=1600, help="images per call")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        plan, checkpoint = prepare(Path(folder), arguments.checkpoint)
        rows = measure(plan, checkpoint, arguments.images, arguments.rounds)
    machine = describe_machine()
    print(f"{machine['cpu']}, {machine['cores']} cores; vector extensions {machine['vector_extensions']}, ")
    print(f"matrix extensions {machine['matrix_extensions'] or 'none'}")
    print_table("MNIST CGN, images per second and ratios (medians of ratios within a round)", rows)
    write_json(
        "generator", {"images": arguments.images, "rounds": arguments.rounds, "rows": rows}, arguments.json
    )


def prepare(folder: Path, checkpoint: Path | None) -> tuple[Path, Path]:
    """A plan and the checkpoint that it was exported from."""
    if checkpoint is None:
        checkpoint = folder / "random.pth"
        torch.save(random_cgn().state_dict(), checkpoint)
    plan = folder / "cgn.plan"
    found = read_checkpoint(checkpoint)
    export_plan(plan, found.mechanisms, family=found.family)
    return plan, checkpoint


def random_cgn() -> CGN:
    """Random weights, and the batch-norm statistics of a net that has seen data."""
    torch.manual_seed(0)
    cgn = CGN()
    cgn.train()
    with torch.no_grad():
        for _ in range(20):
            cgn(torch.randint(10, (256,)))
    return cgn.eval()


def load_cgn(checkpoint: Path) -> CGN:
    loaded = torch.load(checkpoint, weights_only=True, map_location="cpu")
    cgn = CGN()
    cgn.load_state_dict(loaded.get("model", loaded))
    return cgn.eval()


def measure(path: Path, checkpoint: Path, images: int, rounds: int) -> list[dict[str, Any]]:
    seeds = itertools.count(1)
    precisions = [p for p in ("fp32", "bf16") if any(supports(b, p) for b in BACKENDS)]
    with Plan.open(path) as plan, eager_process(checkpoint) as eager:
        mechanisms = list(plan.mechanisms.values())
        hands = {
            f"by hand: {backend} {p}": by_hand(plan, backend, p)
            for backend in BACKENDS
            for p in precisions
            if supports(backend, p, networks=mechanisms)
        }
        generators = {p: Generator(path, precision=p) for p in precisions}
        cases: dict[str, Callable[[], object]] = {"torch eager fp32": eager, **hands}
        for p, gen in generators.items():
            cases[f"cgnrt {p}, reuse 1"] = lambda gen=gen: gen.sample(images, seed=next(seeds))
            cases[f"cgnrt {p}, reuse {REUSE}"] = lambda gen=gen: gen.sample(
                images, seed=next(seeds), pool=images // REUSE
            )
        for name in ("openvino", "torch"):  # what plans of other networks than the native engine's run on
            if supports(name, "fp32"):
                other = Generator(path, precision="fp32", backend=name, device="cpu")
                cases[f"cgnrt fp32 by {name}, reuse 1"] = lambda gen=other: gen.sample(
                    images, seed=next(seeds)
                )
        cases["compose alone"] = compose_alone(generators["fp32"], images)
        times = time_in_turns(cases, rounds=rounds)

    count = {name: BATCH if name in hands or name == "torch eager fp32" else images for name in cases}
    per_image = {name: [t / count[name] for t in seconds] for name, seconds in times.items()}
    rows = []
    for name in cases:
        precision = "bf16" if "bf16" in name else "fp32"
        fastest = min((h for h in hands if precision in h), key=lambda h: np.median(per_image[h]))
        library = min(
            (h for h in hands if precision in h and "native" not in h), key=lambda h: np.median(per_image[h])
        )
        row: dict[str, Any] = {
            "case": name,
            "images/s": 1 / float(np.median(per_image[name])),
            **summary(times[name]),
            "x eager": median_ratio(per_image["torch eager fp32"], per_image[name]),
            "x library": median_ratio(per_image[library], per_image[name]),
            "share of pool limit": "",
        }
        if f"reuse {REUSE}" in name:
            networks = per_image[fastest]
            limit = [n / REUSE + c for n, c in zip(networks, per_image["compose alone"], strict=True)]
            row["share of pool limit"] = median_ratio(limit, per_image[name])
        rows.append(row)
    return rows


@contextlib.contextmanager
def eager_process(checkpoint: Path) -> Iterator[Callable[[], object]]:
    """A batch by eager torch in a process of its own.

    Beside the other engines its speed would depend on the state they leave the memory allocator in (up to 1.5 times).
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve_eager, args=(checkpoint, there), daemon=True)
    process.start()

    def run() -> object:
        here.send(True)
        return here.recv()

    try:
        yield run
    finally:
        here.send(False)
        process.join()


def serve_eager(checkpoint: Path, pipe: Connection) -> None:
    batch = eager_batch(load_cgn(checkpoint))
    while pipe.recv():
        batch()
        pipe.send(True)


def eager_batch(cgn: CGN) -> Callable[[], object]:
    """A batch of counterfactuals as PyTorch users make it."""

    def run() -> object:
        with torch.no_grad():
            pictures = []
            for module in (cgn.f_shape, cgn.f_text1, cgn.f_text2):
                labels = torch.randint(10, (BATCH,))
                noise = torch.randn(BATCH, 32)
                pictures.append(module(torch.cat([noise, cgn.label_emb(labels)], 1)))
            mask = pictures[0].clamp(1e-4, 0.9999)
            return mask * pictures[1] + (1 - mask) * pictures[2]

    return run


def by_hand(plan: Plan, backend: str, precision: str) -> Callable[[], object]:
    """The three rewritten networks alone, inputs made beforehand."""
    rng = np.random.default_rng(0)
    calls = []
    for name in MECHANISMS:
        mechanism = plan.mechanisms[name]
        noise = rng.standard_normal((BATCH, mechanism.spec.noise.size)).astype(np.float32)
        embedding = np.ascontiguousarray(mechanism.embedding[rng.integers(0, 10, BATCH)])
        engine = load_engine(mechanism, backend=backend, precision=precision)
        calls.append((engine, {"noise": noise, "class_embedding": embedding}))

    def run() -> None:
        for engine, inputs in calls:
            engine.run(inputs)

    return run


def compose_alone(gen: Generator, images: int) -> Callable[[], object]:
    """The composer on a pool, with rolls, into new memory."""
    batch = gen.sample(images // REUSE, seed=0, parts=True)
    rng = np.random.default_rng(0)
    index = rng.integers(0, images // REUSE, (images, 3)).astype(np.int32)
    rolls = rng.integers(0, gen.resolution[0], (images, 2, 2)).astype(np.int32)
    pictures = batch.mask, batch.foreground, batch.background
    return lambda: ops.compose(*pictures, index, rolls=rolls, clamp=(-1.0, 1.0))


if __name__ == "__main__":
    main()
