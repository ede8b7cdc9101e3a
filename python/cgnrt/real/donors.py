"""Which photos give the parts of each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cgnrt._support.suggest import did_you_mean
from cgnrt.sampling import donor_picks

PARTS = ("texture", "background")
DONORS = ("any", "same", "other")


class Donors:
    """Chooses among `photos` photos; a photo's donors are in order, beginning with the next one.

    Args:
      operation, name: the first word of messages, and what they call a photo.
    """

    def __init__(
        self,
        photos: int,
        labels: np.ndarray | None,
        donors: str,
        *,
        operation: str = "counterfactuals",
        name: Callable[[int], str] = "photo {}".format,
    ) -> None:
        if donors not in DONORS:
            raise ValueError(
                f"{operation}: donors is {donors!r}, expected one of {', '.join(DONORS)}."
                f"{did_you_mean(donors, DONORS)}"
            )
        if donors != "any" and labels is None:
            raise ValueError(
                f"{operation}: labels are None, expected (N,) integers, since donors is {donors!r}."
            )
        self._photos, self._donors = photos, donors
        self._operation, self._name = operation, name
        self._label_of = np.zeros(photos, np.int64)  # a label's place among all
        self._members: list[np.ndarray] = [np.arange(photos)]  # by label, rising
        if labels is not None and donors != "any":
            _, self._label_of = np.unique(labels, return_inverse=True)
            order = np.argsort(self._label_of, kind="stable")
            self._members = np.split(order, np.cumsum(np.bincount(self._label_of))[:-1])
        sizes = np.array([len(members) for members in self._members])[self._label_of]
        self._counts = photos - sizes if donors == "other" else sizes - 1

    def index(self, where: np.ndarray, seed: int, swapped: Sequence[str]) -> np.ndarray:
        """The photos of each sample's shape, texture and background, int64 (n, 3).

        Raises:
          ValueError: a photo has no donor.
        """
        shapes = where % max(self._photos, 1)
        index = np.repeat(shapes[:, None], 3, axis=1)
        if not len(where):
            return index
        counts = self._counts[shapes]
        self._refuse_missing(shapes)
        for column, part in enumerate(PARTS, 1):
            if part not in swapped:
                continue
            for count in np.unique(counts):
                those = counts == count
                picks = donor_picks(seed, where[those], part, int(count))
                index[those, column] = self._chosen(shapes[those], picks)
        return index

    def require(self) -> None:
        """Check that every photo has a donor.

        Raises:
          ValueError: one has none.
        """
        self._refuse_missing(np.arange(self._photos))

    def _chosen(self, shapes: np.ndarray, picks: np.ndarray) -> np.ndarray:
        """The donor of each photo at a place in the order of its donors."""
        if self._donors == "any":
            following: np.ndarray = (shapes + 1 + picks) % self._photos
            return following
        chosen = np.empty_like(shapes)
        labels = self._label_of[shapes]
        for label in np.unique(labels):
            those, members = labels == label, self._members[label]
            place = np.searchsorted(members, shapes[those])
            if self._donors == "same":
                chosen[those] = members[(place + 1 + picks[those]) % len(members)]
                continue
            # The others by rank: there are `shapes - place` of them before a photo.
            rank = (shapes[those] - place + picks[those]) % (self._photos - len(members))
            others_before = members - np.arange(len(members))
            chosen[those] = rank + np.searchsorted(others_before, rank, side="right")
        return chosen

    def _refuse_missing(self, shapes: np.ndarray) -> None:
        missing = shapes[self._counts[shapes] == 0]
        if not len(missing):
            return
        photo = int(missing.min())
        kind = {
            "any": "another photo",
            "same": "another photo of its label",
            "other": "a photo of another label",
        }[self._donors]
        raise ValueError(
            f"{self._operation}: {self._name(photo)} has no donor among {self._photos} photos. Add {kind}."
        )
