"""The result of an audit: as an object, as JSON, as a table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from cgnrt.auditing.plain import check_format, rate_from_dict, rate_to_dict, read_json
from cgnrt.auditing.rates import ByMechanism, Rate
from cgnrt.request.place import Place
from cgnrt.sampling import MECHANISMS

FORMAT = "cgnrt-audit"
FORMAT_VERSION = 1
_SHOWN_CLASSES = 10  # of the shape, in the table
_DISTINCT = ", texture and background of different classes"


@dataclass(frozen=True)
class Masks:
    """How many of a plan's masks show their label, as a classifier of masks says.

    Attributes:
      shown: the rate of masks of the counterfactuals that the classifier names by the shape's label.
      by_class: the same for each class of the shape.
      follows: `follows.shape` of the counterfactuals with such a mask alone: a wrong answer there is the audited
        classifier's own.
    """

    shown: Rate
    by_class: tuple[Rate, ...]
    follows: Rate


@dataclass(frozen=True)
class Audit:
    """Which mechanisms a classifier's answers follow on a plan's images.

    Attributes:
      plan: the plan's file name.
      digest: the plan's digest.
      n: the number of counterfactuals, of interventions on each mechanism, and of images whose labels agree.
      seed: of the stream.
      confidence: of every interval.
      classes: names of the shape's classes; the answers are indices of these.
      follows: the rate of counterfactuals (independent labels) whose answer is this mechanism's label. For `shape`
        this is the accuracy. Labels are equal by chance, so all three rates can be above 0: an answer that ignores a
        mechanism still equals its label with probability 1/k (`chance`).
      changes: the rate of interventions (one mechanism's label is replaced; its noise and the other mechanisms stay)
        that change the answer.
      moves: the rate of the same interventions whose answer becomes the new label.
      shared: the rate of images whose three labels agree, as in a biased training set, and whose answer is that label.
      by_class: `follows.shape` for each class of the shape.
      distinct: texture and background of the counterfactuals and interventions never have classes of one name.
      place: what the places of the objects are drawn from; None where the plan draws them.
      masks: how many masks show their label; None where no classifier of masks was given.
      classifier: what the classifier is called, for titles. It is not compared.
    """

    plan: str
    digest: str
    n: int
    seed: int
    confidence: float
    classes: tuple[str, ...]
    follows: ByMechanism
    changes: ByMechanism
    moves: ByMechanism
    shared: Rate
    by_class: tuple[Rate, ...]
    distinct: bool = False
    place: Place | None = None
    masks: Masks | None = None
    classifier: str = field(default="", compare=False)

    @property
    def chance(self) -> float:
        """The rate at which an answer equals a label that it does not depend on: 1 / number of classes."""
        return 1 / len(self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` reads; every rate has its `value`, too (None for n = 0)."""
        names = ("plan", "digest", "n", "seed", "confidence", "distinct", "classifier")
        plain = {name: getattr(self, name) for name in names}
        rates = {
            name: {mechanism: rate_to_dict(rate) for mechanism, rate in getattr(self, name)._asdict().items()}
            for name in ("follows", "changes", "moves")
        }
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **plain,
            **({} if self.place is None else {"place": self.place.to_dict()}),
            "chance": self.chance,
            **rates,
            "shared": rate_to_dict(self.shared),
            "classes": list(self.classes),
            "by_class": [rate_to_dict(rate) for rate in self.by_class],
            "masks": None if self.masks is None else _masks_to_dict(self.masks),
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Audit:
        """The audit that `to_dict` wrote.

        Raises:
          ValueError: the content is not an audit.
        """
        return _parse(content)

    @classmethod
    def from_json(cls, text: str) -> Audit:
        """The audit that `to_json` wrote.

        Raises:
          ValueError: the content is not an audit.
        """
        return _parse(read_json(text))

    def plot(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Draw the rates as bars with their intervals into a PNG.

        Raises:
          MissingDependencyError: matplotlib is not installed.
          CgnrtError: the file exists and `force` is off, or it cannot be written.
          ValueError: the name does not end in .png.
        """
        from cgnrt.auditing.plot import plot_rates

        plot_rates(
            path,
            title=f"{self._subject()}, {self.n:,} of each, {100 * self.confidence:g} % intervals",
            bars={
                "the answer follows its label": self.follows,
                "changes when it alone changes": self.changes,
                "moves to its new label": self.moves,
            },
            chance=self.chance,
            shared=self.shared,
            force=force,
        )

    def __str__(self) -> str:
        placed = "" if self.place is None else f", objects placed by {self.place}"
        head = (
            f"{self._subject()} ({self.digest[:12]}): {self.n:,} counterfactuals and interventions"
            f"{_DISTINCT if self.distinct else ''}{placed}, seed {self.seed}, {100 * self.confidence:g} % intervals"
        )
        rows = [("", "answer follows it", "changes with it alone", "... to its new label")]
        rows += [
            (
                name,
                str(getattr(self.follows, name)),
                str(getattr(self.changes, name)),
                str(getattr(self.moves, name)),
            )
            for name in MECHANISMS
        ]
        rows += [("chance", f"{100 * self.chance:.1f} %", "", "")]
        table = [f"  {a:<12}{b:<24}{c:<24}{d}".rstrip() for a, b, c, d in rows]
        lines = [head, *table, f"where all labels agree, accuracy is {self.shared}"]
        lines += self._class_lines("shape followed", self.by_class)
        if self.masks is not None:
            lines += [
                f"masks that show their label: {self.masks.shown}; "
                f"the answer follows the shape of these in {self.masks.follows}"
            ]
            lines += self._class_lines("masks that show their label", self.masks.by_class)
        return "\n".join(lines)

    def _subject(self) -> str:
        return f"{self.classifier} on {self.plan}" if self.classifier else self.plan

    def _class_lines(self, title: str, rates: tuple[Rate, ...]) -> list[str]:
        """A line for each class in order; if there are many, those with the lowest rates that were seen."""
        pairs = list(zip(self.classes, rates, strict=True))
        shown = "each class"
        if len(pairs) > _SHOWN_CLASSES:
            seen = (pair for pair in pairs if pair[1].n)
            pairs = sorted(seen, key=lambda pair: pair[1].value)[:_SHOWN_CLASSES]
            shown = f"lowest {len(pairs)} of {len(self.classes)}"
        return [f"{title}, {shown}:", *(f"  {name}: {rate}" for name, rate in pairs)]


def _masks_to_dict(masks: Masks) -> dict[str, Any]:
    return {
        "shown": rate_to_dict(masks.shown),
        "by_class": [rate_to_dict(rate) for rate in masks.by_class],
        "follows": rate_to_dict(masks.follows),
    }


def _parse(content: Any) -> Audit:
    check_format(content, FORMAT, FORMAT_VERSION)
    try:
        found = {field.name: content[field.name] for field in fields(Audit) if field.name in content}
        required = {field.name for field in fields(Audit)} - {"distinct", "place", "masks", "classifier"}
        if missing := sorted(required - found.keys()):
            raise ValueError(f"{missing[0]!r} is missing")
        for name in ("follows", "changes", "moves"):
            found[name] = ByMechanism(*(rate_from_dict(found[name][mechanism]) for mechanism in MECHANISMS))
        found["shared"] = rate_from_dict(found["shared"])
        found["by_class"] = tuple(rate_from_dict(rate) for rate in found["by_class"])
        found["classes"] = tuple(found["classes"])
        plain = (("plan", str), ("digest", str), ("n", int), ("seed", int), ("confidence", float))
        for name, kind in (*plain, ("distinct", bool), ("classifier", str)):
            if name in found and type(found[name]) is not kind:
                raise ValueError(f"{name} is {found[name]!r}")
        if not found["classes"] or not all(isinstance(name, str) for name in found["classes"]):
            raise ValueError("classes are not names")
        if len(found["classes"]) != len(found["by_class"]):
            raise ValueError("by_class is not one rate for each class")
        if found.get("place") is not None:
            found["place"] = Place.from_dict(found["place"])
        if found.get("masks") is not None:
            found["masks"] = _masks(found["masks"], len(found["classes"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"read audit: content is damaged ({error}), expected what to_dict wrote.") from error
    return Audit(**found)


def _masks(content: Mapping[str, Any], k: int) -> Masks:
    by_class = tuple(rate_from_dict(rate) for rate in content["by_class"])
    if len(by_class) != k:
        raise ValueError("by_class of the masks is not one rate for each class")
    return Masks(rate_from_dict(content["shown"]), by_class, rate_from_dict(content["follows"]))
