"""The ops as torch operations, for devices that this build has no kernels for.

`cgnrt.ops` calls these for torch tensors on AMD's, Apple's and Intel's GPUs, and on NVIDIA's where there is no
`cgnrt._cuda`. Arguments, results and errors are those of `cgnrt.ops`; a new result is a tensor on the device, of type
bfloat16 where that is asked for. Work is enqueued on torch's current stream; `stream` and `threads` are ignored.
Values are rounded step by step as the scalar references do it; sums of windows are exact. Noise is drawn by the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cgnrt import _core
from cgnrt.torch_moves import is_place, put, roll

_checks: Any = (
    _core  # called with pictures of the same form but no rows, the compiled ops only check arguments
)
_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "uint8": torch.uint8,
}
_FIXED_POINT = 1 << 24  # steps of a mask whose sums are exact


def compose(
    masks: Tensor,
    foregrounds: Tensor,
    backgrounds: Tensor,
    index: Tensor | None,
    rolls: Tensor | None,
    place: Tensor | None,
    dtype: str,
    layout: str,
    scale: Any,
    bias: Any,
    clamp: Any,
    out: Any,
    threads: Any = None,
    stream: Any = None,
) -> Tensor:
    """`cgnrt.ops.compose`."""
    pools = {"masks": masks, "foregrounds": foregrounds, "backgrounds": backgrounds}
    _require_here("compose", masks, {**pools, "index": index, "rolls": rolls, "place": place})
    n = len(masks) if index is None else len(index)
    none = {name: _host(pool, 0) for name, pool in pools.items()}
    _checks.compose(
        *none.values(),
        np.empty((0, 3), np.int32) if index is None else _host(index, 0),
        *(None if tensor is None else _host(tensor, 0) for tensor in (rolls, place)),
        *(dtype, layout, scale, bias, clamp, None, 1, None),
    )
    if index is None:
        for name, pool in pools.items():
            if len(pool) != n:
                raise ValueError(
                    f"compose {name}: length is {len(pool)}, expected {n} as masks, since index is None."
                )
    for name, tensor in (("rolls", rolls), ("place", place)):
        if tensor is not None and len(tensor) != n:
            raise ValueError(f"compose {name}: length is {len(tensor)}, expected {n}, one for each sample.")
    mask, foreground, background = pools.values()
    missing = None
    if index is not None:
        (mask, foreground, background), missing = _picked(list(pools.values()), index)
    mask, foreground, background = _floats(mask, 0), _floats(foreground, -1), _floats(background, -1)
    if rolls is not None:
        foreground, background = roll(foreground, rolls[:, 0]), roll(background, rolls[:, 1])
    if place is not None:
        mask, foreground = put(mask, place), put(foreground, place)
        mask = mask + _nan_unless(is_place(place))
    if missing is not None:
        mask = mask + missing
    return _finish("compose", _blend(mask, foreground, background), dtype, layout, scale, bias, clamp, out)


def patch_grid(
    masks: Tensor,
    images: Tensor,
    picks: Tensor,
    index: Tensor | None,
    size: Any,
    patch: int,
    grid: int,
    top: int,
    over: Any,
    dtype: str,
    layout: str,
    scale: Any,
    bias: Any,
    clamp: Any,
    out: Any,
    threads: Any = None,
    stream: Any = None,
) -> Tensor:
    """`cgnrt.ops.patch_grid`; a mask's values outside [0, 1] are clamped."""
    given = {"masks": masks, "images": images, "picks": picks, "index": index}
    if over is not None:
        given |= {"over's masks": over[0], "over's backgrounds": over[1]}
    _require_here("patch_grid", masks, given)
    width = 1 if over is None else 3
    _checks.patch_grid(
        *(_host(masks, 1), _host(images, 1), _host(picks, 0)),
        np.empty((0, width), np.int32) if index is None else _host(index, 0),
        *(size, patch, grid, top, None if over is None else tuple(_host(part, 0) for part in over)),
        *(dtype, layout, scale, bias, clamp, None, 1, None),
    )
    n = len(picks)
    if index is None:
        alike = {"masks": masks, "images": images}
        alike |= {} if over is None else {"over's masks": over[0], "over's backgrounds": over[1]}
        for name, tensor in alike.items():
            if len(tensor) != n:
                raise ValueError(
                    f"patch_grid {name}: length is {len(tensor)}, expected {n} as in picks, since index is None."
                )
    elif len(index) != n or len(images) != len(masks):
        raise ValueError(
            f"patch_grid index: length is {len(index)}, expected {n}, one row for each of picks; of images there are "
            f"{len(images)}, expected {len(masks)}, as many as masks."
        )
    places = _best_windows(masks, patch, top)
    source = torch.arange(n, device=masks.device) if index is None else index[:, 0 if over is None else 1]
    (chosen, pictures), missing = _picked([places, images], torch.stack([source, source], 1))
    there = ((picks >= 0) & (picks < top)).all(1)
    missing = missing + _nan_unless(there)
    places = chosen.gather(1, picks.long().clamp(0, top - 1))
    pixels = _scaled(_mosaic(pictures, places, patch, grid), size) + missing
    if over is not None:
        ends = list(over)
        if index is not None:
            ends, missing = _picked(ends, index[:, [0, 2]])
            pixels = pixels + missing
        pixels = _blend(ends[0], pixels, ends[1])
    return _finish("patch_grid", pixels, dtype, layout, scale, bias, clamp, out)


def resize(
    images: Tensor,
    size: Any,
    dtype: str,
    layout: str,
    scale: Any,
    bias: Any,
    clamp: Any,
    out: Any,
    threads: Any = None,
    stream: Any = None,
) -> Tensor:
    """`cgnrt.ops.resize`."""
    _require_here("resize", images, {"images": images})
    _checks.resize(_host(images, 0), size, dtype, layout, scale, bias, clamp, None, 1, None)
    return _finish("resize", _scaled(images, size), dtype, layout, scale, bias, clamp, out)


def normal(seed: int, indices: Tensor, slot: int, size: int, out: Any = None, stream: Any = None) -> Tensor:
    """`cgnrt.ops.normal`, drawn by the CPU, which has the right bits, and sent to where the indices are."""
    return _sent("normal", _core.normal(seed, _here(indices), slot, size, None, None), indices, out)


def truncated_normal(
    seed: int, indices: Tensor, slot: int, size: int, out: Any = None, stream: Any = None
) -> Tensor:
    """`cgnrt.ops.truncated_normal`, as `normal`."""
    drawn = _core.truncated_normal(seed, _here(indices), slot, size, None, None)
    return _sent("truncated_normal", drawn, indices, out)


def integers(
    seed: int, indices: Tensor, slot: int, bound: Any, size: int, out: Any = None, stream: Any = None
) -> Tensor:
    """`cgnrt.ops.integers`, as `normal`."""
    return _sent(
        "integers", _core.integers(seed, _here(indices), slot, bound, size, None, None), indices, out
    )


def philox(seed: int, indices: Tensor, slot: int, blocks: int, stream: Any = None) -> Tensor:
    """`cgnrt.ops.philox`, as `normal`."""
    return _sent("philox", _core.philox(seed, _here(indices), slot, blocks, None), indices, None)


def _here(indices: Tensor) -> np.ndarray:
    found: np.ndarray = indices.cpu().numpy()
    return found


def _sent(op: str, drawn: np.ndarray, indices: Tensor, out: Any) -> Tensor:
    found = torch.from_numpy(drawn).to(indices.device)
    return found if out is None else _deliver(op, found, out)


def _floats(pool: Tensor, low: float) -> Tensor:
    """A pool as float32; bytes 0..255 stand for `low`..1."""
    if pool.dtype != torch.uint8:
        return pool.float()
    values = pool.float().mul_(float(np.float32((1 - low) / 255)))
    return values.add_(low) if low else values


def _blend(mask: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """Eq. 2: two products and a sum, each rounded."""
    return torch.mul(mask, foreground).add_((1 - mask).mul(background))


def _picked(pools: Sequence[Tensor], index: Tensor) -> tuple[list[Tensor], Tensor]:
    """Rows of each pool, and (n, 1, 1, 1) that is NaN where a row does not exist, else 0.

    Raising an error would mean waiting for the device.
    """
    found, there = [], torch.ones(len(index), dtype=torch.bool, device=index.device)
    for pool, rows in zip(pools, index.long().unbind(1), strict=True):
        there &= (rows >= 0) & (rows < len(pool))
        # An empty pool has no row to pick; zeros are picked, and the sum with NaN hides them.
        whole = pool if len(pool) else pool.new_zeros((1, *pool.shape[1:]))
        found.append(whole.index_select(0, rows.clamp(0, len(whole) - 1)))
    return found, _nan_unless(there)


def _nan_unless(there: Tensor) -> Tensor:
    zero = torch.zeros((), dtype=torch.float32, device=there.device)
    return torch.where(there, zero, torch.nan).reshape(-1, 1, 1, 1)


def _best_windows(masks: Tensor, patch: int, top: int) -> Tensor:
    """Places of the windows with the highest sums, (S, top), of equal ones the first: corners y * w + x."""
    count, _, height, width = masks.shape
    fixed = (torch.nan_to_num(masks, nan=0.0).clamp(0, 1) * _FIXED_POINT).to(torch.int64)
    sums = F.pad(fixed.reshape(count, height, width).cumsum(1).cumsum(2), (1, 0, 1, 0))
    whole = (
        sums[:, patch:, patch:]
        - sums[:, :-patch, patch:]
        - sums[:, patch:, :-patch]
        + sums[:, :-patch, :-patch]
    )
    order = whole.reshape(count, -1).sort(dim=1, descending=True, stable=True).indices[:, :top]
    across = width - patch + 1
    return order // across * width + order % across


def _mosaic(pictures: Tensor, places: Tensor, patch: int, grid: int) -> Tensor:
    """Windows of each picture, side by side: (n, c, grid * patch, grid * patch)."""
    n, channels, _, width = pictures.shape
    within = torch.arange(patch, device=pictures.device)
    offsets = within[:, None] * width + within
    tiles = places.reshape(n, grid, 1, grid, 1) + offsets.reshape(1, 1, patch, 1, patch)
    flat = pictures.reshape(n, channels, -1)
    side = grid * patch
    chosen = tiles.reshape(n, 1, side * side).expand(-1, channels, -1)
    return flat.gather(2, chosen).reshape(n, channels, side, side)


def _scaled(pictures: Tensor, size: Any) -> Tensor:
    """Bicubic, as csrc/ops/bicubic.h has it: along rows, then along columns, each product and sum rounded."""
    height, width = (size, size) if isinstance(size, int) else size
    for axis, length in ((3, width), (2, height)):
        places, weights = _taps(pictures.shape[axis], int(length))
        shape = (1, 1, 1, -1) if axis == 3 else (1, 1, -1, 1)
        found: Tensor | None = None
        for place, weight in zip(places, weights, strict=True):
            there = torch.from_numpy(place).to(pictures.device)
            factors = torch.from_numpy(weight).to(pictures.device).reshape(shape)
            product = pictures.index_select(axis, there).mul_(factors)
            found = product if found is None else found.add_(product)
        if found is not None:
            pictures = found
    return pictures


def _taps(source: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of four taps: places in the source, and weights, (4, length) each."""
    place = source / length * (np.arange(length) + 0.5) - 0.5
    first = np.clip(np.floor(place), -1, source - 1)
    t = np.clip(place - first, 0, 1).astype(np.float32)
    a = np.float32(-0.75)

    def near(x: np.ndarray) -> np.ndarray:
        weight: np.ndarray = ((a + 2) * x - (a + 3)) * x * x + 1
        return weight

    def far(x: np.ndarray) -> np.ndarray:
        weight: np.ndarray = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return weight

    places = np.clip(first.astype(np.int64) - 1 + np.arange(4)[:, None], 0, source - 1)
    return places, np.stack([far(t + 1), near(t), near(1 - t), far(2 - t)]).astype(np.float32)


def _finish(
    op: str, pixels: Tensor, dtype: str, layout: str, scale: Any, bias: Any, clamp: Any, out: Any
) -> Tensor:
    """Clamp, scale, shift, cast and lay out."""
    if clamp is not None:
        pixels = pixels.clamp(*clamp)
    for function, values in ((torch.mul, scale), (torch.add, bias)):
        if values is not None:
            each = torch.tensor(values, dtype=torch.float32, device=pixels.device)
            pixels = function(pixels, each.reshape(1, -1, 1, 1) if each.dim() else each)
    if dtype == "uint8":
        pixels = torch.nan_to_num(pixels.round().clamp(0, 255), nan=0.0)
    found = pixels.to(_DTYPES[dtype])
    if layout == "NHWC":
        found = found.permute(0, 2, 3, 1)
    return found.contiguous() if out is None else _deliver(op, found, out)


def _deliver(op: str, found: Tensor, out: Any) -> Tensor:
    """Copy a result into the caller's memory, once that is checked."""
    if not isinstance(out, Tensor):
        raise TypeError(f"{op} out: type is {type(out).__name__}, expected a tensor on {found.device}.")
    target = out
    if found.dtype == torch.bfloat16 and out.dtype in (torch.uint16, torch.int16):
        target = out.view(torch.bfloat16)
    if target.device != found.device:
        raise ValueError(f"{op} out: device is {out.device}, expected {found.device}, as the other tensors.")
    for name in ("dtype", "shape"):
        if getattr(target, name) != getattr(found, name):
            raise ValueError(
                f"{op} out: {name} is {_show(getattr(out, name))}, expected {_show(getattr(found, name))}."
            )
    if not target.is_contiguous():
        raise ValueError(f"{op} out: strides are {tuple(out.stride())}, expected C-contiguous.")
    target.copy_(found)
    return out


def _require_here(op: str, first: Tensor, tensors: dict[str, Any]) -> None:
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{op} {name}: type is {type(tensor).__name__}, expected a torch tensor.")
        if tensor.device != first.device:
            raise ValueError(f"{op} {name}: device is {tensor.device}, expected {first.device}.")
        if tensor.dtype not in _NUMPY:
            found, known = _show(tensor.dtype), ", ".join(_NUMPY.values())
            raise ValueError(f"{op} {name}: dtype is {found}, expected one of {known}.")


def _host(tensor: Tensor, count: int) -> np.ndarray:
    """Zeros on the host with a tensor's shape and type, but `count` rows: what the compiled ops check."""
    shape = (count, *tensor.shape[1:]) if tensor.dim() else ()
    return np.zeros(shape, _NUMPY[tensor.dtype])


_NUMPY = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.float64: "float64",
    torch.int32: "int32",
    torch.int64: "int64",
    torch.uint8: "uint8",
}


def _show(value: Any) -> str:
    return str(tuple(value)) if isinstance(value, torch.Size) else str(value).removeprefix("torch.")
