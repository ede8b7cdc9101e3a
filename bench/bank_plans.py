"""Banks of pictures: making one of photos, what composing from one gains over networks, and opening a large one.

- photos: `cgnrt bank` as a command, from files to a plan, over the time that the saliency network alone takes for their
  masks with all cores, in this run. The photos are made here: JPEGs of a disc before stripes.
- a plan: images/s of `gen.sample` from a bank of its networks' own pictures, over those of its networks, in turn.
- opening: a new process opens a bank of random pictures and makes the first batch; the import is not counted. The
  file's pages are in memory, or asked of the disk ("from disk", where the system heeds `posix_fadvise`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from real import make_photos
from report import ROOT, median_ratio, print_table, summary, time_in_turns, write_json

from cgnrt import Generator, banks, real
from cgnrt.plan import MECHANISMS, BankContents, write_bank
from cgnrt.real.files import read_photo

_BATCH = 64  # of the first batch
_COMMAND = """
import sys
from cgnrt.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""
_OPENED = """
import json, os, sys, time
import cgnrt
path, cold = sys.argv[1], sys.argv[2] == "cold"
if cold:
    handle = os.open(path, os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)
begin = time.perf_counter()
gen = cgnrt.Generator(path, dtype="uint8", device="cpu")
opened = time.perf_counter()
gen.sample(int(sys.argv[3]), seed=int(sys.argv[4]))
print(json.dumps([opened - begin, time.perf_counter() - begin]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--saliency", type=Path, help="a plan of U2-Net-p; without it photos are left out")
    parser.add_argument("--photos", type=int, default=600)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument(
        "--plan", type=Path, default=ROOT / "plans" / "wildlife.plan", help="whose networks draw"
    )
    parser.add_argument("--pictures", type=int, default=2000, help="of each mechanism of that plan")
    parser.add_argument("--bank", type=Path, help="an existing bank of its pictures")
    parser.add_argument("--images", type=int, default=1600, help="in a call of `gen.sample`")
    parser.add_argument("--network-images", type=int, help="the same for the networks (as many)")
    parser.add_argument(
        "--gigabytes", type=float, default=2.0, help="of the bank that is opened; 0 leaves it out"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.saliency is not None:
            result["photos"] = [photos_to_plan(folder, arguments)]
            print_table(
                f"{arguments.photos} photos to a plan at {arguments.size} px, seconds", result["photos"]
            )
        if arguments.pictures:
            result["plan"] = bank_and_networks(folder, arguments)
            print_table(
                f"{arguments.plan.name}, images/s, medians of {arguments.rounds} rounds", result["plan"]
            )
        if arguments.gigabytes:
            result["opening"] = opening(folder, arguments)
            print_table(
                f"A bank of {arguments.gigabytes:g} GB: opening, and a batch of {_BATCH}", result["opening"]
            )
    write_json("bank-plans", result, arguments.json)


def photos_to_plan(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole command, and the masks alone on photos that are read already."""
    make_photos(folder, arguments.photos)
    find = real.Saliency(arguments.saliency)
    squares = [read_photo(path, arguments.size)[0] for path in sorted((folder / "photos").iterdir())]
    images = np.stack(squares)
    find(images[:8])
    begin = time.perf_counter()
    find(images)
    masks = time.perf_counter() - begin
    script = folder / "command.py"
    script.write_text(_COMMAND)
    command = [
        sys.executable,
        script,
        "bank",
        folder / "photos",
        "--saliency",
        arguments.saliency,
    ]
    command += ["--size", str(arguments.size), "-o", folder / "photos.plan"]
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    whole = time.perf_counter() - begin
    return {"masks": masks, "cgnrt bank": whole, "ratio": whole / masks, "must": 1.3, "aim": 1.1}


def bank_and_networks(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Sampling from a plan's networks and from a bank of their pictures, in turn."""
    bank = arguments.bank or folder / "bank.plan"
    if arguments.bank is None:
        banks.from_plan(bank, arguments.plan, arguments.pictures)
    seeds = itertools.count(1)
    counts = {"networks": arguments.network_images or arguments.images, "bank": arguments.images}
    cases: dict[str, Callable[[], object]] = {}
    for dtype in ("float32", "uint8"):
        for name, path in (("networks", arguments.plan), ("bank", bank)):
            gen = Generator(path, dtype=dtype, precision="fp32")
            cases[f"{name}, {dtype}"] = lambda gen=gen, n=counts[name]: gen.sample(n, seed=next(seeds))
    times = time_in_turns(cases, rounds=arguments.rounds, warmup=1)
    per_image = {
        name: [s / counts[name.partition(",")[0]] for s in seconds] for name, seconds in times.items()
    }
    return [
        {
            "from": name,
            **summary(times[name]),
            "images/s": 1 / float(np.median(seconds)),
            "x networks": median_ratio(per_image[f"networks, {name.partition(', ')[2]}"], seconds),
        }
        for name, seconds in per_image.items()
    ]


def opening(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds to open a large bank in a new process, and to the end of its first batch."""
    path = folder / "large.plan"
    size = arguments.size
    count = max(10, round(arguments.gigabytes * 1e9 / (7 * size * size)))
    rng = np.random.default_rng(0)
    shapes = {name: (count, 1 if name == "shape" else 3, size, size) for name in MECHANISMS}
    parts = {
        name: BankContents(
            rng.integers(0, 256, shape, dtype=np.uint8),
            np.arange(count) * 10 // count,
            [str(k) for k in range(10)],
        )
        for name, shape in shapes.items()
    }
    write_bank(path, shape=parts["shape"], texture=parts["texture"], background=parts["background"])
    del parts
    os.sync()
    rows = []
    for where, word in (("in memory", "warm"), ("from disk", "cold")):
        found = [opened(path, word, seed) for seed in range(arguments.rounds)]
        first, whole = np.median(np.array(found), axis=0).tolist()
        rows.append({"file": where, "opened s": first, "first batch s": whole, "must": 0.3, "aim": 0.1})
    return rows


def opened(path: Path, word: str, seed: int) -> list[float]:
    command = [sys.executable, "-c", _OPENED, path, word, str(_BATCH), str(seed)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds: list[float] = json.loads(done.stdout)
    return seconds


if __name__ == "__main__":
    main()
