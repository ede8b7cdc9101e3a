"""Labels as callers give them, and the names that they may have meant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cgnrt._support.values import host_array
from cgnrt.sampling import MECHANISMS

Label = int | str


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
