"""The target of the texture loss (App. C.2): windows of the picture where the mask is highest, as a grid.

It is `cgnrt.ops.patch_grid`, which chooses windows by exact sums; this only fits tensors and object sizes to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from cgnrt import ops
from cgnrt.cuda import refusal
from cgnrt.sampling import patch_picks

from .config import PatchConfig


@torch.no_grad()
def patch_grid(
    masks: Tensor, pictures: Tensor, config: PatchConfig, seed: int, indices: np.ndarray
) -> Tensor:
    """Make a patch grid of each picture.

    Args:
      masks: (n, 1, h, w) in [0, 1].
      pictures: (n, c, h, w).
      seed, indices: which windows are picked is a function of the seed and of each sample's index (n,) int64.
    Returns:
      (n, c, h, w), of the pictures' dtype and device; no gradient leads to masks or pictures.
    """
    size = (pictures.shape[2], pictures.shape[3])
    # Bicubic scaling overshoots. A NaN is for the losses to report.
    small_masks = _scaled(masks, config.resolution).clamp(0, 1).nan_to_num(0.0)
    small_pictures = _scaled(pictures, config.resolution)
    sides = patch_sides(masks, config)
    grids = torch.empty_like(pictures, memory_format=torch.contiguous_format)
    for side in np.unique(sides).tolist():
        chosen = np.flatnonzero(sides == side)
        # About as many pixels of the source as the full patches cover, so that the grid is scaled up as much.
        cells = min(64, round(config.grid * config.patch / side))
        top = min(config.top, (config.resolution - side + 1) ** 2)
        picks = patch_picks(seed, indices[chosen], top=top, grid=cells)
        rows = torch.from_numpy(chosen).to(pictures.device)
        found = _call(
            ops.patch_grid,
            small_masks[rows],
            small_pictures[rows],
            _like(picks, small_masks),
            size=size,
            patch=side,
            grid=cells,
            top=top,
        )
        grids[rows] = found.to(grids.dtype)
    return grids


def patch_sides(masks: Tensor, config: PatchConfig) -> np.ndarray:
    """The side of each sample's patches in pixels of the scaled picture, int64 (n,): App. F where `by_object`.

    A patch is to the full one as the side of the object's area is to that of `object_share`.
    """
    if not config.by_object:
        return np.full(len(masks), config.patch, np.int64)
    shares = masks.detach().flatten(1).mean(1).double().cpu().numpy()
    sides = np.round(config.patch * np.sqrt(shares / config.object_share))
    return np.clip(sides, config.smallest, config.patch).astype(np.int64)


def _scaled(pictures: Tensor, side: int) -> Tensor:
    pictures = pictures.detach().float()
    if pictures.shape[2:] == (side, side):
        return pictures.contiguous()
    return _call(ops.resize, pictures.contiguous(), side)


def _call(op: Any, *tensors: Any, **options: Any) -> Tensor:
    """An op on tensors: on their GPU in torch's stream, else on the CPU."""
    device = tensors[0].device
    if device.type == "cuda" and refusal(device.index or 0) is None:
        stream = torch.cuda.current_stream(device).cuda_stream
        return from_dlpack(op(*tensors, **options, stream=stream))
    host = [t.cpu().numpy() if isinstance(t, Tensor) else t for t in tensors]
    return torch.from_numpy(op(*host, **options)).to(device)


def _like(picks: np.ndarray, tensor: Tensor) -> Tensor:
    return torch.from_numpy(picks).to(tensor.device)
