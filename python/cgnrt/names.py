"""Class names of a plan."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cgnrt.sampling import MECHANISMS

Label = int | str


class ClassNames:
    """The plan's class names: index <-> name, with close matches for a misspelt one."""

    def __init__(self, names: Mapping[str, Sequence[str]]) -> None:
        self.names = {mechanism: tuple(names[mechanism]) for mechanism in MECHANISMS}
        self._index = {m: {name: i for i, name in enumerate(found)} for m, found in self.names.items()}

    def index(self, field: str, mechanism: str, label: Label | np.integer[Any]) -> int:
        """The class index of one label; an int is always an index, a str always a name.

        Raises:
          TypeError, ValueError: it is neither, out of range, or unknown.
        """
        names = self.names[mechanism]
        if isinstance(label, str):
            if label not in self._index[mechanism]:
                close = difflib.get_close_matches(label, names, n=3)
                hint = (
                    f"one of {', '.join(map(repr, close))}" if close else f"one of {len(names)} class names"
                )
                raise ValueError(f"sample: {field} is {label!r}, expected {hint}. See: cgnrt inspect")
            return self._index[mechanism][label]
        if isinstance(label, bool) or not isinstance(label, int | np.integer):
            raise TypeError(f"sample: {field} is {label!r}, expected a class index (int) or name (str).")
        if not 0 <= label < len(names):
            raise ValueError(f"sample: {field} is {label}, expected 0..{len(names) - 1}.")
        return int(label)

    def indices(self, mechanism: str, labels: Any) -> np.ndarray:
        """Class indices of a sequence of labels, int64 (n,)."""
        if isinstance(labels, np.ndarray) or not isinstance(labels, Sequence):
            array = np.asarray(labels)
            if array.ndim != 1 or (array.size and array.dtype.kind not in "iuU"):
                raise TypeError(
                    f"sample: {mechanism} is {array.dtype} {array.shape}, expected one dimension of class "
                    "indices (int) or names (str)."
                )
            labels = array.tolist()
        found = [self.index(f"{mechanism}[{i}]", mechanism, label) for i, label in enumerate(labels)]
        return np.asarray(found, np.int64)
