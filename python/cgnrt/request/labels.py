"""Class names of a plan."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cgnrt._support.values import host_array
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
            index = self._index[mechanism].get(
                unicodedata.normalize("NFC", label)
            )  # the form that plans have
            if index is None:
                close = close_names(label, names)
                hint = "one of " if close else f"one of {len(names)} class names"
                raise ValueError(
                    f"sample: {field} is {label!r}, expected {hint}{', '.join(map(repr, close))}. "
                    "See: cgnrt inspect --classes"
                )
            return index
        if isinstance(label, bool) or not isinstance(label, int | np.integer):
            raise TypeError(f"sample: {field} is {label!r}, expected a class index (int) or name (str).")
        if not 0 <= label < len(names):
            raise ValueError(f"sample: {field} is {label}, expected 0..{len(names) - 1}.")
        return int(label)

    def indices(self, mechanism: str, labels: Any) -> np.ndarray:
        """Class indices of a list, array or tensor of labels, int64 (n,).

        Raises:
          TypeError, ValueError: it is something else, or one of the labels is not as for `index`.
        """
        given = list_labels(mechanism, labels)
        found = [self.index(f"{mechanism}[{i}]", mechanism, label) for i, label in enumerate(given)]
        return np.asarray(found, np.int64)

    def intervention(self, do: Mapping[str, Label] | None) -> tuple[tuple[str, int], ...]:
        """`do` as (mechanism, class index) pairs, in the order of `MECHANISMS`."""
        do = do or {}
        return tuple((m, self.index(f"do[{m!r}]", m, do[m])) for m in MECHANISMS if m in do)

    def subsets(
        self, classes: Mapping[str, Sequence[Label]] | None
    ) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """`classes` as (mechanism, class indices) pairs, in the order of `MECHANISMS`."""
        found = []
        for mechanism, subset in sorted((classes or {}).items(), key=lambda item: MECHANISMS.index(item[0])):
            field = f"classes[{mechanism!r}]"
            labels = list_labels(field, subset)
            if not labels:
                raise ValueError(f"sample: {field} is {subset!r}, expected a sequence of classes.")
            indices = (self.index(f"{field}[{i}]", mechanism, label) for i, label in enumerate(labels))
            found.append((mechanism, tuple(indices)))
        return tuple(found)


def list_labels(field: str, labels: Any) -> list[Any]:
    """The labels in a one-dimensional list, tuple, array or tensor; each of them is still to be checked.

    Raises:
      TypeError: it is something else: one label, text, bytes, a set; floats; more dimensions; a masked array.
    """
    if isinstance(labels, list | tuple):
        return list(labels)
    if isinstance(labels, str | int):
        raise TypeError(f"sample: {field} is {labels!r}, expected a sequence of classes.")
    array = host_array("sample", field, labels)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iuUTO"):
        raise TypeError(
            f"sample: {field} is {array.dtype} {array.shape}, expected one dimension of class "
            "indices (int) or names (str)."
        )
    found: list[Any] = array.tolist()
    return found


def close_names(label: str, names: Sequence[str], n: int = 3) -> list[str]:
    """Up to n of the names that `label` may have meant, the likeliest first.

    First those that differ in case, underscores, hyphens or spaces alone, then those that hold it or are held by it
    as whole words ("elephant": "Indian elephant"), then those that are spelt like it.
    """
    import difflib  # here, because it is needed only for errors

    wanted = _plain(label)
    if not wanted:
        return []
    plain = [_plain(name) for name in names]
    same = [i for i, name in enumerate(plain) if name == wanted]
    spelt = difflib.get_close_matches(wanted, plain, n=n, cutoff=0.8)
    words = [
        i for i, name in enumerate(plain) if f" {wanted} " in f" {name} " or f" {name} " in f" {wanted} "
    ]
    loose = difflib.get_close_matches(wanted, plain, n=n)
    by_plain: dict[str, list[int]] = {}
    for i, name in enumerate(plain):
        by_plain.setdefault(name, []).append(i)
    ranked = [
        *same,
        *(i for s in spelt for i in by_plain[s]),
        *words,
        *(i for s in loose for i in by_plain[s]),
    ]
    return [names[i] for i in dict.fromkeys(ranked)][:n]


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[^\w]|_", " ", name.casefold()).split())


def check_mechanism_keys(option: str, mapping: Mapping[str, Any]) -> None:
    """Refuse what does not map mechanisms to something."""
    if not isinstance(mapping, Mapping):
        raise TypeError(f"sample: {option} is {mapping!r}, expected a mapping from mechanisms to classes.")
    for key in mapping:
        if key not in MECHANISMS:
            close = close_names(str(key), MECHANISMS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"sample: {option} key is {key!r}, expected one of {', '.join(MECHANISMS)}.{hint}"
            )
