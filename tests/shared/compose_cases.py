"""The cases of compose that every variant faces, on the CPU and on devices, and the batch in plain NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from module_ops import core

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "ops" / "compose_cases.json").read_text()
)

# fmt: off
SPECIAL = np.array([
    0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -1e-45, 1e-40, 3e38, -3e38, 65504, 65519.99, 65520, -65520,
    2.0**-14, 2.0**-24, 2.0**-25, 1.5 * 2.0**-25, -(2.0**-25), 0.5, 1.5, 2.5, 254.5, 255.5, -0.5, 256, 1e9, -1e9,
], np.float32)
# fmt: on


class ComposeCase:
    """The arrays of one case, its keyword arguments, and the batch as NumPy computes it."""

    def __init__(self, case: dict[str, Any]) -> None:
        rng = np.random.default_rng([len(case["name"]), *case["name"].encode()])
        c, h, w = case["size"]
        pools = case["pools"]
        dtypes = dtypes_of(case)
        self.masks = drawn(rng, (pools[0], 1, h, w), 0, dtypes[0])
        self.foregrounds = drawn(rng, (pools[1], c, h, w), -1, dtypes[1])
        self.backgrounds = drawn(rng, (pools[2], c, h, w), -1, dtypes[2])
        n = case.get("n", pools[0])
        self.index: npt.NDArray[np.int32] | None = None
        if "n" in case:
            self.index = np.stack([rng.integers(0, pool, n) for pool in pools], axis=1).astype(np.int32)
        self.rolls: npt.NDArray[np.int32] | None = None
        if case.get("rolls"):
            self.rolls = rng.integers(-(2**31), 2**31, (n, 2, 2)).astype(np.int32)
            # Offsets that are easily got wrong: none, one of the two, whole vectors, the extremes.
            corners = [[0, 0], [1, 0], [0, 1], [0, 8], [8, 16], [h, w], [h - 1, w - 1], [-1, -1]]
            picks = rng.integers(0, len(corners), (n, 2))
            use = rng.random((n, 2)) < 0.4
            self.rolls[use] = np.array(corners, np.int32)[picks][use]
            self.rolls[0, 0] = [2**31 - 1, -(2**31)]
        self.place: npt.NDArray[np.float32] | None = None
        if case.get("place"):
            self.place = drawn_places(rng, n, h, w)
        self.options: dict[str, Any] = {
            "dtype": case.get("output", "float32"),
            "layout": case.get("layout", "NCHW"),
            "scale": case.get("scale"),
            "bias": case.get("bias"),
            "clamp": tuple(case["clamp"]) if "clamp" in case else None,
        }

    @property
    def pools(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        return self.masks, self.foregrounds, self.backgrounds

    def run(self, **options: Any) -> npt.NDArray[Any]:
        """The compiled op on this case."""
        result: npt.NDArray[Any] = core.compose(
            *self.pools, self.index, rolls=self.rolls, place=self.place, **self.options, **options
        )
        return result

    def expected(self) -> npt.NDArray[Any]:
        """The batch in NumPy, in the order that the op promises."""
        m, f, b = floats_of(*self.pools)
        if self.index is not None:
            m, f, b = m[self.index[:, 0]], f[self.index[:, 1]], b[self.index[:, 2]]
        if self.rolls is not None:
            f, b = f.copy(), b.copy()
            h, w = m.shape[2:]
            for i, offsets in enumerate(self.rolls.astype(np.int64) % np.array([h, w])):
                f[i] = np.roll(f[i], offsets[0], axis=(1, 2))
                b[i] = np.roll(b[i], offsets[1], axis=(1, 2))
        if self.place is not None:
            m, f = placed(m, self.place), placed(f, self.place)
        x = m * f + (np.float32(1) - m) * b
        if self.options["clamp"] is not None:
            x = np.clip(x, *np.float32(self.options["clamp"]))
        for option, operate in (("scale", np.multiply), ("bias", np.add)):
            if self.options[option] is not None:
                x = operate(x, np.asarray(self.options[option], np.float32).reshape(-1, 1, 1))
        if self.options["layout"] == "NHWC":
            x = x.transpose(0, 2, 3, 1)
        return cast(np.ascontiguousarray(x), self.options["dtype"])


def drawn_places(rng: np.random.Generator, n: int, h: int, w: int) -> npt.NDArray[np.float32]:
    """Places of all kinds: anywhere, and those that are easily got wrong."""
    rows = np.stack(
        [
            rng.uniform(-0.6 * h, 0.6 * h, n),
            rng.uniform(-0.6 * w, 0.6 * w, n),
            np.exp2(rng.uniform(-3, 2, n)),
            rng.integers(0, 2, n),
        ],
        axis=1,
    )
    corners = [
        [0, 0, 1, 0],
        [0, 0, 1, 1],
        [1, -2, 1, 0],
        [h - 1, 1 - w, 1, 1],
        [0.5, 0.25, 1, 0],
        [0, 0, 0.5, 1],
        [0, 0, 2, 0],
        [h, 0, 1, 0],  # outside
        [0, 3e38, 3e38, 0],
        [0, 0, 1e-30, 0],
    ]
    for i, corner in enumerate(rng.permutation(len(corners))[: max(1, n // 2)]):
        rows[i] = corners[corner]
    return rows.astype(np.float32)


def placed(pictures: npt.NDArray[np.float32], places: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Pictures (n, c, h, w) mirrored, scaled and moved by (n, 4), 0 where they do not reach."""
    result = np.zeros_like(pictures)
    half = np.float32(0.5)
    for moved, picture, (dy, dx, scale, flip) in zip(result, pictures, places, strict=True):
        taps = []
        for extent, shift, mirrored in zip(picture.shape[1:], (dy, dx), (False, flip == 1), strict=True):
            last = np.float32(extent - 1)
            middle = last * half
            with np.errstate(over="ignore"):
                source = (np.arange(extent, dtype=np.float32) - middle - shift) / scale
            source = (-source if mirrored else source) + middle
            inside = np.flatnonzero((source >= -half) & (source <= last + half))
            source = source[inside].clip(np.float32(0), last)
            first = source.astype(np.int64)
            taps.append((inside, first, np.minimum(first + 1, extent - 1), source - first.astype(np.float32)))
        (rows, top, bottom, down), (columns, left, right, across) = taps
        down, across = down[:, None], across[None, :]
        between = np.where(
            down == 0, picture[:, top], picture[:, top] + down * (picture[:, bottom] - picture[:, top])
        )
        low, high = between[:, :, left], between[:, :, right]
        moved[:, rows[:, None], columns] = np.where(across == 0, low, low + across * (high - low))
    return result


def dtypes_of(case: dict[str, Any]) -> list[str]:
    """Of a case's masks, foregrounds and backgrounds; its input is one dtype or three."""
    given = case.get("input", "float32")
    return [given] * 3 if isinstance(given, str) else given


def drawn(rng: np.random.Generator, shape: tuple[int, ...], low: float, dtype: str) -> npt.NDArray[Any]:
    """Values from `low` to 1, or any bytes."""
    if dtype == "uint8":
        return rng.integers(0, 256, shape).astype(np.uint8)
    return rng.uniform(low, 1, shape).astype(dtype)


def floats_of(masks: npt.NDArray[Any], *pictures: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
    """Pools as the float32 values that they stand for."""
    level = np.float32(1 / 255)
    found = [masks.astype(np.float32) * (level if masks.dtype == np.uint8 else np.float32(1))]
    for pool in pictures:
        values = pool.astype(np.float32)
        found.append(values * (2 * level) - np.float32(1) if pool.dtype == np.uint8 else values)
    return found


def cast(x: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[Any]:
    """Float32 without NaNs to an output dtype; bfloat16 as bits."""
    if dtype == "uint8":
        return np.clip(np.rint(x), 0, 255).astype(np.uint8)
    if dtype == "bfloat16":
        bits = x.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return x.astype(dtype)
