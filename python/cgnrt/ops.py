"""The compiled ops: the composer of Eq. 2, and the noise as a function of (seed, sample, slot).

Tensors come in by the buffer protocol or DLPack, without copies: NumPy arrays, torch tensors and others,
read-only ones too. They must be C-contiguous and on the CPU. What is made anew is a NumPy array on memory of its
own. The ops release the GIL and give the same bits on every instruction set and for every number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cgnrt import _core

__all__ = [
    "bfloat16_dlpack",
    "build_info",
    "compose",
    "integers",
    "normal",
    "philox",
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
    dtype: str = "float32",
    layout: str = "NCHW",
    scale: PerChannel | None = None,
    bias: PerChannel | None = None,
    clamp: tuple[float, float] | None = None,
    out: Any | None = None,
    threads: int = 0,
) -> Any:
    """Blend foregrounds over backgrounds through soft masks (Eq. 2), in the consumer's form, in one pass.

    Each value is ``m * f + (1 - m) * b`` in float32, each operation rounded, in that order; then clamped,
    then multiplied by the channel's scale, then its bias added, then cast.

    Args:
      masks: (M, 1, h, w) float32 or float16, by intent in [0, 1].
      foregrounds: (F, c, h, w), same dtype, any number of channels.
      backgrounds: (B, c, h, w), same dtype.
      index: (n, 3) int32 or int64 rows of (mask, foreground, background): the pools' entries that make each
        sample. None pairs them in order, and M, F and B must then be equal.
      rolls: (n, 2, 2) int32 or int64: (dy, dx) of the foreground, then of the background, any integers. The
        texture moves on the torus, as ``numpy.roll`` by (dy, dx) does (the MNIST CGN's texture shuffle, Sec. 3).
      dtype: "float32", "float16", "bfloat16" (rounded to nearest, ties to even) or "uint8" (likewise, within
        0..255; a NaN becomes 0).
      layout: "NCHW" or "NHWC".
      scale: A number or one for each channel; None multiplies by nothing.
      bias: A number or one for each channel; None adds nothing.
      clamp: (low, high) for the blend, before scale and bias.
      out: A writable tensor of the result's shape and dtype, apart from the inputs; uint16 does for bfloat16.
      threads: At most this many; 0 chooses by size, up to the CPUs this process may run on. While another
        thread's call has the pool of threads, a call runs on its own thread alone.

    Returns:
      `out` itself, or a new array (n, c, h, w) or (n, h, w, c); for "bfloat16" a uint16 array of the bits.
      n may be 0.

    Raises:
      ValueError: a shape, dtype, device, layout, index or other value is not as above; the message names it.
      TypeError: an argument is no tensor, number or string at all.
      MemoryError: there is no memory for the result.
    """
    return _core.compose(
        masks,
        foregrounds,
        backgrounds,
        index,
        rolls=rolls,
        dtype=dtype,
        layout=layout,
        scale=scale,
        bias=bias,
        clamp=clamp,
        out=out,
        threads=threads,
    )


def normal(seed: int, indices: Any, slot: int, size: int, *, out: Any | None = None) -> Any:
    """Draw standard normal noise, by the inverse CDF of Philox words.

    Args:
      seed: 0..2^64-1.
      indices: (n,) int64, the samples' numbers in the stream; negative ones count as their 64 bits.
      slot: 0..2^32-1, what the draw is for: draws of different slots are independent.
      size: Numbers for each sample.
      out: A writable (n, size) float32 tensor.

    Returns:
      `out`, or a new (n, size) float32 array, within +-6.34. Row i depends on (seed, indices[i], slot) alone,
      and its first numbers do not depend on `size`.

    Raises:
      ValueError: a value, shape or dtype is not as above; the message names which.
      TypeError: an argument is no tensor or no integer.
    """
    return _core.normal(seed, indices, slot, size, out=out)


def truncated_normal(seed: int, indices: Any, slot: int, size: int, *, out: Any | None = None) -> Any:
    """Draw normal noise truncated to [-2, 2] (BigGAN's), by the inverse CDF: no rejection.

    Arguments, result and errors are those of `normal`.
    """
    return _core.truncated_normal(seed, indices, slot, size, out=out)


def integers(
    seed: int,
    indices: Any,
    slot: int,
    bound: int | Sequence[int],
    size: int = 1,
    *,
    out: Any | None = None,
) -> Any:
    """Draw uniform integers in 0..bound-1: the high half of the product of a Philox word and the bound.

    Args:
      seed, indices, slot: As for `normal`.
      bound: 1..2^31, or one bound for each of the `size` numbers.
      size: Numbers for each sample.
      out: A writable (n, size) int32 tensor.

    Returns:
      `out`, or a new (n, size) int32 array.

    Raises:
      ValueError, TypeError: as for `normal`.
    """
    return _core.integers(seed, indices, slot, bound, size, out=out)


def philox(seed: int, indices: Any, slot: int, blocks: int) -> Any:
    """Draw the raw words of Philox 4x32-10: key (seed low, high), counter (index low, high, slot, block).

    Returns:
      (n, 4 * blocks) uint32.

    Raises:
      ValueError, TypeError: as for `normal`.
    """
    return _core.philox(seed, indices, slot, blocks)


def bfloat16_dlpack(bits: Any, *, max_version: tuple[int, int] | None = None) -> Any:
    """Lend a uint16 array of bfloat16 bits as a DLPack capsule of dtype bfloat16, without a copy.

    Args:
      bits: The C-contiguous uint16 array; the capsule keeps it alive.
      max_version: What the consumer passed to ``__dlpack__``: from (1, 0) on the capsule is a versioned one,
        which can also be read-only.

    Returns:
      The capsule, for ``__dlpack__`` of a wrapper or for ``torch.utils.dlpack.from_dlpack``.

    Raises:
      ValueError: `bits` is not a contiguous uint16 array, or is read-only and `max_version` is below (1, 0).
      TypeError: `bits` is no tensor.
    """
    return _core.bfloat16_dlpack(bits, max_version=max_version)


def build_info() -> dict[str, Any]:
    """Tell what the compiled part of this installation is and what it uses on this machine.

    Returns:
      "version"; "compiler"; "cpu": {"isa" in use, "isas" that would run, "features" of the CPU, vector and
      matrix extensions among them, "cpus" this process may use}; "cuda": None in a build without CUDA, else
      {"runtime", "devices" found now, "architectures", "kernels": the ops that have one}.
    """
    return _core.build_info()
