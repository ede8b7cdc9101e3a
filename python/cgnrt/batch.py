"""What a Generator hands out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np

from cgnrt import _core
from cgnrt.plan import PICTURES, PRE_MASK
from cgnrt.request.resolver import Request
from cgnrt.sampling import Labels, Noise

# The fields that are pictures of parts: those that are composed, then what only some plans have.
PICTURE_NAMES = (*PICTURES.values(), PRE_MASK)
# Those with a row for each sample, besides labels.
_COLUMNS = ("indices", "index", "place")


class BFloat16Array:
    """bfloat16 values, which NumPy has no type for. They leave by DLPack: `torch.from_dlpack(batch.images)`.

    `bits` is the uint16 array of the same shape that holds them.
    """

    dtype = "bfloat16"

    def __init__(self, bits: np.ndarray) -> None:
        self.bits = bits

    @property
    def shape(self) -> tuple[int, ...]:
        return self.bits.shape

    @property
    def nbytes(self) -> int:
        return self.bits.nbytes

    def __len__(self) -> int:
        return len(self.bits)

    def __getitem__(self, key: Any) -> BFloat16Array:
        return BFloat16Array(self.bits[key])

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # kDLCPU

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None, **options: object) -> object:
        return _core.bfloat16_dlpack(self.bits, max_version=max_version)

    def __array__(self, *args: object, **options: object) -> NoReturn:
        raise TypeError(
            "convert images: dtype is bfloat16, expected one that NumPy has. "
            "Use batch.torch(), torch.from_dlpack(batch.images), or Generator(dtype='float32')."
        )

    def __repr__(self) -> str:
        return f"BFloat16Array(shape={self.shape})"


@dataclass(frozen=True, eq=False)
class DeviceColumns(ABC):
    """The columns of a batch on its device, where that is not the CPU, and how the batch leaves it.

    Attributes:
      labels: int64 (n,) each.  indices: int64 (n,).  index: (n, 3), or None without a pool.
      place: float32 (n, 4), or None.
    """

    labels: tuple[Any, Any, Any]
    indices: Any
    index: Any
    place: Any

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the batch is made."""

    @abstractmethod
    def fetch(self, array: Any) -> np.ndarray:
        """A copy of an array of the batch on the host, once it is made.

        Raises:
          TypeError: it is bfloat16, or memory of another library.
        """

    @abstractmethod
    def order_before(self, out: Any) -> None:
        """Make torch's current stream wait for images that were written to `out`, a tensor of the caller's."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Counterfactual images with their labels and everything needed to make them again.

    Attributes:
      images: (n, 3, h, w), or (n, h, w, 3) for the NHWC layout, in the generator's dtype and range.
      labels: `Labels(shape, texture, background)`, int64 (n,) each.
      seed: the stream that they are drawn from.
      indices: (n,) int64, their numbers in it.
      index: (n, 3) int32 rows of the mask, foreground and background pools, or in a renewing pool int64 stream
        numbers of the entries; None without a pool.
      place: (n, 4) float32 rows of (dy, dx, scale, flip), where each object was put: pixels down and to the right,
        size, and 1 where it is mirrored. None where no place was asked for.
      mask: (n, 1, h, w) float32 in [0, 1]; None unless asked for with `parts=True`, as are the next three.
      foreground: (n, 3, h, w) float32 in the plan's range, after the roll; as the mask where it was put, and 0 where it
        does not reach.
      background: likewise.
      pre_mask: (n, c, h, w) float32, the shape mechanism's picture before its saliency head (Fig. 2); None where
        the plan has none.

    From a generator on a GPU the pictures are `cgnrt.cuda.DeviceArray`s there: they leave by DLPack or `torch()`
    without a copy, and `numpy()` copies them to the host. Labels, indices and noise are known to the host as well.
    """

    images: Any
    labels: Labels
    seed: int
    indices: np.ndarray
    index: np.ndarray | None = None
    place: Any = None
    mask: Any = None
    foreground: Any = None
    background: Any = None
    pre_mask: Any = None
    draw_noise: Callable[[], Noise] | None = field(default=None, repr=False)
    on_device: DeviceColumns | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        dtype = str(getattr(self.images, "dtype", "of another library")).removeprefix("torch.")
        device = str(getattr(self.images, "device", "cpu"))
        where = "" if device == "cpu" else f" on {device}"
        kept = [name for name in PICTURE_NAMES if getattr(self, name) is not None]
        parts = f", parts={'+'.join(kept)}" if kept else ""
        placed = "" if self.place is None else ", placed"
        return f"Batch(images={tuple(self.images.shape)} {dtype}{where}, seed={self.seed}{placed}{parts})"

    @property
    def noise(self) -> Noise:
        """The noise of every sample; given back as `noise=` with one label changed it is the counterfactual.

        Drawn again on demand for pools and streams, so that a batch does not carry what few ask for.
        """
        if self.draw_noise is None:
            raise ValueError("noise: this batch was made without any, expected one from a Generator.")
        return self.draw_noise()

    def numpy(self) -> Batch:
        """The same batch with NumPy arrays: pictures on a GPU are waited for and copied; on the CPU it is itself.

        Raises:
          TypeError: the pictures are bfloat16, or written to an `out` of another library.
        """
        if self.on_device is None:
            return self

        pictures = {name: getattr(self, name) for name in ("images", *PICTURE_NAMES)}
        fetch = self.on_device.fetch
        found: dict[str, Any] = {n: None if array is None else fetch(array) for n, array in pictures.items()}
        return replace(self, on_device=None, **found)

    def cut(self, part: slice, request: Request) -> Batch:
        """Some of a batch on the host, as the batch of `request`, whose samples they are; pictures are views."""
        pictures = {name: getattr(self, name) for name in ("images", *PICTURE_NAMES)}
        return Batch(
            labels=request.labels,
            seed=request.options.seed,
            indices=request.indices,
            draw_noise=request.noise,
            place=request.place,
            **{name: None if picture is None else picture[part] for name, picture in pictures.items()},
        )

    def rows(self, part: slice, draw_noise: Callable[[], Noise]) -> Batch:
        """Some of a batch on the host, whose noise is drawn as given; all arrays are views."""

        def cut(array: Any) -> Any:
            return None if array is None else array[part]

        return Batch(
            images=self.images[part],
            labels=Labels(*map(cut, self.labels)),
            seed=self.seed,
            indices=self.indices[part],
            index=cut(self.index),
            place=cut(self.place),
            mask=cut(self.mask),
            foreground=cut(self.foreground),
            background=cut(self.background),
            pre_mask=cut(self.pre_mask),
            draw_noise=draw_noise,
        )

    def to(self, device: Any, *, non_blocking: bool = False) -> Batch:
        """The same batch with torch tensors on a device of torch: all of them, labels and indices too.

        Args:
          device: "cuda:0", `torch.device("mps")` and so on. A tensor on this device is not copied.
          non_blocking: as for `Tensor.to`.
        Raises:
          MissingDependencyError: torch is not installed.
        """
        batch = self.torch()

        def move(tensor: Any) -> Any:
            return None if tensor is None else tensor.to(device, non_blocking=non_blocking)

        moved = {name: move(getattr(batch, name)) for name in ("images", *PICTURE_NAMES, *_COLUMNS)}
        return replace(batch, labels=Labels(*map(move, batch.labels)), **moved)

    def torch(self) -> Batch:
        """The same batch with torch tensors that share its memory.

        On a GPU all of them are there, labels and indices too, and torch's current stream waits for the batch; the
        host does not.

        Raises:
          MissingDependencyError: torch is not installed.
        """
        try:
            import torch
        except ModuleNotFoundError as error:
            from cgnrt._support.extras import missing_dependency  # programs without an error start faster

            raise missing_dependency("batch.torch", error) from error

        def share(array: Any) -> Any:
            if array is None:
                return None
            if isinstance(array, np.ndarray):
                return torch.from_numpy(array)
            if isinstance(array, torch.Tensor):
                return array
            return torch.utils.dlpack.from_dlpack(array)

        columns: Batch | DeviceColumns = self
        if self.on_device is not None:
            columns = self.on_device
            if isinstance(self.images, torch.Tensor):  # it was `out`: its owner does not know our stream
                self.on_device.order_before(self.images)
        # Written out: `replace` takes several times as long, in every step of a training loop.
        return Batch(
            images=share(self.images),
            labels=Labels(*map(share, columns.labels)),
            seed=self.seed,
            indices=share(columns.indices),
            index=share(columns.index),
            place=share(columns.place),
            mask=share(self.mask),
            foreground=share(self.foreground),
            background=share(self.background),
            pre_mask=share(self.pre_mask),
            draw_noise=self.draw_noise,
        )
