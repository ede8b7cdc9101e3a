"""The ops against the machine's copy rate and against what a user would pick instead.

compose runs the cases of the tests' table that are marked for it, at a size well past the cache. Its rate is the
bytes it must read (masks, foregrounds, backgrounds) and write, over its time; the copy rate is that of the fastest
of three copies (NumPy's, and the ops' own plain and streaming ones, on as many threads), timed in the same rounds
and counted in the same way, read and written. patch_grid runs its own table's cases against the same steps in torch.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from report import ROOT, median_ratio, print_table, summary, time_in_turns, write_json

from cgnrt import _core, ops

CASES = ROOT / "tests" / "ops" / "compose_cases.json"
GRID_CASES = ROOT / "tests" / "ops" / "patch_grid_cases.json"
PAST_CACHE = 384 << 20  # bytes read and written by a case
TORCH = importlib.util.find_spec("torch") is not None
LOWS = (0, -1, -1)  # what byte 0 stands for in masks, foregrounds and backgrounds
Calls = dict[str, Callable[[], object]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=ops.build_info()["cpu"]["cpus"])
    parser.add_argument("--case", action="append", help="only these cases of the table")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    if TORCH:
        import torch

        torch.set_num_threads(arguments.threads)

    cases = [case for case in json.loads(CASES.read_text()) if "bench" in case]
    if arguments.case:
        cases = [case for case in cases if case["name"] in arguments.case]
    rows = [measure_compose(case, arguments.threads, arguments.rounds) for case in cases]
    print_table(f"compose, {arguments.threads} threads, batches past the cache", rows)
    result: dict[str, Any] = {
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "build": ops.build_info(),
        "compose": rows,
    }
    if not arguments.case:
        result["small"] = [measure_small(n, arguments.rounds) for n in (1, 16, 256)]
        print_table("compose of a few 32 px images, threads chosen by size", result["small"])
        grids = [case for case in json.loads(GRID_CASES.read_text()) if "bench" in case]
        result["patch_grid"] = [
            measure_patch_grid(case, n, arguments.threads, arguments.rounds)
            for case in grids
            for n in (1, 16)
        ]
        print_table(f"patch_grid, {arguments.threads} threads", result["patch_grid"])
        result["noise"] = measure_noise(arguments.rounds)
        print_table("noise, 20,000 x 128 numbers", result["noise"])
    write_json("ops", result, arguments.json)


class Inputs:
    """One case's arrays at the size of the benchmark, and the same work in other hands."""

    def __init__(self, case: dict[str, Any]) -> None:
        rng = np.random.default_rng(0)
        c, h, w = case["size"]
        given = case.get("input", "float32")
        dtypes = [given] * 3 if isinstance(given, str) else given
        sizes = {"float32": 4, "float16": 2, "bfloat16": 2, "uint8": 1}
        of_pools = [sizes[dtype] for dtype in dtypes]
        out_bytes = sizes[case.get("output", "float32")]
        image_bytes = h * w * (of_pools[0] + c * (of_pools[1] + of_pools[2] + out_bytes))
        self.n = max(1, PAST_CACHE // image_bytes)
        self.bytes = self.n * image_bytes
        pools = case["bench"].get("pools", [self.n] * 3)
        self.masks, self.foregrounds, self.backgrounds = (
            filled(rng, (pool, channels, h, w), dtype)
            for pool, channels, dtype in zip(pools, (1, c, c), dtypes, strict=True)
        )
        self.index = None
        if "pools" in case["bench"]:
            self.index = np.stack([rng.integers(0, pool, self.n) for pool in pools], axis=1).astype(np.int32)
        self.rolls = None
        if case.get("rolls"):
            self.rolls = (rng.integers(0, 1 << 20, (self.n, 2, 2)) % np.array([h, w])).astype(np.int32)
        self.place = places(rng, self.n, h, w) if case.get("place") else None
        self.options = {key: case[key] for key in ("layout", "scale", "bias") if key in case}
        self.dtype: str = case.get("output", "float32")
        shape = (self.n, c, h, w) if case.get("layout", "NCHW") == "NCHW" else (self.n, h, w, c)
        # Written once beforehand: a page's first touch costs more than any of the ops.
        self.out = np.ones(shape, "uint16" if self.dtype == "bfloat16" else self.dtype)

    def ours(self, threads: int) -> object:
        return ops.compose(
            self.masks,
            self.foregrounds,
            self.backgrounds,
            self.index,
            rolls=self.rolls,
            place=self.place,
            dtype=self.dtype,
            threads=threads,
            out=self.out,
            **self.options,
        )

    def gathered(self, pools: tuple[Any, Any, Any], index: Any) -> list[Any]:
        if index is None:
            return list(pools)
        return [pool[index[:, k]] for k, pool in enumerate(pools)]

    def numpy(self) -> object:
        m, f, b = self.gathered((self.masks, self.foregrounds, self.backgrounds), self.index)
        if self.rolls is not None:
            f = np.stack([np.roll(x, tuple(r), (1, 2)) for x, r in zip(f, self.rolls[:, 0], strict=True)])
            b = np.stack([np.roll(x, tuple(r), (1, 2)) for x, r in zip(b, self.rolls[:, 1], strict=True)])
        m, f, b = (values(x, low, np.float32) for x, low in zip((m, f, b), LOWS, strict=True))
        x = m * f + (1 - m) * b
        if "scale" in self.options:
            x = x * np.float32(self.options["scale"]) + np.float32(self.options["bias"])
        if self.options.get("layout") == "NHWC":
            x = x.transpose(0, 2, 3, 1)
        if self.dtype == "uint8":
            x = np.rint(x).clip(0, 255)
        return np.ascontiguousarray(x.astype("float32" if self.dtype == "bfloat16" else self.dtype))

    def torch(self) -> Callable[[], object]:
        import torch

        pools = tuple(torch.from_numpy(x) for x in (self.masks, self.foregrounds, self.backgrounds))
        index = None if self.index is None else torch.from_numpy(self.index).long()
        rolls = None if self.rolls is None else self.rolls.tolist()

        @torch.no_grad()
        def call() -> object:
            m, f, b = self.gathered(pools, index)
            if rolls is not None:
                f = torch.stack([torch.roll(x, r[0], (1, 2)) for x, r in zip(f, rolls, strict=True)])
                b = torch.stack([torch.roll(x, r[1], (1, 2)) for x, r in zip(b, rolls, strict=True)])
            m, f, b = (values(x, low, torch.float32) for x, low in zip((m, f, b), LOWS, strict=True))
            x = m * f + (1 - m) * b
            if "scale" in self.options:
                x = x * self.options["scale"] + self.options["bias"]
            if self.options.get("layout") == "NHWC":
                x = x.permute(0, 2, 3, 1).contiguous()
            if self.dtype == "uint8":
                x = x.round().clamp(0, 255)
            return x.to(getattr(torch, self.dtype))

        return call


def filled(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    """Random pixels; one image's worth repeated, which costs the ops the same and the set-up far less."""
    image = (rng.random(shape[1:], dtype=np.float32) * (255 if dtype == "uint8" else 1)).astype(dtype)
    return np.ascontiguousarray(np.broadcast_to(image, shape))


def places(rng: np.random.Generator, n: int, h: int, w: int) -> npt.NDArray[np.float32]:
    """Objects of half to one and a half of their size, up to a quarter of the picture away, half of them mirrored."""
    shifts = rng.uniform(-0.25, 0.25, (2, n)) * [[h], [w]]
    return np.stack([*shifts, rng.uniform(0.5, 1.5, n), rng.integers(0, 2, n)], axis=1).astype(np.float32)


def values(pixels: Any, low: float, dtype: Any) -> Any:
    """Bytes as the floats that they stand for, `low`..1; other pixels as they are."""
    if str(pixels.dtype).removeprefix("torch.") != "uint8":
        return pixels
    floats = pixels.astype(dtype) if isinstance(pixels, np.ndarray) else pixels.to(dtype)
    return floats / 255 if low == 0 else floats / 127.5 - 1


def copies(count: int, threads: int) -> Calls:
    """Three ways to move `count` bytes, half of them read and half written."""
    source, target = np.ones(count // 8, np.float32), np.ones(count // 8, np.float32)
    calls: Calls = {
        "copy streaming": lambda: _core.copy(source, target, threads=threads, streams=True),
        "copy plain": lambda: _core.copy(source, target, threads=threads),
    }
    if threads == 1:
        calls["copy numpy"] = lambda: np.copyto(target, source)
    else:
        calls["copy numpy"] = numpy_copy_on(threads, source, target)
    return calls


def numpy_copy_on(threads: int, source: npt.NDArray[Any], target: npt.NDArray[Any]) -> Callable[[], object]:
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(threads)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    return lambda: list(executor.map(lambda part: np.copyto(*part), parts))


def measure_compose(case: dict[str, Any], threads: int, rounds: int) -> dict[str, Any]:
    inputs = Inputs(case)
    calls: Calls = copies(inputs.bytes, threads)
    calls["ours"] = lambda: inputs.ours(threads)
    times = time_in_turns(calls, rounds=rounds)
    best = min((name for name in times if name.startswith("copy")), key=lambda k: statistics.median(times[k]))
    # Seconds a byte: the copies move two bytes for each of count // 2.
    share = median_ratio(times[best], times["ours"])
    peers: Calls = {"ours": calls["ours"], "numpy": inputs.numpy}
    if TORCH:
        peers["torch"] = inputs.torch()
    if inputs.place is not None:  # the others have no such operation
        peers = {"ours": calls["ours"]}
    peer_times = time_in_turns(peers, rounds=max(3, rounds // 4), warmup=1)
    median = statistics.median(times["ours"])
    row: dict[str, Any] = {
        "case": case["name"],
        "size": "x".join(map(str, case["size"])),
        "n": inputs.n,
        "dtype": inputs.dtype,
        **summary(times["ours"]),
        "GB/s": inputs.bytes / median / 1e9,
        "copy GB/s": inputs.bytes / statistics.median(times[best]) / 1e9,
        "share of copy": share,
    }
    for name in ("numpy", "torch") if TORCH else ("numpy",):
        row[f"x {name}"] = median_ratio(peer_times[name], peer_times["ours"]) if name in peers else None
    return row


def measure_small(n: int, rounds: int) -> dict[str, Any]:
    m, f, b = (np.ones((n, c, 32, 32), np.float32) for c in (1, 3, 3))
    calls: Calls = {"ours": lambda: ops.compose(m, f, b), "numpy": lambda: m * f + (1 - m) * b}
    if TORCH:
        import torch

        tm, tf, tb = (torch.from_numpy(x) for x in (m, f, b))
        calls["torch"] = lambda: tm * tf + (1 - tm) * tb
    times = time_in_turns(calls, rounds=20 * rounds, warmup=20)
    return {
        "n": n,
        **{f"{name} us": statistics.median(seconds) * 1e6 for name, seconds in times.items()},
    }


def measure_patch_grid(case: dict[str, Any], n: int, threads: int, rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    _, c, h, w = case["sources"]
    masks = object_masks(rng, n, h, w)
    images = rng.uniform(-1, 1, (n, c, h, w)).astype(np.float32)
    picks = rng.integers(0, 100, (n, 36)).astype(np.int32)
    size = tuple(case["size"])
    over = None
    if "over" in case:
        over = tuple(rng.random((n, k, *size), dtype=np.float32) for k in (1, c))
    form = {key: case[key] for key in ("scale", "bias", "clamp") if key in case}
    form["dtype"] = case.get("output", "float32")
    out = np.ones((n, c, *size), form["dtype"])
    calls: Calls = {
        "ours": lambda: ops.patch_grid(
            masks, images, picks, size=size, over=over, threads=threads, out=out, **form
        )
    }
    if TORCH:
        calls["torch"] = torch_patch_grid(masks, images, picks, size, over, form)
    times = time_in_turns(calls, rounds=rounds)
    row: dict[str, Any] = {
        "case": case["name"],
        "n": n,
        **summary(times["ours"]),
        "us an image": statistics.median(times["ours"]) / n * 1e6,
    }
    if TORCH:
        row["x torch"] = median_ratio(times["torch"], times["ours"])
    return row


def object_masks(rng: np.random.Generator, n: int, h: int, w: int) -> npt.NDArray[np.float32]:
    """Masks as they are, (n, 1, h, w): smooth, with a plateau where the object is."""
    y, x = np.mgrid[:h, :w]
    middles = rng.uniform(0.4, 0.6, (n, 2, 1, 1)) * [[[h]], [[w]]]
    distance = np.hypot(y - middles[:, :1], x - middles[:, 1:])
    masks: npt.NDArray[np.float32] = (1 / (1 + np.exp((distance - h / 4) / 3))).astype(np.float32)
    return masks.clip(1e-4, 0.9999)


def torch_patch_grid(
    masks: Any, images: Any, picks: Any, size: tuple[int, int], over: Any, form: dict[str, Any]
) -> Callable[[], object]:
    """The same steps, batched, as one would write them: mean pooling, topk, gather of unfolded views, interpolate.

    Args:
      masks, images, picks, over: NumPy arrays, or torch tensors on one device.
    """
    import torch
    import torch.nn.functional as F

    m, x, p = torch.as_tensor(masks), torch.as_tensor(images), torch.as_tensor(picks).long()
    blend = None if over is None else tuple(torch.as_tensor(pool) for pool in over)
    n, c = images.shape[:2]
    row = torch.arange(n, device=x.device)[:, None]

    @torch.no_grad()
    def call() -> object:
        means = F.avg_pool2d(m, 15, stride=1)
        best = means.flatten(1).topk(100).indices.gather(1, p)
        across = means.shape[3]
        windows = x.unfold(2, 15, 1).unfold(3, 15, 1)  # a view: (n, c, h - 14, w - 14, 15, 15)
        tiles = windows[row, :, best // across, best % across]  # (n, 36, c, 15, 15)
        grid = tiles.reshape(n, 6, 6, c, 15, 15).permute(0, 3, 1, 4, 2, 5).reshape(n, c, 90, 90)
        y = F.interpolate(grid, size=size, mode="bicubic", align_corners=False)
        if blend is not None:
            y = blend[0] * y + (1 - blend[0]) * blend[1]
        if "clamp" in form:
            y = y.clamp(*form["clamp"])
        if "scale" in form:
            y = y * form["scale"] + form["bias"]
        return y.round().to(torch.uint8) if form["dtype"] == "uint8" else y

    return call


def measure_noise(rounds: int) -> list[dict[str, Any]]:
    indices = np.arange(20_000)
    rng = np.random.default_rng(0)
    calls: Calls = {
        "normal": lambda: ops.normal(0, indices, 0, 128),
        "truncated_normal": lambda: ops.truncated_normal(0, indices, 0, 128),
        "integers": lambda: ops.integers(0, indices, 0, 10, 128),
        "numpy standard_normal": lambda: rng.standard_normal((20_000, 128), dtype=np.float32),
        "numpy integers": lambda: rng.integers(0, 10, (20_000, 128), dtype=np.int32),
    }
    if TORCH:
        import torch

        calls["torch randn"] = lambda: torch.randn(20_000, 128)
    times = time_in_turns(calls, rounds=rounds)
    return [
        {
            "what": name,
            **summary(seconds),
            "numbers/us": 20_000 * 128 / statistics.median(seconds) / 1e6,
        }
        for name, seconds in times.items()
    ]


if __name__ == "__main__":
    main()
