"""Batches of real images and counterfactuals (App. C.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cgnrt.batch import Batch
from cgnrt.sampling import Labels
from cgnrt.torch.dataset import row


class Mixed(NamedTuple):
    """A batch of real images, then counterfactuals.

    Attributes:
      images: (n, 3, h, w).
      labels: `Labels(shape, texture, background)`, int64 (n,) each; a real image has its one label three times.
      real: bool (n,).
    """

    images: Tensor
    labels: Labels
    real: Tensor


class _Labelled(NamedTuple):
    images: Tensor
    labels: Any  # Labels, of tensors


class Mix(Iterable[Mixed]):
    """Batches of real images and counterfactuals; in App. C.4 an even ratio is best. See `mix`."""

    def __init__(self, real: Iterable[Any], counterfactual: Iterable[Any], share: float) -> None:
        if not 0 < share < 1:
            raise ValueError(f"mix: share is {share}, expected between 0 and 1.")
        self._real = real
        self._counterfactual = counterfactual
        self._share = share
        self._rows = _Rows(counterfactual)

    def __len__(self) -> int:
        if not isinstance(self._real, Sized):
            raise TypeError("mix: real has no length.")
        return len(self._real)

    def __iter__(self) -> Iterator[Mixed]:
        for images, labels, *_ in self._real:
            count = round(len(images) * self._share / (1 - self._share))
            made = self._rows.take(count)
            images = images.to(made.images.device, non_blocking=True)
            labels = labels.to(made.images.device, non_blocking=True)
            if images.shape[1:] != made.images.shape[1:] or images.dtype != made.images.dtype:
                raise ValueError(
                    f"mix: counterfactual images are {made.images.dtype} {tuple(made.images.shape[1:])}, expected "
                    f"{images.dtype} {tuple(images.shape[1:])}, as the real images are."
                )
            columns: Any = [torch.cat([labels, column]) for column in made.labels]
            is_real = torch.arange(len(images) + count, device=images.device) < len(images)
            yield Mixed(join([images, made.images]), Labels(*columns), is_real)


def mix(real: Iterable[Any], counterfactual: Iterable[Any], *, share: float = 0.5) -> Mix:
    """Batches of real images and counterfactuals, half and half as in App. C.4.

    Args:
      real: batches (images (r, 3, h, w), labels (r,)), such as a `DataLoader`. An epoch is one pass over it.
      counterfactual: batches with `images` and `labels`: a `CounterfactualDataset` or a `DataLoader` of one, or a
        `Generator.stream`. Each epoch continues where the last one stopped, and from the beginning after the end.
      share: the share of counterfactuals in a batch, which decides how many are added to the real images.
    Returns:
      An iterable of `Mixed`, with the length of `real`; on the device of the counterfactuals.
    Raises:
      ValueError: share is not between 0 and 1; when iterated: the images of both have different shapes or dtypes, or
        there are no more counterfactuals, or they have one label alone.
    """
    return Mix(real, counterfactual, share)


def join(parts: Sequence[Tensor], memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Concatenate tensors (n, c, h, w) in a memory format, with one copy of each."""
    size = (sum(len(part) for part in parts), *parts[0].shape[1:])
    joined = torch.empty(size, dtype=parts[0].dtype, device=parts[0].device, memory_format=memory_format)
    torch.cat(list(parts), out=joined)
    return joined


class _Rows:
    """Takes any number of images and labels at a time from batches."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = batches
        self._iterator: Iterator[Any] = iter(())
        self._left: list[_Labelled] = []

    def take(self, count: int) -> _Labelled:
        parts: list[_Labelled] = []
        missing = count
        while missing or not parts:
            found = self._left.pop() if self._left else self._next()
            if len(found.images) > missing:
                self._left.append(row(found, slice(missing, None)))
                found = row(found, slice(0, missing))
            parts.append(found)
            missing -= len(found.images)
        if len(parts) == 1:
            return parts[0]
        columns: Any = zip(*(part.labels for part in parts), strict=True)
        return _Labelled(join([part.images for part in parts]), tuple(map(torch.cat, columns)))

    def _next(self) -> _Labelled:
        for _ in range(2):  # from the beginning, once
            for batch in self._iterator:
                if len(batch.images):
                    found = batch.torch() if isinstance(batch, Batch) else batch
                    if isinstance(found.labels, Tensor):
                        raise ValueError(
                            "mix: counterfactual gives one label for each image, expected all three. Leave out label= "
                            "of the data set, and choose one of the mixed labels, such as labels.shape."
                        )
                    return _Labelled(found.images, found.labels)
            self._iterator = iter(self._batches)
        raise ValueError(
            "mix: counterfactual has no more batches, expected one for each batch of real images."
        )
