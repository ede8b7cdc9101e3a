"""How the time of `cgnrt real` grows with the number of photos: the whole command on two folders.

It makes one counterfactual for each photo. The photos are made here: JPEGs of 320 x 240 with a disc before stripes, and
their masks. Times are by the clock and in processor time, which other processes of a busy machine disturb less.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from report import median_ratio, print_table, write_json

_SIZES = (512, 2048)
_MOST = 4.4  # for four times the photos


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    clock: dict[int, list[float]] = {n: [] for n in _SIZES}
    processor: dict[int, list[float]] = {n: [] for n in _SIZES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in _SIZES:
            make_photos(folder / str(n), n)
        run(folder / str(_SIZES[0]), folder / "warm up")
        for turn in range(arguments.rounds):
            for n in _SIZES:
                seconds, worked = run(folder / str(n), folder / f"out {turn} {n}")
                clock[n].append(seconds)
                processor[n].append(worked)
    rows = [
        {
            "seconds": title,
            **{f"{n} photos": statistics.median(times[n]) for n in _SIZES},
            "ratio": median_ratio(times[_SIZES[1]], times[_SIZES[0]]),
            "at most": _MOST,
        }
        for title, times in (("clock", clock), ("processor", processor))
    ]
    print_table(f"cgnrt real, medians of {arguments.rounds} rounds, and of ratios within a round", rows)
    write_json("real", {"rounds": arguments.rounds, "rows": rows}, arguments.json)


def make_photos(folder: Path, n: int) -> None:
    """`photos` and `masks` in a folder."""
    y, x = np.mgrid[:240, :320]
    for name in ("photos", "masks"):
        (folder / name).mkdir(parents=True)
    for k in range(n):
        inside = (y - 120) ** 2 + (x - 140 - k % 40) ** 2 < (50 + k % 30) ** 2
        stripes = (x * (1 + k % 7) + y * (k % 5)) % 64 * 3
        photo = np.where(inside[..., None], (200, 40 + k % 200, 90), stripes[..., None] + (0, k % 60, 30))
        Image.fromarray(photo.astype(np.uint8)).save(folder / "photos" / f"{k:05d}.jpg", quality=90)
        Image.fromarray((inside * 255).astype(np.uint8)).save(folder / "masks" / f"{k:05d}.png")


def run(folder: Path, output: Path) -> tuple[float, float]:
    """Seconds of one command, by the clock and of the processor."""
    program = "import sys; from cgnrt.cli import main; sys.exit(main())"
    photos, masks = folder / "photos", folder / "masks"
    command = [sys.executable, "-c", program, "real", photos, "--masks", masks, "-o", output]
    begin, before = time.perf_counter(), _processor_seconds()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin, _processor_seconds() - before


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
