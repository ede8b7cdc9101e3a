"""The compiled ops: the composer of Eq. 2, patch grids (App. C.2), and noise as a function of (seed, sample, slot).

Tensors come in by the buffer protocol, DLPack or the CUDA array interface, without copies: NumPy, torch, CuPy and JAX
arrays and others, read-only ones too. They must be C-contiguous and all on one device, the CPU or a CUDA device. A new
result is a NumPy array, or a `cgnrt.cuda.DeviceArray`, with memory of its own. The ops release the GIL and give the
same bits on every instruction set, for every number of threads and on a GPU (except the payload of NaNs).

On a GPU that this build has no kernels for, the ops take torch tensors and return such (`torch_ops`).

On a CUDA device an op enqueues its work on `stream` and returns without waiting. `stream` is a `cgnrt.cuda.Stream` or
another library's handle as an int (`torch.cuda.current_stream().cuda_stream`); None is the stream of the first tensor
if that is a DeviceArray, else the legacy default stream, which is torch's and CuPy's own default. Pass the stream that
your tensors' library uses: the library may give their memory to others as soon as you delete them. To check the values
of index, rolls, place or picks an op would have to wait, so there it does not: a sample with an entry that does not
exist, or with numbers that are not a place, is NaN (0 in uint8). A GPU takes at most 16 channels, 64 bounds, and
2^30 pixels of a picture that is scaled.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from cgnrt import _core, cuda

__all__ = [
    "bfloat16_dlpack",
    "build_info",
    "compose",
    "integers",
    "normal",
    "patch_grid",
    "philox",
    "resize",
    "truncated_normal",
]

PerChannel = float | Sequence[float]


def compose(
    masks: Any,
    foregrounds: Any,
    backgrounds: Any,
    index: Any | None = None,
    *,
    rolls: Any | None = None,
    place: Any | None = None,
    dtype: str = "float32",
    layout: str = "NCHW",
    scale: PerChannel | None = None,
    bias: PerChannel | None = None,
    clamp: tuple[float, float] | None = None,
    out: Any | None = None,
    threads: int = 0,
    stream: Any | None = None,
) -> Any:
    """Blend foregrounds over backgrounds through soft masks (Eq. 2), in the consumer's form, in one pass.

    Each value is ``m * f + (1 - m) * b`` in float32, each operation rounded, in that order; then clamped,
    then multiplied by the channel's scale, then its bias added, then cast.

    Each pool has a dtype of its own. A uint8 mask u is ``u * (1 / 255)``, in [0, 1], and a uint8 picture
    ``u * (2 / 255) - 1``, in [-1, 1], in float32, each constant and operation rounded. So scale and bias of 127.5 give
    bytes of bytes: with three uint8 pools and dtype "uint8" exactly ``(m * f + (255 - m) * b) / 255`` of the bytes,
    rounded to the nearest integer, at the speed of integers.

    Args:
      masks: (M, 1, h, w) float32 or float16, by intent in [0, 1], or uint8.
      foregrounds: (F, c, h, w) float32, float16 or uint8, any number of channels; on a GPU at most 16.
      backgrounds: (B, c, h, w) float32, float16 or uint8.
      index: (n, 3) int32 or int64 rows of (mask, foreground, background): the entries of the pools that make each
        sample. None pairs them in order, and M, F and B must then be equal.
      rolls: (n, 2, 2) int32 or int64: (dy, dx) of the foreground, then of the background, any integers. The
        texture moves on the torus, as ``numpy.roll`` by (dy, dx) does (the MNIST CGN's texture shuffle, Sec. 3).
      place: (n, 4) float32 rows of (dy, dx, scale, flip): where the object of each sample is put. Mask and foreground,
        after its roll, are mirrored left to right where flip is 1 (else 0), scaled about the middle of the picture
        (bilinear; scale is above 0, and below 0.5 skips pixels), and moved by dy pixels down and dx to the right,
        whole or not. The background stays. The mask is 0 where the moved picture does not reach: what leaves the
        picture is cut off, and an object that is outside leaves the background alone. With scale 1 and whole pixels
        every value is one of the mask's and the foreground's, bit by bit: `numpy.roll` without the wrap. None leaves
        objects where they are. At most 2^22 rows and columns.
      dtype: "float32", "float16", "bfloat16" (rounded to nearest, ties to even) or "uint8" (likewise, within
        0..255; a NaN becomes 0).
      layout: "NCHW" or "NHWC".
      scale: A number or one for each channel; None: no multiplication.
      bias: A number or one for each channel; None: no addition.
      clamp: (low, high) for the blend, before scale and bias.
      out: A writable tensor of the result's shape and dtype, apart from the inputs; uint16 does for bfloat16.
      threads: At most this many; 0 chooses by size, up to the CPUs this process may run on. While another
        thread's call uses the pool of threads, a call runs on its own thread only. Ignored on a GPU.
      stream: On a CUDA device, as the module's text says; None otherwise.

    Returns:
      `out` itself, or a new array (n, c, h, w) or (n, h, w, c); for "bfloat16" a uint16 array of the bits.
      n may be 0.

    Raises:
      ValueError: a shape, dtype, device, layout, index or other value is not as above; the message names it.
      TypeError: an argument is not a tensor, a number or a string.
      MemoryError: the memory for the result is not available.
      BackendError: a tensor is on a CUDA device, and cgnrt cannot use it here.
    """
    return _module(masks).compose(
        masks,
        foregrounds,
        backgrounds,
        index,
        rolls,
        place,
        dtype,
        layout,
        scale,
        bias,
        clamp,
        out,
        threads,
        stream,
    )


def patch_grid(
    masks: Any,
    images: Any,
    picks: Any,
    index: Any | None = None,
    *,
    size: int | tuple[int, int] = 256,
    patch: int = 15,
    grid: int = 6,
    top: int = 100,
    over: tuple[Any, Any] | None = None,
    dtype: str = "float32",
    layout: str = "NCHW",
    scale: PerChannel | None = None,
    bias: PerChannel | None = None,
    clamp: tuple[float, float] | None = None,
    out: Any | None = None,
    threads: int = 0,
    stream: Any | None = None,
) -> Any:
    """Make textures of objects' own pixels (App. C.2): windows where the mask is highest, as a grid, scaled up.

    Of each source the `top` windows of `patch` x `patch` pixels with the highest mean mask are ranked; of equal
    ones the first in row-major order of their corners comes first. Means are exact for masks in steps of 2^-24: finer
    differences do not count. Picked windows are laid out row by row, and the grid is scaled bicubically as torch's
    ``interpolate(mode="bicubic", align_corners=False)`` does (a = -0.75; it may overshoot the range of the pixels).

    With `over` the grid is the foreground of Eq. 2 and is not stored: the result is
    ``mask * grid + (1 - mask) * background``, rounded as in `compose`. Clamp, scale, bias and cast follow as there.

    Args:
      masks: (S, 1, h, w) float32 in [0, 1], where the objects are; 128 x 128 in the authors' code.
      images: (S, c, h, w) float32, the pixels, any number of channels. NaNs pass through.
      picks: (n, grid * grid) int32 or int64 in 0..top-1: which of the ranked windows, row by row
        (`cgnrt.sampling.patch_picks` draws them).
      index: int32 or int64 rows of (source,) as (n, 1), or with `over` of (mask, source, background) as (n, 3): the
        entries that make each result. None takes them in order; all lengths must then be n.
      size: Side of the result in pixels, or (height, width); 1..65536.
      patch: Side of a window, 1..255, within a mask.
      grid: Windows along a side, 1..64.
      top: How many windows are ranked, at most as many as there are.
      over: (masks (M, 1, height, width), backgrounds (B, c, height, width)), float32, of the result's size.
      dtype, layout, scale, bias, clamp, out, threads, stream: As for `compose`.

    Returns:
      `out` itself, or a new array (n, c, height, width) or (n, height, width, c). n may be 0.

    Raises:
      ValueError, TypeError, MemoryError: as for `compose`; on the CPU also for a mask of a source that is used
        with a value outside [0, 1], NaN among them (a GPU clamps them, NaN to 0).
    """
    return _module(masks).patch_grid(
        masks,
        images,
        picks,
        index,
        size,
        patch,
        grid,
        top,
        over,
        dtype,
        layout,
        scale,
        bias,
        clamp,
        out,
        threads,
        stream,
    )


def resize(
    images: Any,
    size: int | tuple[int, int],
    *,
    dtype: str = "float32",
    layout: str = "NCHW",
    scale: PerChannel | None = None,
    bias: PerChannel | None = None,
    clamp: tuple[float, float] | None = None,
    out: Any | None = None,
    threads: int = 0,
    stream: Any | None = None,
) -> Any:
    """Scale pictures bicubically, as `patch_grid` scales its grids: no filter against aliasing where it shrinks.

    Args:
      images: (n, c, h, w) float32, any number of channels. NaNs pass through.
      size: Side of the result in pixels, or (height, width); 1..65536.
      dtype, layout, scale, bias, clamp, out, threads, stream: As for `compose`.

    Returns:
      `out` itself, or a new array (n, c, height, width) or (n, height, width, c).

    Raises:
      ValueError, TypeError, MemoryError: as for `compose`.
    """
    return _module(images).resize(images, size, dtype, layout, scale, bias, clamp, out, threads, stream)


def normal(
    seed: int, indices: Any, slot: int, size: int, *, out: Any | None = None, stream: Any | None = None
) -> Any:
    """Draw standard normal noise, by the inverse CDF of Philox words.

    Args:
      seed: 0..2^64-1.
      indices: (n,) int64, the samples' numbers in the stream; negative ones count as their 64 bits.
      slot: 0..2^32-1, the purpose of the draw: draws of different slots are independent.
      size: Numbers for each sample.
      out: A writable (n, size) float32 tensor.
      stream: As for `compose`.

    Returns:
      `out`, or a new (n, size) float32 array, within +-6.34. Row i depends on (seed, indices[i], slot) only,
      and its first numbers do not depend on `size`.

    Raises:
      ValueError: a value, shape or dtype is not as above; the message names which.
      TypeError: an argument is not a tensor, or not an integer.
    """
    return _module(indices).normal(seed, indices, slot, size, out, stream)


def truncated_normal(
    seed: int, indices: Any, slot: int, size: int, *, out: Any | None = None, stream: Any | None = None
) -> Any:
    """Draw normal noise truncated to [-2, 2] (BigGAN's), by the inverse CDF: no rejection.

    Arguments, result and errors are those of `normal`.
    """
    return _module(indices).truncated_normal(seed, indices, slot, size, out, stream)


def integers(
    seed: int,
    indices: Any,
    slot: int,
    bound: int | Sequence[int],
    size: int = 1,
    *,
    out: Any | None = None,
    stream: Any | None = None,
) -> Any:
    """Draw uniform integers in 0..bound-1: the high half of the product of a Philox word and the bound.

    Args:
      seed, indices, slot: As for `normal`.
      bound: 1..2^31, or one bound for each of the `size` numbers; on a GPU at most 64 of them.
      size: Numbers for each sample.
      out: A writable (n, size) int32 tensor.
      stream: As for `compose`.

    Returns:
      `out`, or a new (n, size) int32 array.

    Raises:
      ValueError, TypeError: as for `normal`.
    """
    return _module(indices).integers(seed, indices, slot, bound, size, out, stream)


def philox(seed: int, indices: Any, slot: int, blocks: int, *, stream: Any | None = None) -> Any:
    """Draw the raw words of Philox 4x32-10: key (seed low, high), counter (index low, high, slot, block).

    Returns:
      (n, 4 * blocks) uint32.

    Raises:
      ValueError, TypeError: as for `normal`.
    """
    return _module(indices).philox(seed, indices, slot, blocks, stream)


def bfloat16_dlpack(bits: Any, *, max_version: tuple[int, int] | None = None) -> Any:
    """Lend a uint16 array of bfloat16 bits as a DLPack capsule of dtype bfloat16, without a copy.

    Args:
      bits: The C-contiguous uint16 array; the capsule keeps it alive.
      max_version: What the consumer passed to ``__dlpack__``: from (1, 0) on the capsule is a versioned one, which
        can also be read-only.

    Returns:
      The capsule, for ``__dlpack__`` of a wrapper or for ``torch.utils.dlpack.from_dlpack``.

    Raises:
      ValueError: `bits` is not a contiguous uint16 array, or is read-only and `max_version` is below (1, 0).
      TypeError: `bits` is not a tensor.
    """
    return _core.bfloat16_dlpack(bits, max_version=max_version)


def build_info() -> dict[str, Any]:
    """Describe the compiled part of this installation and what it uses on this machine.

    Returns:
      "version"; "compiler"; "cpu": {"isa" in use, "isas" that would run, "features" of the CPU, vector and
      matrix extensions among them, "cpus" this process may use}; "cuda": None in a build without CUDA, else
      the result of `cgnrt.cuda.info`.
    """
    return {**_core.build_info(), "cuda": cuda.info()}


def _module(tensor: Any) -> ModuleType:
    """The module for a tensor's device. All have the ops of this module, with the same parameters.

    Arguments are passed by position: for pybind11 each keyword costs as much as the rest of a small call.
    """
    if isinstance(tensor, np.ndarray):
        return _core
    torch: Any = sys.modules.get("torch")  # whoever has one of its tensors has imported it
    if torch is not None and isinstance(tensor, torch.Tensor) and tensor.device.type != "cpu":
        ours = tensor.device.type == "cuda" and torch.version.hip is None
        if not ours or cuda.refusal(tensor.device.index) is not None:
            from cgnrt import torch_ops

            return torch_ops
    return cuda.module() if cuda.is_cuda(tensor) else _core
