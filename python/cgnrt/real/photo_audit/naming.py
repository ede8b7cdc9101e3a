"""What photos and classes are called in messages, results and sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Classes = Sequence[str] | Mapping[int, str]


class Naming:
    """Names of photos and of classes, checked.

    Args:
      labels: (N,) int64, the photos' classes.
      names: of the photos; None counts them.
      classes: as for `cgnrt.real.audit`.
    Raises:
      ValueError: the number of names is not that of the photos, or a label is not a class.
    """

    def __init__(self, labels: np.ndarray, names: Sequence[str] | None, classes: Classes | None) -> None:
        if isinstance(names, str) or (names is not None and len(names) != len(labels)):
            raise ValueError(f"audit: names are {len(names)}, expected {len(labels)}, one for each photo.")
        self._names = None if names is None else [str(name) for name in names]
        if isinstance(classes, str):
            raise TypeError(f"audit: classes is '{classes}', expected a list of names, or names by number.")
        self._classes: Mapping[int, str] = (
            classes if isinstance(classes, Mapping) else dict(enumerate(classes or ()))
        )
        # A list has a name for every class that there is.
        self.k = len(classes) if classes is not None and not isinstance(classes, Mapping) else None
        self._labels = labels
        self.check_labels(self.k)

    def __len__(self) -> int:
        """The number of photos."""
        return len(self._labels)

    def check_labels(self, k: int | None) -> None:
        """Refuse a photo whose label is not one of k classes; with None any of 0 or more is one."""
        wrong = self._labels < 0 if k is None else (self._labels < 0) | (self._labels >= k)
        if wrong.any():
            photo = int(wrong.argmax())
            rule = "0 or more" if k is None else f"0..{k - 1}, the classifier's classes"
            raise ValueError(
                f"audit: label of {self.photo(photo)} is {self._labels[photo]}, expected {rule}. Give the numbers of "
                "the classifier's answers."
            )

    def photo(self, photo: int) -> str:
        """A photo in a message."""
        return f"photo {photo}" if self._names is None else f"photo '{self._names[photo]}'"

    def name(self, photo: int) -> str:
        """A photo in the result."""
        return str(photo) if self._names is None else self._names[photo]

    def label(self, label: int) -> str:
        """A class."""
        return self._classes.get(label, str(label))

    def different(self, labels: Sequence[int]) -> list[str]:
        """The names of some classes, with their numbers where two have one name."""
        names = [self.label(label) for label in labels]
        return [
            f"{name} ({label})" if names.count(name) > 1 else name
            for label, name in zip(labels, names, strict=True)
        ]
