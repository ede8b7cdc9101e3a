"""The cases of patch_grid that every variant faces, on the CPU and on devices, and the result in plain torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from module_ops import core

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "ops" / "patch_grid_cases.json").read_text()
)


class PatchGridCase:
    """The arrays of one case, and the result as torch computes it."""

    def __init__(self, case: dict[str, Any]) -> None:
        rng = np.random.default_rng([len(case["name"]), *case["name"].encode()])
        s, c, h, w = case["sources"]
        self.size: tuple[int, int] = tuple(case["size"])
        self.patch, self.grid, self.top = case.get("patch", 15), case.get("grid", 6), case.get("top", 100)
        self.masks = _mask(rng, case.get("mask", "random"), (s, 1, h, w))
        self.images = rng.uniform(-1, 1, (s, c, h, w)).astype(np.float32)
        n = case.get("n", s)
        self.picks = rng.integers(0, self.top, (n, self.grid**2)).astype(np.int32)
        self.picks.flat[-1] = self.top - 1
        self.over: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
        pools = [s]
        if "over" in case:
            m, b = case["over"]
            over_masks = rng.random((m, 1, *self.size), dtype=np.float32)
            self.over = (over_masks, rng.uniform(-1, 1, (b, c, *self.size)).astype(np.float32))
            pools = [m, s, b]
        self.index: npt.NDArray[np.int64] | None = None
        if "n" in case:
            self.index = np.stack([rng.integers(0, pool, n) for pool in pools], axis=1)
        self.form: dict[str, Any] = {
            "dtype": case.get("output", "float32"),
            "layout": case.get("layout", "NCHW"),
            "scale": case.get("scale"),
            "bias": case.get("bias"),
            "clamp": tuple(case["clamp"]) if "clamp" in case else None,
        }

    def run(self, **options: Any) -> npt.NDArray[Any]:
        settings = {
            "size": self.size,
            "patch": self.patch,
            "grid": self.grid,
            "top": self.top,
            "over": self.over,
        }
        result: npt.NDArray[Any] = core.patch_grid(
            self.masks, self.images, self.picks, self.index, **settings, **self.form | options
        )
        return result

    def torch(self, dtype: torch.dtype) -> torch.Tensor:
        """NCHW, before scale, bias and cast: the steps of the authors' code."""
        column = 1 if self.over is not None else 0
        sources = range(len(self.picks)) if self.index is None else self.index[:, column]
        grids = []
        for i, source in enumerate(sources):
            # In float64 the means of the masks' windows are exact as far as they decide here.
            means = F.avg_pool2d(torch.from_numpy(self.masks[source]).double(), self.patch, stride=1)
            order = means.flatten().sort(descending=True, stable=True).indices[self.picks[i]]
            windows = F.unfold(torch.from_numpy(self.images[source : source + 1]).to(dtype), self.patch)[
                0, :, order
            ]
            c = self.images.shape[1]
            tiles = windows.reshape(c, self.patch, self.patch, self.grid, self.grid)
            side = self.patch * self.grid
            grids.append(tiles.permute(0, 3, 1, 4, 2).reshape(c, side, side))
        x = F.interpolate(torch.stack(grids), size=self.size, mode="bicubic", align_corners=False)
        if self.over is not None:
            m, b = (torch.from_numpy(pool).to(dtype) for pool in self.over)
            if self.index is not None:
                m, b = m[self.index[:, 0]], b[self.index[:, 2]]
            x = m * x + (1 - m) * b
        return x if self.form["clamp"] is None else x.clamp(*self.form["clamp"])


def _mask(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    if kind == "ones":
        return np.ones(shape, np.float32)
    if kind == "zeros":
        return np.zeros(shape, np.float32)
    if kind == "plateau":  # as a clamped mask: most windows of the object are equal
        whole = np.full(shape, 1e-4, np.float32)
        whole[:, :, 5:40, 8:44] = 0.9999
        return whole
    if kind == "hair":  # differences of one step of the fixed point
        return (0.5 + rng.integers(0, 2, shape) * 2.0**-24).astype(np.float32)
    return rng.random(shape, dtype=np.float32)
