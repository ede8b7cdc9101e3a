"""`Samples`: what a data set yields."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from cgnrt.batch import Batch
from cgnrt.sampling import Labels
from cgnrt.torch import transport


class Samples(NamedTuple):
    """Counterfactuals as tensors.

    Attributes:
      images: (n, 3, h, w), or (n, h, w, 3) with the NHWC layout.
      labels: `Labels(shape, texture, background)`, int64 (n,) each.
      indices: int64 (n,), their indices in the stream.
    """

    images: Tensor
    labels: Labels
    indices: Tensor

    def __reduce__(self) -> tuple[Any, ...]:
        sent = transport.send([self.images, *self.labels, self.indices])
        return (Samples, tuple(self)) if sent is None else (_receive, sent)


class PlacedSamples(NamedTuple):
    """Counterfactuals as tensors, of a data set with a `place`: `for images, labels, indices, place in loader`.

    Attributes:
      images, labels, indices: as those of `Samples`.
      place: float32 (n, 4), rows of (dy, dx, scale, flip) as in `Batch.place`.
    """

    images: Tensor
    labels: Labels
    indices: Tensor
    place: Tensor

    def __reduce__(self) -> tuple[Any, ...]:
        sent = transport.send([self.images, *self.labels, self.indices, self.place])
        return (PlacedSamples, tuple(self)) if sent is None else (_receive_placed, sent)


class Pairs(NamedTuple):
    """Counterfactuals with one label each: `for images, labels in loader`.

    Attributes:
      images: as those of `Samples`.
      labels: int64 (n,), of the mechanism that was asked for.
    """

    images: Tensor
    labels: Tensor

    def __reduce__(self) -> tuple[Any, ...]:
        sent = transport.send([self.images, self.labels])
        return (Pairs, tuple(self)) if sent is None else (_receive_pairs, sent)


def samples_of(batch: Batch) -> Samples | PlacedSamples:
    """The tensors of a batch of tensors."""
    indices: Any = batch.indices
    if batch.place is not None:
        return PlacedSamples(batch.images, batch.labels, indices, batch.place)
    return Samples(batch.images, batch.labels, indices)


def _receive_pairs(*sent: Any) -> Pairs:
    return Pairs(*transport.receive(*sent))


def _receive_placed(*sent: Any) -> PlacedSamples:
    images, *labels, indices, place = transport.receive(*sent)
    columns: Any = labels
    return PlacedSamples(images, Labels(*columns), indices, place)


def _receive(*sent: Any) -> Samples:
    images, *labels, indices = transport.receive(*sent)
    columns: Any = labels
    return Samples(images, Labels(*columns), indices)
