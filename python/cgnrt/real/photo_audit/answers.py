"""The answers of an audit of photos, and the rates that they give."""

from __future__ import annotations

import numpy as np

from cgnrt.auditing.rates import Rate
from cgnrt.real.photo_audit.kinds import (
    AT,
    BACKGROUND,
    GREY,
    OTHER,
    PHOTO,
    SAME,
    SIZED,
    SWAPS,
    TEXTURE,
    Kind,
)
from cgnrt.real.photo_audit.rates import PhotoRates


class Answers:
    """A classifier's answers about n samples of each kind.

    Args:
      labels: (n,) the classes of the samples' objects.
      textures: (n,) the classes of the textures that replace theirs.
      confidence: of the intervals.
    """

    def __init__(
        self, kinds: tuple[Kind, ...], labels: np.ndarray, textures: np.ndarray, confidence: float
    ) -> None:
        self.labels, self._textures, self._confidence = labels, textures, confidence
        self.of = {kind.name: np.full(len(labels), -1, np.int64) for kind in kinds}

    def rates(self, rows: np.ndarray) -> PhotoRates:
        """The rates among some samples, (n,) bool."""
        kept = {kind.name: self._rate(self._kept(kind), rows) for kind in (SAME, OTHER, GREY, TEXTURE)}
        return PhotoRates(
            accuracy={
                kind.name: self._rate(self._right(kind), rows) for kind in (PHOTO, SAME, OTHER, GREY, TEXTURE)
            },
            keeps=kept,
            background_alone=self._rate(self._right(BACKGROUND), rows),
            texture_follows=self._rate(self.of[TEXTURE.name] == self._textures, rows),
            by_position={
                place: self._rate(self._right(kind), rows)
                for place, kind in AT.items()
                if kind.name in self.of
            },
            by_size={
                size: self._rate(self._right(kind), rows)
                for size, kind in SIZED.items()
                if kind.name in self.of
            },
        )

    def worst(self, count: int) -> list[int]:
        """Samples that are right as photos, and wrong most often otherwise; the first of equal ones first."""
        losses = np.zeros(len(self.labels), np.int64)
        for kind in SWAPS[1:]:
            # The object is not needed where the background alone gives its label.
            losses += self._right(kind) if kind == BACKGROUND else ~self._right(kind)
        losses[~self._right(PHOTO)] = 0
        order = np.argsort(-losses, kind="stable")[:count]
        return [int(sample) for sample in order if losses[sample]]

    def _right(self, kind: Kind) -> np.ndarray:
        right: np.ndarray = self.of[kind.name] == self.labels
        return right

    def _kept(self, kind: Kind) -> np.ndarray:
        kept: np.ndarray = self.of[kind.name] == self.of[PHOTO.name]
        return kept

    def _rate(self, happened: np.ndarray, rows: np.ndarray) -> Rate:
        return Rate.of(int((happened & rows).sum()), int(rows.sum()), self._confidence)
