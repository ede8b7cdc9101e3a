"""The pictures of ImageNet-9 and of Cue Conflict, in the folders that their authors give out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cgnrt._support.pictures import has_suffix
from cgnrt._support.suggest import did_you_mean
from cgnrt.auditing.asking import spread
from cgnrt.real.known_sets.groups import CUE_CONFLICT, IN9
from cgnrt.real.sets import SETS

# Names of ImageNet-9's sets, which are its folders, and what is in them.
IN9_SETS: Mapping[str, str] = {
    **{name: SETS[name] for name in ("original", "mixed_same", "mixed_rand")},
    "mixed_next": "objects on the backgrounds of the next group",
    **{name: SETS[name] for name in ("only_fg", "only_bg_b", "only_bg_t", "no_fg")},
}
_IN9_INSIDE = ("bg_challenge",)  # where the archive has the sets
_CUE_CONFLICT_INSIDE = ("style-transfer-preprocessed-512", "stimuli/style-transfer-preprocessed-512")
_CUES = re.compile(r"([a-z]+)\d+-([a-z]+)\d+")


@dataclass(frozen=True)
class Pictures:
    """Picture files of a test set.

    Attributes:
      files: sorted by group and name.
      labels: (n,) int64, the groups of what they show: of the object, or of the shape.
      textures: (n,) int64, the groups of the textures; empty if the set has none.
    """

    files: tuple[Path, ...]
    labels: np.ndarray
    textures: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def some(self, n: int | None) -> Pictures:
        """n of them, spread over all; all of them for None, or if there are fewer."""
        if n is None or n >= len(self):
            return self
        return self._chosen(spread(n, len(self)))

    def conflicting(self) -> Pictures:
        """Those whose texture is of another group than their shape."""
        return self._chosen(np.flatnonzero(self.labels != self.textures))

    def _chosen(self, rows: np.ndarray) -> Pictures:
        return Pictures(
            tuple(self.files[row] for row in rows),
            self.labels[rows],
            self.textures[rows] if len(self.textures) else self.textures,
        )


def find_in9(folder: Path, sets: Sequence[str] | None) -> dict[str, Pictures]:
    """The pictures of ImageNet-9's sets: `mixed_same/val/00_dog/....JPEG` and so on.

    Args:
      sets: their names; None takes those in the folder.
    Raises:
      ValueError: a set or a group is missing, empty, or has another name.
    """
    _require_folder(folder, "the sets of ImageNet-9")
    inside = _folders(folder)
    chosen = [name for name in IN9_SETS if name in inside] if sets is None else _checked(sets)
    missing = [name for name in chosen if name not in inside]
    if missing or not chosen:
        raise ValueError(
            f"read '{folder}': folder {_listed(missing or IN9_SETS, 'or')} is missing, expected ImageNet-9's sets."
            f"{_inside(folder, _IN9_INSIDE)}{_above(folder, IN9_SETS)}"
        )
    return {name: _in9_set(folder / name) for name in chosen}


def _in9_set(folder: Path) -> Pictures:
    place = folder / "val"
    if not place.is_dir():
        raise ValueError(
            f"read '{folder}': folder 'val' is missing, expected it with a folder for each group, as "
            "ImageNet-9 has it. Unpack the set again."
        )
    expected = {f"{number:02}_{name}": number for number, name in enumerate(IN9.names)}
    # Unpacking may have replaced the blanks of "02_wheeled vehicle".
    known = {name.replace(" ", "_"): number for name, number in expected.items()}
    found: dict[int, Path] = {}
    for name, path in _folders(place).items():
        number = known.get(name.replace(" ", "_"))
        if number is None:
            raise ValueError(
                f"read '{path}': group is '{name}', expected {_listed(expected, 'or')}.{did_you_mean(name, expected)}"
            )
        if number in found:
            raise ValueError(
                f"read '{place}': group {number} is there twice, '{found[number].name}' and '{name}', expected once. "
                "Remove one."
            )
        found[number] = path
    missing = [name for name, number in expected.items() if number not in found]
    if missing:
        raise ValueError(
            f"read '{place}': group {_listed(missing, 'and')} is missing, expected all {len(expected)} of ImageNet-9. "
            "Unpack the set again."
        )
    files = [(file, number) for number in sorted(found) for file in _pictures(found[number])]
    return Pictures(
        tuple(file for file, _ in files), np.array([number for _, number in files], np.int64), _NOTHING
    )


def find_cue_conflict(folder: Path) -> Pictures:
    """The pictures of Cue Conflict: `airplane/airplane1-bicycle2.png` has an airplane's shape and a bicycle's texture.

    Raises:
      ValueError: a category is missing, empty or not known, or a file's name is not of this form.
    """
    _require_folder(folder, "the categories of Cue Conflict")
    inside = _folders(folder)
    missing = [name for name in CUE_CONFLICT.names if name not in inside]
    if missing:
        raise ValueError(
            f"read '{folder}': folder {_listed(missing, 'and')} is missing, expected one for each of Cue Conflict's "
            f"{len(CUE_CONFLICT.names)} categories.{_inside(folder, _CUE_CONFLICT_INSIDE)}"
            f"{_above(folder, CUE_CONFLICT.names)}"
        )
    unknown = [name for name in inside if name not in CUE_CONFLICT.names]
    if unknown:
        raise ValueError(
            f"read '{inside[unknown[0]]}': category is '{unknown[0]}', expected {_listed(CUE_CONFLICT.names, 'or')}."
            f"{did_you_mean(unknown[0], CUE_CONFLICT.names)}"
        )
    files = [file for name in CUE_CONFLICT.names for file in _pictures(inside[name])]
    cues = np.array([_cues(file) for file in files], np.int64).reshape(-1, 2)
    return Pictures(tuple(files), cues[:, 0], cues[:, 1])


def _cues(file: Path) -> tuple[int, int]:
    """The categories of a file's shape and texture."""
    form = _CUES.fullmatch(file.stem)
    if form is None:
        raise ValueError(
            f"read '{file}': name is '{file.name}', expected one as 'airplane1-bicycle2.png', which says shape and "
            "texture."
        )
    for name in form.groups():
        if name not in CUE_CONFLICT.names:
            raise ValueError(
                f"read '{file}': category is '{name}', expected {_listed(CUE_CONFLICT.names, 'or')}."
                f"{did_you_mean(name, CUE_CONFLICT.names)}"
            )
    shape, texture = form.groups()
    if shape != file.parent.name:
        raise ValueError(
            f"read '{file}': shape is '{shape}', expected '{file.parent.name}', which its folder is called. "
            "Move it to its own folder."
        )
    return CUE_CONFLICT.names.index(shape), CUE_CONFLICT.names.index(texture)


def _checked(sets: Sequence[str]) -> list[str]:
    if isinstance(sets, str):
        raise TypeError(f"audit: sets is '{sets}', expected a list of names.")
    for name in sets:
        if name not in IN9_SETS:
            raise ValueError(
                f"audit: set is '{name}', expected {_listed(IN9_SETS, 'or')}.{did_you_mean(name, IN9_SETS)}"
            )
    if not sets:
        raise ValueError("audit: sets are empty, expected at least one name, or None for all in the folder.")
    return [name for name in IN9_SETS if name in sets]


def _require_folder(folder: Path, content: str) -> None:
    if not folder.is_dir():
        raise ValueError(f"read '{folder}': folder is missing, expected one with {content}. Check the path.")


def _folders(folder: Path) -> dict[str, Path]:
    """The folders in a folder by name; hidden ones are not looked at."""
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    }


def _pictures(folder: Path) -> list[Path]:
    """The pictures in a folder; what is not called like one is not looked at."""
    found = [
        path
        for path in sorted(folder.iterdir())
        if has_suffix(path) and not path.name.startswith(".") and not path.is_dir()
    ]
    if not found:
        raise ValueError(f"read '{folder}': pictures are missing, expected at least 1. Unpack the set again.")
    return found


def _inside(folder: Path, places: Iterable[str]) -> str:
    """What to give instead, if the set lies in a folder below."""
    found = [folder / place for place in places if (folder / place).is_dir()]
    return f" Give '{found[0]}'." if found else ""


def _above(folder: Path, names: Collection[str]) -> str:
    """What to give instead, if the folder is one of the set's own."""
    return f" Give '{folder.parent}'." if folder.resolve().name in names else ""


def _listed(names: Iterable[str], joint: str) -> str:
    """Names in quotes, as 'a', 'b' and 'c'."""
    *first, last = (f"'{name}'" for name in names)
    return f"{', '.join(first)} {joint} {last}" if first else last


_NOTHING = np.empty(0, np.int64)
