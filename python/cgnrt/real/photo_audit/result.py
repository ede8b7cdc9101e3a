"""The result of an audit of photos: as an object, as JSON, as a table, as a plot and as a sheet."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cgnrt.auditing.plain import check_format, rate_from_dict, rate_to_dict, read_json
from cgnrt.real.photo_audit.places import POSITIONS
from cgnrt.real.photo_audit.rates import Example, PhotoRates

FORMAT = "cgnrt-photo-audit"
FORMAT_VERSION = 1
_SHOWN_CLASSES = 10  # in the table
_BY_NAME = ("accuracy", "keeps", "by_position", "by_size")
_ALONE = ("background_alone", "texture_follows")
_ROWS = {
    "photo": "the photo itself",
    "same": "background of its class",
    "other": "background of another",
    "grey": "on grey",
    "texture": "texture of another",
}


@dataclass(frozen=True)
class PhotoAudit(PhotoRates):
    """What a classifier's answers about photos lean on; the rates of all photos, and by class.

    Attributes:
      photos: the number of photos.
      n: the number of images of each kind.
      seed: of the draws.
      confidence: of every interval.
      by_class: the same rates for each class of the photos, by its name.
      clipped: by size, in how many images the object is larger than the picture, and cut off at its edge.
      examples: the photos that lose most.
    """

    photos: int
    n: int
    seed: int
    confidence: float
    by_class: Mapping[str, PhotoRates]
    clipped: Mapping[float, int]
    examples: tuple[Example, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` reads; every rate has its `value`, too (None for n = 0)."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **{name: getattr(self, name) for name in ("photos", "n", "seed", "confidence")},
            **_rates_to_dict(self),
            "background_gap": self.background_gap,
            "centre_bias": self.centre_bias,
            "size_bias": {f"{size:g}": value for size, value in self.size_bias.items()},
            "clipped": {f"{size:g}": count for size, count in self.clipped.items()},
            "by_class": {name: _rates_to_dict(rates) for name, rates in self.by_class.items()},
            "examples": [
                {"name": example.name, "label": example.label, "answers": dict(example.answers)}
                for example in self.examples
            ],
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PhotoAudit:
        """The audit that `to_dict` wrote, without the examples' images.

        Raises:
          ValueError: the content is not an audit of photos.
        """
        return _parse(content)

    @classmethod
    def from_json(cls, text: str) -> PhotoAudit:
        """The audit that `to_json` wrote, without the examples' images.

        Raises:
          ValueError: the content is not an audit of photos.
        """
        return _parse(read_json(text))

    def plot(self, path: str | os.PathLike[str], *, title: str = "", force: bool = False) -> None:
        """Draw the rates with their intervals into a PNG.

        Raises:
          MissingDependencyError: matplotlib is not installed.
          CgnrtError: the file exists and `force` is off, or it cannot be written.
          ValueError: the name does not end in .png.
        """
        from cgnrt.real.photo_audit.plot import plot_audit

        plot_audit(self, path, title=title or self._head, force=force)

    def sheet(self, path: str | os.PathLike[str], *, tile: int = 128, force: bool = False) -> None:
        """Write the examples into a PNG: a column for each photo, with what was shown and answered.

        Raises:
          CgnrtError: the file exists and `force` is off, or it cannot be written.
          ValueError: the name does not end in .png; there are no examples, or they come from JSON, without images.
        """
        from cgnrt.real.photo_audit.sheet import write_sheet

        write_sheet(self.examples, path, tile=tile, force=force)

    @property
    def _head(self) -> str:
        images = "" if self.n == self.photos else f", {self.n:,} images of each kind"
        return (
            f"{self.photos:,} photos of {len(self.by_class)} classes{images}, seed {self.seed}, "
            f"{100 * self.confidence:g} % intervals"
        )

    def __str__(self) -> str:
        table = [("", "right", "same answer as before")]
        table += [
            (title, str(self.accuracy[name]), str(self.keeps[name]) if name in self.keeps else "")
            for name, title in _ROWS.items()
        ]
        lines = [f"  {a:<26}{b:<24}{c}".rstrip() for a, b, c in table]
        lines += [
            f"the background alone gives the label: {self.background_alone}",
            f"the answer follows a new texture: {self.texture_follows}",
            f"background gap: {100 * self.background_gap:.1f} points",
        ]
        return "\n".join([self._head, *lines, *self._places(), *self._worst_classes()])

    def _places(self) -> list[str]:
        if not self.by_position:
            return []
        rows = [
            "  " + " ".join(f"{100 * self.by_position[name].value:5.1f}" for name in POSITIONS[k : k + 3])
            for k in (0, 3, 6)
        ]
        bias = "unknown: never right in the centre" if self.centre_bias is None else f"{self.centre_bias:.2f}"
        sizes = ", ".join(f"x {size:g}: {100 * rate.value:.1f} %" for size, rate in self.by_size.items())
        lines = [f"right by place, %, objects at a third of their size (centre bias {bias}):", *rows]
        lines.append(f"right by area: {sizes}")
        cut = [f"{count} at x {size:g}" for size, count in self.clipped.items() if count]
        return lines + ([f"objects cut off at the picture's edge: {', '.join(cut)}"] if cut else [])

    def _worst_classes(self) -> list[str]:
        """The classes whose answers keep least on other backgrounds."""
        pairs = sorted(self.by_class.items(), key=lambda pair: pair[1].keeps["other"].value)
        shown = pairs[:_SHOWN_CLASSES]
        count = f"lowest {len(shown)} of {len(pairs)}" if len(shown) < len(pairs) else "each class"
        return [
            f"same answer on a background of another class, {count}:",
            *(f"  {name}: {rates.keeps['other']}" for name, rates in shown),
        ]


def _rates_to_dict(rates: PhotoRates) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: {_key(key): rate_to_dict(rate) for key, rate in getattr(rates, name).items()}
        for name in _BY_NAME
    }
    return found | {name: rate_to_dict(getattr(rates, name)) for name in _ALONE}


def _key(key: str | float) -> str:
    return key if isinstance(key, str) else f"{key:g}"


def _rates_from_dict(content: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: {key: rate_from_dict(rate) for key, rate in content[name].items()} for name in _BY_NAME
    }
    found["by_size"] = {float(size): rate for size, rate in found["by_size"].items()}
    return found | {name: rate_from_dict(content[name]) for name in _ALONE}


def _parse(content: Any) -> PhotoAudit:
    check_format(content, FORMAT, FORMAT_VERSION)
    try:
        for name, kind in (("photos", int), ("n", int), ("seed", int), ("confidence", float)):
            if type(content[name]) is not kind:
                raise ValueError(f"{name} is {content[name]!r}")
        found = PhotoAudit(
            **_rates_from_dict(content),
            **{name: content[name] for name in ("photos", "n", "seed", "confidence")},
            by_class={
                name: PhotoRates(**_rates_from_dict(rates)) for name, rates in content["by_class"].items()
            },
            clipped={float(size): int(count) for size, count in content["clipped"].items()},
            examples=tuple(
                Example(str(example["name"]), str(example["label"]), dict(example["answers"]))
                for example in content["examples"]
            ),
        )
        _check_keys(found)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"read audit: content is damaged ({error}), expected what to_dict wrote.") from error
    return found


def _check_keys(found: PhotoAudit) -> None:
    for rates in (found, *found.by_class.values()):
        for name, keys in (("accuracy", set(_ROWS)), ("keeps", set(_ROWS) - {"photo"})):
            if set(getattr(rates, name)) != keys:
                raise ValueError(f"{name} is of {', '.join(getattr(rates, name))}")
        if rates.by_position and (set(rates.by_position) != set(POSITIONS) or 1.0 not in rates.by_size):
            raise ValueError("by_position or by_size is not complete")
