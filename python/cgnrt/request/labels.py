"""Labels as callers give them, and the names that they may have meant."""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cgnrt._support.suggest import did_you_mean
from cgnrt._support.values import host_array
from cgnrt.sampling import MECHANISMS

Label = int | str
_MOST_COMPARED = 1000  # names, letter by letter
LONGEST_COMPOSED = 1000  # letters of a name that is brought into the plan's form
LONGEST_SPELT = 200  # letters of a name that is looked for


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
    as whole words ("elephant": "Indian elephant"), then those that are spelt like it. Among very many names only those
    that begin like it are compared letter by letter, so that a misspelt name costs little.
    """
    import difflib  # here, because it is needed only for errors

    wanted = _plain(label[:LONGEST_SPELT])
    if not wanted:
        return []
    known = _plain_names(tuple(names))
    compared: Sequence[str] = list(known.indices)
    if len(compared) > _MOST_COMPARED:
        compared = [name for name in compared if name.startswith(wanted[:2])][:_MOST_COMPARED]
    spelt = difflib.get_close_matches(wanted, compared, n=n, cutoff=0.8)
    loose = difflib.get_close_matches(wanted, compared, n=n)
    ranked = [
        *known.indices.get(wanted, []),
        *(i for name in spelt for i in known.indices[name]),
        *sorted({*known.holding(wanted, n), *known.held_by(wanted)})[:n],
        *(i for name in loose for i in known.indices[name]),
    ]
    return [names[i] for i in dict.fromkeys(ranked)][:n]


class _PlainNames:
    """Names without case, underscores and hyphens, looked up quickly also where they are very many."""

    def __init__(self, names: Sequence[str]) -> None:
        self.indices: dict[str, list[int]] = {}
        self._starts: list[int] = []
        parts = []
        start = 0
        for i, name in enumerate(map(_plain, names)):
            self.indices.setdefault(name, []).append(i)
            self._starts.append(start)
            parts.append(f" {name} \n")
            start += len(parts[-1])
        self._text = "".join(parts)

    def holding(self, wanted: str, n: int) -> list[int]:
        """The first n names that hold `wanted` as whole words."""
        found: list[int] = []
        at = self._text.find(f" {wanted} ")
        while at >= 0 and len(found) < n:
            found.append(bisect.bisect_right(self._starts, at) - 1)
            at = self._text.find(f" {wanted} ", self._text.find("\n", at))
        return found

    def held_by(self, wanted: str) -> list[int]:
        """The names that are whole words of `wanted`."""
        words = wanted.split()
        runs = (" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1))
        return [i for run in dict.fromkeys(runs) for i in self.indices.get(run, [])]


_plain_names = functools.lru_cache(maxsize=8)(_PlainNames)


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[^\w]|_", " ", name.casefold()).split())


def check_mechanism_keys(option: str, mapping: Mapping[str, Any], beside: Sequence[str] = ()) -> None:
    """Refuse what does not map mechanisms to something; `beside` are the other keys that the option takes."""
    if not isinstance(mapping, Mapping):
        raise TypeError(f"sample: {option} is {mapping!r}, expected a mapping from mechanisms to classes.")
    known = (*MECHANISMS, *beside)
    for key in mapping:
        if key not in MECHANISMS:
            raise ValueError(
                f"sample: {option} key is {key!r}, expected one of {', '.join(known)}.{did_you_mean(key, known)}"
            )
