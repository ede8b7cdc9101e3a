"""`cgnrt generate`: its rate over what it is made of, and what kills at random moments do to it.

In the same run, in turns, on all cores: the Generator in this process, the encoder alone (in as many processes as
`generate` has), and `generate` to WebDataset, from the call to the finished manifest, the start of its processes
included. "of the smaller" is over the smaller of the two rates.

Then a run is killed with SIGKILL at random moments and started again, and what it left is compared with a run that
nobody stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
from report import ROOT, print_table, time_in_turns, write_json

from cgnrt import Generator, shards
from cgnrt._support.encode import encode
from cgnrt._support.machine import available_cores

POOL = 500
SHARDS = 12  # of a data set: as many for each core
CUT = 1024  # as `generate` cuts pictures of 32 px
SEEDS = itertools.count(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", type=Path, default=ROOT / "plans" / "double-colored.plan")
    parser.add_argument("--images", type=int, default=60_000, help="images of a data set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()

    rows = rates(arguments.plan, arguments.images, arguments.rounds)
    print_table(f"generate to WebDataset, {available_cores()} cores, images per second", rows)
    with tempfile.TemporaryDirectory() as folder:
        killed = kill(arguments.plan, Path(folder), arguments.kills)
    print_table("killed at random moments", [killed])
    write_json("generate", {"images": arguments.images, "rows": rows, "kills": killed}, arguments.json)


def rates(plan: Path, images: int, rounds: int) -> list[dict[str, Any]]:
    cores = available_cores()
    generator = Generator(plan, dtype="uint8", layout="NHWC")
    counts = {"every one new": images, f"of pools of {POOL}": 5 * images}
    pools = dict(zip(counts, (None, POOL), strict=True))
    cases: dict[str, Callable[[], object]] = {}
    done: dict[str, int] = {}  # images of a call
    with tempfile.TemporaryDirectory() as folder, workers(plan, cores) as pool:
        for name, count in counts.items():
            done[f"generator, {name}"] = count
            cases[f"generator, {name}"] = lambda count=count, size=pools[name]: run_through(
                generator, count, size
            )
        for image in ("raw", "webp"):
            done[f"encoder, {image}"] = ENCODED * cores
            cases[f"encoder, {image}"] = lambda image=image: pool.map(encode_some, [image] * cores, 1)
            for name, count in counts.items():
                done[f"generate, {image}, {name}"] = count
                cases[f"generate, {image}, {name}"] = lambda image=image, count=count, size=pools[name]: (
                    generate(plan, count, Path(folder) / "out", image, size)
                )
        times = time_in_turns(cases, rounds=rounds, warmup=0)
    rate = {name: [done[name] / t for t in seconds] for name, seconds in times.items()}
    rows = []
    for image in ("raw", "webp"):
        for name in counts:
            ours, alone, encoder = (
                rate[f"generate, {image}, {name}"],
                rate[f"generator, {name}"],
                rate[f"encoder, {image}"],
            )
            smaller = [min(pair) for pair in zip(alone, encoder, strict=True)]
            rows.append(
                {
                    "images": name,
                    "encoded": image,
                    "generator alone": statistics.median(alone),
                    "encoder alone": statistics.median(encoder),
                    "generate": statistics.median(ours),
                    "of the smaller": statistics.median(a / b for a, b in zip(ours, smaller, strict=True)),
                    "of both in turn": statistics.median(
                        a * (1 / b + 1 / c) for a, b, c in zip(ours, alone, encoder, strict=True)
                    ),
                }
            )
    return rows


def generate(plan: Path, count: int, folder: Path, image: str, pool: int | None) -> None:
    size = max(1, count // SHARDS)
    shards.generate(plan, count, folder, image=image, shard_size=size, seed=next(SEEDS), pool=pool)
    shutil.rmtree(folder)


def run_through(generator: Generator, count: int, pool: int | None) -> None:
    for _ in generator.batches(count, CUT, seed=next(SEEDS), pool=pool):
        pass


# The encoder's processes.

ENCODED = 4000
_pictures: list[np.ndarray] = []


def workers(plan: Path, count: int) -> Pool:
    return multiprocessing.get_context("spawn").Pool(count, load_pictures, (plan,))


def load_pictures(plan: Path) -> None:
    _pictures.extend(Generator(plan, dtype="uint8", layout="NHWC").sample(ENCODED, seed=0, pool=200).images)


def encode_some(image: str) -> int:
    return sum(len(encode(picture, image, None)) for picture in _pictures)


# Kills.


def kill(plan: Path, folder: Path, kills: int) -> dict[str, Any]:
    """Kill runs until `kills` have hit, each data set finished at last and compared."""
    options = ["-n", "20000", "--shard-size", "500", "--processes", "2"]
    whole = folder / "whole"
    began = time.monotonic()
    finish(start(plan, whole, options))
    took = time.monotonic() - began
    draw = random.Random(0)
    hits: list[int] = []
    lost = doubled = sets = equal = 0
    while len(hits) < kills:
        torn = folder / f"torn{sets}"
        while len(hits) < kills:
            process = start(plan, torn, options)
            time.sleep(draw.uniform(0, took / 3))
            process.kill()
            if process.wait() != -signal.SIGKILL:
                break  # it was finished
            hits.append(len(list(torn.glob("*.tar"))))
        finish(start(plan, torn, options))
        found = indices(torn)
        lost += 20000 - len(set(found))
        doubled += len(found) - len(set(found))
        equal += contents(torn) == contents(whole)
        sets += 1
    return {
        "kills": len(hits),
        "data sets": sets,
        "shards at a kill": f"{min(hits)}..{max(hits)} of 40",
        "lost": lost,
        "doubled": doubled,
        "byte-equal": f"{equal} of {sets}",
    }


def start(plan: Path, folder: Path, options: list[str]) -> subprocess.Popen[bytes]:
    code = "import sys; from cgnrt.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "generate", str(plan), "-o", str(folder), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def finish(process: subprocess.Popen[bytes]) -> None:
    if process.wait() != 0:
        raise SystemExit("generate failed")


def indices(folder: Path) -> list[int]:
    """The stream index of every sample in a data set."""
    found = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.endswith(".json"):
                    found.append(json.load(archive.extractfile(member))["index"])  # type: ignore[arg-type]
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


if __name__ == "__main__":
    main()
