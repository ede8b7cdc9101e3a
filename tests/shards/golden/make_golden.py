"""Makes the golden data sets: one of each format, of the golden plan's 8 x 8 pixels, the last of them unfinished.

    python tests/shards/golden/make_golden.py FOLDER

They show that folders of earlier versions stay readable, and are not made again when the code changes.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from cgnrt import shards
from cgnrt.shards import journal

PLAN = Path(__file__).resolve().parents[2] / "plan" / "golden" / "v2.plan"
COMMON: dict[str, Any] = {"n": 5, "shard_size": 3, "seed": 5, "threads": 1, "processes": 1}
SETS: dict[str, dict[str, Any]] = {
    "webdataset": {"image": "png", "masks": True, "do": {"texture": "dots"}, "start": 7},
    "parquet": {"image": "raw", "pool": (2, 3, 2), "refresh": 2, "classes": {"shape": [0, 2]}},
    "npz": {"masks": True, "per_noise": 2},
}
UNFINISHED = "npz"


def make(folder: Path, format: str) -> shards.Manifest:
    """Write a golden data set, or go on with it."""
    return shards.generate(PLAN, folder=folder, format=format, note=print, **COMMON, **SETS[format])


def main() -> None:
    out = Path(sys.argv[1])
    for format in SETS:
        make(out / format, format)
    folder = out / UNFINISHED
    whole = shards.Manifest.read(folder)
    journal.begin(folder, replace(whole, shards=whole.shards[:1]))
    for name in ("manifest.json", whole.shards[1].name):
        (folder / name).unlink()


if __name__ == "__main__":
    main()
