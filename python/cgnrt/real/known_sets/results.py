"""The results of ImageNet-9 and of Cue Conflict: as objects, as JSON, as tables, as plots."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from cgnrt.auditing.plain import check_format, rate_from_dict, rate_to_dict, read_json
from cgnrt.auditing.rates import Rate

IN9_FORMAT, CUE_CONFLICT_FORMAT = "cgnrt-in9-audit", "cgnrt-cue-conflict-audit"
FORMAT_VERSION = 1
_SAME, _RAND = "mixed_same", "mixed_rand"
_ABOUT = ("classes", "confidence")
_CUES = ("shape", "texture", "shape_bias")

T = TypeVar("T")


@dataclass(frozen=True)
class In9Audit:
    """How often a classifier is right on the sets of ImageNet-9 (Xiao et al., 2020).

    Attributes:
      classes: the number of classes that the classifier answers with: 1000 or 9.
      confidence: of every interval.
      accuracy: the rate of right answers by set, such as "mixed_same".
      outside: the rate of answers outside the nine groups by set, which count as wrong.
      by_group: by set and group, such as "dog", the rate of right answers.
    """

    classes: int
    confidence: float
    accuracy: Mapping[str, Rate]
    outside: Mapping[str, Rate]
    by_group: Mapping[str, Mapping[str, Rate]]

    @property
    def background_gap(self) -> float | None:
        """Accuracy on Mixed-Same less that on Mixed-Rand: the BG-gap (Table 4). None without one of these sets."""
        pair = self._pair()
        return None if pair is None else pair[0].value - pair[1].value

    @property
    def background_gap_interval(self) -> tuple[float, float] | None:
        """The ends of the gap's interval, by Newcombe's method 10 (1998) for two independent rates, in [-1, 1]."""
        pair = self._pair()
        return None if pair is None else _difference(*pair)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` reads; every rate has its `value`, too."""
        interval = self.background_gap_interval
        return {
            "format": IN9_FORMAT,
            "format_version": FORMAT_VERSION,
            **{name: getattr(self, name) for name in _ABOUT},
            "accuracy": _plain(self.accuracy),
            "background_gap": self.background_gap,
            "background_gap_interval": None if interval is None else list(interval),
            "outside": _plain(self.outside),
            "by_group": {name: _plain(rates) for name, rates in self.by_group.items()},
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return _json(self.to_dict())

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> In9Audit:
        """The audit that `to_dict` wrote.

        Raises:
          ValueError: the content is not an audit on ImageNet-9.
        """
        return _parsed(content, IN9_FORMAT, _in9)

    @classmethod
    def from_json(cls, text: str) -> In9Audit:
        """The audit that `to_json` wrote.

        Raises:
          ValueError: the content is not an audit on ImageNet-9.
        """
        return cls.from_dict(read_json(text))

    def plot(self, path: str | os.PathLike[str], *, title: str = "", force: bool = False) -> None:
        """Draw the accuracy on each set with its interval into a PNG.

        Raises:
          MissingDependencyError: matplotlib is not installed.
          CgnrtError: the file exists and `force` is off, or it cannot be written.
          ValueError: the name does not end in .png.
        """
        from cgnrt.real.known_sets.plot import plot_bars

        bars = {"right": dict(self.accuracy)}
        if any(rate.count for rate in self.outside.values()):
            bars["outside the nine groups"] = dict(self.outside)
        plot_bars(path, title=title or f"{self._head}\n{self._gap}", bars=bars, force=force)

    def _pair(self) -> tuple[Rate, Rate] | None:
        both = _SAME in self.accuracy and _RAND in self.accuracy
        return (self.accuracy[_SAME], self.accuracy[_RAND]) if both else None

    @property
    def _head(self) -> str:
        total, sets = sum(rate.n for rate in self.accuracy.values()), len(self.accuracy)
        return (
            f"ImageNet-9: {total:,} pictures of {sets} set{'s'[: sets > 1]}, answers of {self.classes:,} classes, "
            f"{100 * self.confidence:g} % intervals"
        )

    @property
    def _gap(self) -> str:
        gap, interval = self.background_gap, self.background_gap_interval
        if gap is None or interval is None:
            return f"BG-gap: unknown without the sets {_SAME} and {_RAND}"
        low, high = interval
        return f"BG-gap ({_SAME} less {_RAND}): {100 * gap:.1f} points ({100 * low:.1f}..{100 * high:.1f})"

    def __str__(self) -> str:
        lines = [f"  {'':<14}{'right':<24}outside the nine groups"] + [
            f"  {name:<14}{rate!s:<24}{self.outside[name]}" for name, rate in self.accuracy.items()
        ]
        worst = _RAND if _RAND in self.by_group else next(iter(self.by_group))
        lines += [self._gap, f"right by group, {worst}:"]
        lines += [f"  {group:<20}{rate}" for group, rate in self.by_group[worst].items()]
        return "\n".join([self._head, *lines])


@dataclass(frozen=True)
class CueRates:
    """What a classifier's answers follow where shape and texture are of two categories.

    Attributes:
      shape: the rate of answers that are the shape's category.
      texture: the rate of answers that are the texture's category.
      shape_bias: of the answers that are one of both, the rate of those that are the shape's.
    """

    shape: Rate
    texture: Rate
    shape_bias: Rate


@dataclass(frozen=True)
class CueConflictAudit(CueRates):
    """A classifier's shape bias on Cue Conflict (Geirhos et al., 2019).

    Attributes:
      classes: the number of classes that the classifier answers with: 1000 or 16.
      confidence: of every interval.
      left_out: the number of pictures in the folder whose shape and texture are of one category.
      by_category: the same rates for the pictures with a shape of each category.
    """

    classes: int
    confidence: float
    left_out: int
    by_category: Mapping[str, CueRates]

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` reads; every rate has its `value`, too (None for n = 0)."""
        return {
            "format": CUE_CONFLICT_FORMAT,
            "format_version": FORMAT_VERSION,
            **{name: getattr(self, name) for name in (*_ABOUT, "left_out")},
            **_plain_cues(self),
            "by_category": {name: _plain_cues(rates) for name, rates in self.by_category.items()},
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return _json(self.to_dict())

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CueConflictAudit:
        """The audit that `to_dict` wrote.

        Raises:
          ValueError: the content is not an audit on Cue Conflict.
        """
        return _parsed(content, CUE_CONFLICT_FORMAT, _cue_conflict)

    @classmethod
    def from_json(cls, text: str) -> CueConflictAudit:
        """The audit that `to_json` wrote.

        Raises:
          ValueError: the content is not an audit on Cue Conflict.
        """
        return cls.from_dict(read_json(text))

    def plot(self, path: str | os.PathLike[str], *, title: str = "", force: bool = False) -> None:
        """Draw the shape bias of each category with its interval, and that of all, into a PNG.

        Raises:
          MissingDependencyError: matplotlib is not installed.
          CgnrtError: the file exists and `force` is off, or it cannot be written.
          ValueError: the name does not end in .png.
        """
        from cgnrt.real.known_sets.plot import plot_bars

        bars = {name: rates.shape_bias for name, rates in self.by_category.items()}
        plot_bars(
            path,
            title=title or self._head,
            bars={"shape bias": {"all": self.shape_bias, **bars}},
            force=force,
        )

    @property
    def _head(self) -> str:
        return (
            f"Cue Conflict: {self.shape.n:,} pictures ({self.left_out:,} without a conflict left out), answers of "
            f"{self.classes:,} classes, {100 * self.confidence:g} % intervals"
        )

    def __str__(self) -> str:
        lines = [
            f"  the answer is the shape's category    {self.shape}",
            f"  the answer is the texture's category  {self.texture}",
            f"shape bias: {self.shape_bias}",
            "shape bias by the shape's category:",
            *(f"  {name:<10}{rates.shape_bias}" for name, rates in self.by_category.items()),
        ]
        return "\n".join([self._head, *lines])


def _difference(one: Rate, other: Rate) -> tuple[float, float]:
    difference = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return difference - below, difference + above


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _plain(rates: Mapping[str, Rate]) -> dict[str, Any]:
    return {name: rate_to_dict(rate) for name, rate in rates.items()}


def _plain_cues(rates: CueRates) -> dict[str, Any]:
    return _plain({name: getattr(rates, name) for name in _CUES})


def _rates(content: Mapping[str, Any]) -> dict[str, Rate]:
    return {name: rate_from_dict(rate) for name, rate in content.items()}


def _parsed(content: Any, name: str, read: Callable[[Mapping[str, Any]], T]) -> T:
    check_format(content, name, FORMAT_VERSION)
    try:
        for field, kind in (("classes", int), ("confidence", float)):
            if type(content[field]) is not kind:
                raise ValueError(f"{field} is {content[field]!r}")
        return read(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"read audit: content is damaged ({error}), expected what to_dict wrote.") from error


def _in9(content: Mapping[str, Any]) -> In9Audit:
    found = In9Audit(
        **{name: content[name] for name in _ABOUT},
        accuracy=_rates(content["accuracy"]),
        outside=_rates(content["outside"]),
        by_group={name: _rates(rates) for name, rates in content["by_group"].items()},
    )
    if not found.accuracy or not set(found.accuracy) == set(found.outside) == set(found.by_group):
        raise ValueError("accuracy, outside and by_group are not of the same sets")
    return found


def _cue_conflict(content: Mapping[str, Any]) -> CueConflictAudit:
    if type(content["left_out"]) is not int:
        raise ValueError(f"left_out is {content['left_out']!r}")
    return CueConflictAudit(
        **{name: content[name] for name in (*_ABOUT, "left_out")},
        **_cue_rates(content),
        by_category={name: CueRates(**_cue_rates(rates)) for name, rates in content["by_category"].items()},
    )


def _cue_rates(content: Mapping[str, Any]) -> dict[str, Any]:
    return _rates({name: content[name] for name in _CUES})
