"""Checks photos and masks, and brings them to one form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgnrt._support.values import host_array
from cgnrt.real.fill import free_rectangle

OBJECT = 0.5  # a mask without a value of at least this has no object
MIN_OBJECT, MAX_OBJECT = 0.02, 0.8  # shares of the picture that objects of usable photos cover


@dataclass(frozen=True)
class Pictures:
    """Photos as they were given, not copied, and what is known of them."""

    planes: np.ndarray  # (n, 3, h, w), uint8 or floats
    layout: str  # "NCHW" or "NHWC", as given
    dtype: str  # of the results: "uint8" or "float32"
    range: tuple[float, float]

    def __len__(self) -> int:
        return len(self.planes)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.planes.shape[2], self.planes.shape[3]

    def pixels(self, which: np.ndarray | slice) -> np.ndarray:
        """Some of the photos, float32 (k, 3, h, w), C-contiguous, in their own range."""
        return np.ascontiguousarray(self.planes[which], np.float32)


@dataclass(frozen=True)
class Masks:
    """Masks as they were given, not copied."""

    planes: np.ndarray  # (n, 1, h, w): floats, bool or uint8

    def __len__(self) -> int:
        return len(self.planes)

    def values(self, which: np.ndarray | slice) -> np.ndarray:
        """Some of the masks, float32 (k, 1, h, w), C-contiguous, in [0, 1]."""
        found = np.ascontiguousarray(self.planes[which], np.float32)
        return found / np.float32(255) if self.planes.dtype == np.uint8 else found

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each mask, float32 (h, w)."""
        for first in range(len(self)):
            yield self.values(slice(first, first + 1))[0, 0]


def read_pictures(images: Any, operation: str, range: Sequence[float] | None = None) -> Pictures:
    """Check photos.

    Args:
      images: (n, 3, h, w) or (n, h, w, 3), uint8 or floats; (n, 3, h, w) if both fit.
      operation: the first word of a message.
      range: (low, high) of floats; None means (0, 1). The range of uint8 is (0, 255).
    Raises:
      TypeError, ValueError: images are not as above, or a pixel is NaN or outside the range.
    """
    array = host_array(operation, "images", images)
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise TypeError(f"{operation} images: dtype is {array.dtype}, expected uint8 or floats.")
    if array.ndim != 4 or 3 not in (array.shape[1], array.shape[3]) or 0 in array.shape[1:]:
        raise ValueError(
            f"{operation} images: shape is {array.shape}, expected (n, 3, h, w) or (n, h, w, 3). "
            "Bring photos to one size."
        )
    low, high = _range(array.dtype, range, operation)
    if array.dtype != np.uint8:
        _require(array, low, high, f"{operation} images", "Pass range=(low, high) of the pixels.")
    layout = "NCHW" if array.shape[1] == 3 else "NHWC"
    planes = array if layout == "NCHW" else array.transpose(0, 3, 1, 2)
    return Pictures(planes, layout, "uint8" if array.dtype == np.uint8 else "float32", (low, high))


def _range(dtype: np.dtype[Any], given: Sequence[float] | None, operation: str) -> tuple[float, float]:
    if given is not None:
        bounds = host_array(operation, "range", given)
        if bounds.shape != (2,) or bounds.dtype.kind not in "fiu":
            raise TypeError(f"{operation} range: range is {given!r}, expected (low, high).")
        given = bounds.tolist()
    if dtype == np.uint8:
        if given is not None and tuple(given) != (0, 255):
            raise ValueError(
                f"{operation} range: range is {tuple(given)}, expected (0, 255), since images are uint8."
            )
        return 0.0, 255.0
    low, high = (0.0, 1.0) if given is None else (float(given[0]), float(given[1]))
    if not low < high:
        raise ValueError(
            f"{operation} range: range is ({low:g}, {high:g}), expected (low, high) with low < high."
        )
    return low, high


def read_masks(masks: Any, n: int, size: tuple[int, int], operation: str) -> Masks:
    """Check masks of n photos of (height, width).

    Args:
      masks: (n, 1, h, w), (n, h, w) or (n, h, w, 1): floats in [0, 1], bool, or uint8, where 255 is the object.
    Raises:
      TypeError, ValueError: masks are not as above, or differ from the photos in number or size.
    """
    array = host_array(operation, "masks", masks)
    if array.dtype not in (np.uint8, np.bool_) and array.dtype.kind != "f":
        raise TypeError(f"{operation} masks: dtype is {array.dtype}, expected floats, bool or uint8.")
    h, w = size
    if array.shape not in ((n, 1, h, w), (n, h, w), (n, h, w, 1)):
        raise ValueError(
            f"{operation} masks: shape is {array.shape}, expected {(n, 1, h, w)} or {(n, h, w)}, "
            "of the photos' number and size."
        )
    if array.dtype.kind == "f":
        _require(array, 0.0, 1.0, f"{operation} masks", "Scale them, or pass uint8 where 255 is the object.")
    return Masks(array.reshape(n, 1, h, w))


def read_labels(labels: Any, photos: int, operation: str) -> np.ndarray:
    """Check the classes of photos, integers (photos,).

    Returns:
      (photos,) int64.
    Raises:
      TypeError, ValueError: they are not as above.
    """
    array = host_array(operation, "labels", labels)
    if array.shape != (photos,) or array.dtype.kind not in "iu":
        raise ValueError(
            f"{operation}: labels are {array.dtype} {array.shape}, expected integers ({photos},), "
            "one for each photo."
        )
    return array.astype(np.int64)


def _require(values: np.ndarray, low: float, high: float, subject: str, next_step: str) -> None:
    wrong = ~((values >= low) & (values <= high))  # NaN is wrong, too
    if wrong.any():
        place = tuple(int(at) for at in np.argwhere(wrong)[0])
        name = subject.rpartition(" ")[2]
        raise ValueError(
            f"{subject}: {name}[{', '.join(map(str, place))}] is {values[place]:g}, expected {low:g}..{high:g}. "
            f"{next_step}"
        )


def usable(masks: Any, *, min_object: float = MIN_OBJECT, max_object: float = MAX_OBJECT) -> np.ndarray:
    """Tell from masks which photos serve `counterfactuals`: those with an object, and with background beside it.

    Args:
      masks: (n, 1, h, w), (n, h, w) or (n, h, w, 1), as for `counterfactuals`.
      min_object, max_object: the smallest and largest share of the picture that an object (mask of at least 0.5) may
        cover. With less, nothing is seen of it; with more, there is hardly a background. 0 and 1 take every photo that
        `counterfactuals` can use.
    Returns:
      (n,) bool.
    Raises:
      TypeError, ValueError: masks are not as above, or the shares are not in order in [0, 1].
    """
    array = host_array("usable", "masks", masks)
    if array.ndim == 4 and array.shape[3] == 1 and array.shape[1] != 1:
        array = array[..., 0]
    height, width = array.shape[-2:]
    checked = read_masks(array, len(array), (height, width), "usable")
    check_shares("usable", min_object, max_object)
    return np.array([unusable(mask, min_object, max_object) is None for mask in checked], bool)


def check_shares(operation: str, smallest: float, largest: float) -> None:
    """Refuse shares that no object could have.

    Raises:
      ValueError: they are not in order in [0, 1].
    """
    if not 0 <= smallest < largest <= 1:
        raise ValueError(
            f"{operation}: min_object is {smallest:g} and max_object {largest:g}, expected shares of the picture "
            "with 0 <= min_object < max_object <= 1."
        )


def unusable(mask: np.ndarray, smallest: float, largest: float) -> str | None:
    """Why a photo with a mask (h, w) does not serve for counterfactuals; None if it does."""
    if not has_object(mask):
        return "no object in it"
    share = float(np.mean(mask >= OBJECT))
    if share < smallest:
        return f"its object covers {share:.2%} of the picture, expected at least {smallest:.3g} of it (min_object)"
    if share > largest:
        return (
            f"its object covers {share:.2%} of the picture, expected at most {largest:.3g} of it (max_object)"
        )
    return None if free_rectangle(mask) is not None else "no background beside its object"


def has_object(mask: np.ndarray) -> bool:
    """Whether a mask (h, w) has an object."""
    return bool(mask.max() >= OBJECT)
