"""Plans that are banks of pictures: a function for each row, all run or those that are asked for.

A rate in bytes counts what must be read (mask, foreground and background, a byte a number) and written. The copy rate
is that of the fastest of three copies, as in ops.py, in the same rounds and counted in the same way.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ops import copies
from report import median_ratio, print_table, summary, time_in_turns, write_json

import cgnrt
from cgnrt.plan import BankContents, write_bank

PIXELS = 224
CLASSES = 10
ENTRIES = 400  # of each mechanism: 140 MB, past any cache
BATCH = 256

Row = dict[str, Any]


def sample_against_copy(folder: Path, rounds: int, threads: int) -> list[Row]:
    """gen.sample from a raw bank in memory to uint8, over the rate of a copy."""
    bytes_moved = BATCH * PIXELS * PIXELS * (1 + 3 + 3 + 3)
    rows = []
    with cgnrt.Generator(noise_bank(folder), device="cpu", dtype="uint8", threads=threads) as gen:
        out = np.ones((BATCH, 3, PIXELS, PIXELS), np.uint8)
        gen.plan.verify_banks()
        for name, given in (("into out=", out), ("into new memory", None)):
            calls: dict[str, Callable[[], object]] = dict(copies(bytes_moved, threads))
            calls["ours"] = lambda given=given: gen.sample(BATCH, seed=1, out=given)
            times = time_in_turns(calls, rounds=rounds)
            copy = min((k for k in times if k.startswith("copy")), key=lambda k: statistics.median(times[k]))
            median = statistics.median(times["ours"])
            rows.append(
                {
                    "sample of a raw bank": name,
                    **summary(times["ours"]),
                    "images/s": BATCH / median,
                    "GB/s": bytes_moved / median / 1e9,
                    "copy GB/s": bytes_moved / statistics.median(times[copy]) / 1e9,
                    "share of copy": median_ratio(times[copy], times["ours"]),
                }
            )
    return rows


def sample_against_torch(folder: Path, rounds: int, threads: int) -> list[Row]:
    """The same images per second against decoded uint8 tensors that are blended in torch."""
    import torch

    torch.set_num_threads(threads)
    with cgnrt.Generator(noise_bank(folder), device="cpu", dtype="uint8", threads=threads) as gen:
        gen.plan.verify_banks()
        masks, foregrounds, backgrounds = (
            torch.from_numpy(bank.pictures.copy()) for bank in gen.plan.banks.values()
        )

        def picked() -> list[torch.Tensor]:
            pools = (masks, foregrounds, backgrounds)
            return [pool[torch.randint(len(pool), (BATCH,))] for pool in pools]

        def in_floats() -> torch.Tensor:
            m, f, b = (part.float() / 255 for part in picked())
            return ((m * f + (1 - m) * b) * 255).round().to(torch.uint8)

        def in_integers() -> torch.Tensor:
            m, f, b = (part.to(torch.int32) for part in picked())
            return ((2 * (m * f + (255 - m) * b) + 255) // 510).to(torch.uint8)

        calls: dict[str, Callable[[], object]] = {
            "ours": lambda: gen.sample(BATCH, seed=1),
            "torch in float32": in_floats,
            "torch in int32": in_integers,
        }
        times = time_in_turns(calls, rounds=rounds)
    return [
        {
            "blended by": name,
            **summary(found),
            "images/s": BATCH / statistics.median(found),
            "x": median_ratio(found, times["ours"]),
        }
        for name, found in times.items()
    ]


def noise_bank(folder: Path) -> Path:
    """A raw bank of random pictures."""
    path = folder / "noise.plan"
    if not path.exists():
        rng = np.random.default_rng(0)
        labels = np.arange(ENTRIES) * CLASSES // ENTRIES
        parts = {
            name: BankContents(
                rng.integers(0, 256, (ENTRIES, channels, PIXELS, PIXELS), np.uint8),
                labels,
                [f"class {k}" for k in range(CLASSES)],
            )
            for name, channels in (("shape", 1), ("texture", 3), ("background", 3))
        }
        write_bank(path, shape=parts["shape"], texture=parts["texture"], background=parts["background"])
    return path


ROWS: dict[str, Callable[[Path, int, int], list[Row]]] = {
    "copy": sample_against_copy,
    "torch": sample_against_torch,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", action="append", choices=ROWS, help="only these")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=cgnrt.ops.build_info()["cpu"]["cpus"])
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.row or ROWS:
            result[name] = ROWS[name](Path(folder), arguments.rounds, arguments.threads)
            print_table(f"{name}, {arguments.threads} threads", result[name])
    write_json("bank", {"rounds": arguments.rounds, "threads": arguments.threads, **result}, arguments.json)


if __name__ == "__main__":
    main()
