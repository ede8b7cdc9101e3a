"""One counterfactual of an ImageNet CGN against PyTorch and against engine libraries fed as people feed them.

All on the same weights (calibrated random ones unless --checkpoint is given) and in the same run, in turn:
- (a) reference: the work that the authors' code does for an image, torch eager fp32: four BigGANs of
  pytorch-pretrained-biggan and two U2-Nets;
- (b) needed: three of those BigGANs and one U2-Net, torch eager fp32;
- (c) torch.compile of (b)'s modules, and ONNX Runtime and OpenVINO on graphs as exported, without any rewrite but
  weights computed from weights;
- cgnrt: `Generator.sample` on each backend that runs the plan.
bf16 is measured where the processor has it. Start-up and memory are those of fresh processes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from imagenet_peers import Peers, as_exported, composite
from report import median_ratio, print_table, summary, time_in_turns, write_json

from cgnrt import Generator
from cgnrt._support.machine import describe_machine
from cgnrt.backends import BACKENDS, load_engine, supports
from cgnrt.plan import Plan
from cgnrt_export import export_plan, read_checkpoint
from cgnrt_training.imagenet.calibrate import random_cgn
from cgnrt_training.imagenet.checkpoints import load_cgn, save_cgn

REUSE = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="a cgn.pth; calibrated random weights otherwise")
    parser.add_argument("--plan", type=Path, help="the plan made from it; exported anew otherwise")
    parser.add_argument("--resolution", type=int, default=256, help="of random weights (256)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it takes minutes")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, plan = prepare(Path(folder), arguments)
        result = measure(checkpoint, plan, arguments)
    write_json("imagenet", {"rounds": arguments.rounds, **result}, arguments.json)


def prepare(folder: Path, arguments: argparse.Namespace) -> tuple[Path, Path]:
    """A checkpoint and the plan that was exported from it."""
    checkpoint = arguments.checkpoint
    if checkpoint is None:
        checkpoint = folder / "cgn.pth"
        save_cgn(random_cgn(arguments.resolution, seed=0), checkpoint)
    plan = arguments.plan
    if plan is None:
        plan = folder / "cgn.plan"
        found = read_checkpoint(checkpoint)
        export_plan(
            plan,
            found.mechanisms,
            family=found.family,
            noise_mode=found.noise_mode,
            truncation=found.truncation,
            progress=lambda line: print(line, file=sys.stderr),
        )
    return checkpoint, plan


def measure(checkpoint: Path, plan: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    cgn = load_cgn(checkpoint).eval()
    peers = Peers(cgn, compiled=not arguments.no_compile)
    with Plan.open(plan) as opened:
        mechanisms = list(opened.mechanisms.values())
        generators = {
            f"cgnrt {name} {precision}": Generator(plan, backend=name, precision=precision)
            for name in BACKENDS
            for precision in ("fp32", "bf16")
            if supports(name, precision, networks=mechanisms)
        }
        chosen = Generator(plan)
    print(f"{describe_machine()['cpu']}; by itself cgnrt takes: {chosen!r}")
    naive = as_exported(cgn)
    peer_names = ["(a) reference", "(b) needed", *(f"(c) {name}" for name in (*peers.optional, *naive))]
    rows: list[dict[str, Any]] = []
    for batch in arguments.batches:
        start = iter(range(0, 1 << 30, batch))
        cases: dict[str, Callable[[], object]] = {
            "(a) reference": lambda batch=batch: peers.reference(batch),
            "(b) needed": lambda batch=batch: peers.needed(batch),
        }
        for name, call in {**peers.optional, **naive}.items():
            cases[f"(c) {name}"] = lambda call=call, batch=batch: call(batch)
        for name, generator in generators.items():
            cases[name] = lambda generator=generator, batch=batch, start=start: generator.sample(
                batch, 0, start=next(start)
            )
        times = time_in_turns(cases, rounds=arguments.rounds, warmup=1)
        fastest = min(
            (name for name in peer_names if name.startswith("(c)")),
            key=lambda name: float(np.median(times[name])),
        )
        rows += [
            {
                "batch": batch,
                "what": name,
                "seconds an image": summary(seconds)["median_ms"] / 1e3 / batch,
                "x (a)": median_ratio(times["(a) reference"], seconds),
                "x (b)": median_ratio(times["(b) needed"], seconds),
                "x best of (c)": median_ratio(times[fastest], seconds),
                "best of (c)": fastest,
            }
            for name, seconds in times.items()
        ]
    print_table(
        "One counterfactual (medians of ratios within a round)",
        [{key: value for key, value in row.items() if key != "best of (c)"} for row in rows],
    )
    print(
        "best of (c):",
        ", ".join(f"batch {row['batch']}: {row['best of (c)']}" for row in rows[:: len(cases)]),
    )
    difference = parity(chosen, cgn)
    print(f"\nlargest difference of the composite to torch fp32: {difference:.2g}")
    reuse = measure_reuse(chosen, arguments.rounds)
    print(f"pool of reuse {REUSE}: {reuse:.2f} x reuse 1")
    profile = profile_of(plan)
    print_table("Where the native engine's time goes, one image, all mechanisms", profile)
    processes = measure_processes(checkpoint, plan, max(3, arguments.rounds // 2))
    print_table("Fresh processes: to the first image", processes)
    return {
        "rows": rows,
        "difference": difference,
        "reuse": reuse,
        "profile": profile,
        "processes": processes,
    }


def parity(generator: Generator, cgn: torch.nn.Module, n: int = 4) -> float:
    """The largest difference between a batch and what the torch modules make of its noise and labels."""
    batch = generator.sample(n, seed=1, truncation=0.5)
    found = composite(cgn, batch.labels, [torch.from_numpy(u) for u in batch.noise[:3]], 0.5)
    return float((torch.from_numpy(batch.images) - found).abs().max())


def measure_reuse(generator: Generator, rounds: int) -> float:
    """How much more images a second a pool gives whose entries are used REUSE times."""
    entries = 2
    seeds = iter(range(1 << 30))
    times = time_in_turns(
        {
            "reuse 1": lambda: generator.sample(entries, next(seeds)),
            "pool": lambda: generator.sample(entries * REUSE, next(seeds), pool=entries),
        },
        rounds=rounds,
        warmup=1,
    )
    return REUSE * median_ratio(times["reuse 1"], times["pool"])


def profile_of(plan: Path) -> list[dict[str, Any]]:
    """Milliseconds by method, minima over a few runs, beside the multiply-adds at the rate of a large product."""
    from cgnrt.backends.native.deep import NativeDeepEngine

    milliseconds: dict[str, float] = {}
    products: dict[str, float] = {}
    with Plan.open(plan) as opened:
        for mechanism in opened.mechanisms.values():
            engine = load_engine(mechanism, backend="native")
            if not isinstance(engine, NativeDeepEngine):
                return []
            inputs = {
                spec.name: np.full((1, int(spec.shape[1])), 0.5, np.float32) for spec in mechanism.spec.inputs
            }
            runs = []
            for _ in range(7):
                engine.run(inputs)
                runs.append(engine.seconds)
            for (name, count), seconds in zip(engine.methods, np.min(runs, axis=0), strict=True):
                milliseconds[name] = milliseconds.get(name, 0.0) + float(seconds) * 1e3
                products[name] = products.get(name, 0.0) + count
    rate = product_rate()
    whole = sum(milliseconds.values())
    rows = [
        {
            "step": name,
            "ms": time,
            "share": time / whole,
            "G multiply-adds": products[name] / 1e9,
            "of the limit": products[name] / rate / time * 1e3,
        }
        for name, time in sorted(milliseconds.items(), key=lambda item: -item[1])
    ]
    total = sum(products.values())
    rows.append(
        {
            "step": "all",
            "ms": whole,
            "share": 1.0,
            "G multiply-adds": total / 1e9,
            "of the limit": total / rate / whole * 1e3,
        }
    )
    return rows


def product_rate(size: int = 2048) -> float:
    """Multiply-adds a second of torch's fp32 matrix product on all cores: the machine's limit."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    times = time_in_turns({"product": lambda: a @ b}, rounds=9)["product"]
    return size**3 / min(times)


def measure_processes(checkpoint: Path, plan: Path, rounds: int) -> list[dict[str, Any]]:
    """Seconds from the start of Python to the first image, and the peak of resident memory."""
    # Not getrusage: a child begins with its parent's peak there.
    report = "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    programs = {
        "cgnrt": f"import cgnrt; cgnrt.Generator({str(plan)!r}).sample(1, seed=0); {report}",
        "torch (b)": (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from imagenet_peers import first_image; "
            f"first_image({str(checkpoint)!r}); {report}"
        ),
    }
    peaks: dict[str, int] = {}

    def run(name: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", programs[name]], check=True, capture_output=True, text=True
        )
        peaks[name] = max(peaks.get(name, 0), int(done.stdout.split()[-1]))

    times = time_in_turns({name: lambda name=name: run(name) for name in programs}, rounds=rounds, warmup=1)
    return [
        {
            "process": name,
            "seconds": summary(seconds)["median_ms"] / 1e3,
            "x torch": median_ratio(times["torch (b)"], seconds),
            "peak MB": peaks[name] / 1024,
        }
        for name, seconds in times.items()
    ]


if __name__ == "__main__":
    main()
