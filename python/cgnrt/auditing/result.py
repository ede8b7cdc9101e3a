"""The result of an audit: as an object, as JSON, as a table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from cgnrt.auditing.rates import ByMechanism, Rate
from cgnrt.sampling import MECHANISMS

FORMAT = "cgnrt-audit"
FORMAT_VERSION = 1
_SHOWN_CLASSES = 10  # of the shape, in the table


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

    @property
    def chance(self) -> float:
        """The rate at which an answer equals a label that it does not depend on: 1 / number of classes."""
        return 1 / len(self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` reads; every rate has its `value`, too (None for n = 0)."""
        plain = {name: getattr(self, name) for name in ("plan", "digest", "n", "seed", "confidence")}
        rates = {
            name: {
                mechanism: _rate_to_dict(rate) for mechanism, rate in getattr(self, name)._asdict().items()
            }
            for name in ("follows", "changes", "moves")
        }
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **plain,
            "chance": self.chance,
            **rates,
            "shared": _rate_to_dict(self.shared),
            "classes": list(self.classes),
            "by_class": [_rate_to_dict(rate) for rate in self.by_class],
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
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"read audit: content is not JSON ({error}), expected what to_json wrote."
            ) from error
        return _parse(content)

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
            title=f"{self.plan}, {self.n:,} of each, {100 * self.confidence:g} % intervals",
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
        head = (
            f"{self.plan} ({self.digest[:12]}): {self.n:,} counterfactuals and interventions, seed {self.seed}, "
            f"{100 * self.confidence:g} % intervals"
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
        by_class = [f"  {name}: {rate}" for name, rate in self._worst_classes()]
        shown = (
            f"lowest {len(by_class)} of {len(self.classes)}"
            if len(by_class) < len(self.classes)
            else "each class"
        )
        return "\n".join(
            [
                head,
                *table,
                f"where all labels agree, accuracy is {self.shared}",
                f"shape followed, {shown}:",
                *by_class,
            ]
        )

    def _worst_classes(self) -> list[tuple[str, Rate]]:
        """The classes in order; if there are many, those with the lowest rates, without classes that were not seen."""
        pairs = list(zip(self.classes, self.by_class, strict=True))
        if len(pairs) <= _SHOWN_CLASSES:
            return pairs
        return sorted((pair for pair in pairs if pair[1].n), key=lambda pair: pair[1].value)[:_SHOWN_CLASSES]


def _rate_to_dict(rate: Rate) -> dict[str, Any]:
    return {**asdict(rate), "value": rate.value if rate.n else None}


def _parse(content: Any) -> Audit:
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise ValueError(f"read audit: format is not '{FORMAT}', expected what to_dict wrote.")
    if content.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"read audit: format version is {content.get('format_version')!r}, expected {FORMAT_VERSION}. "
            "Upgrade cgnrt."
        )
    try:
        found = {field.name: content[field.name] for field in fields(Audit)}
        for name in ("follows", "changes", "moves"):
            found[name] = ByMechanism(*(_rate(found[name][mechanism]) for mechanism in MECHANISMS))
        found["shared"] = _rate(found["shared"])
        found["by_class"] = tuple(_rate(rate) for rate in found["by_class"])
        found["classes"] = tuple(found["classes"])
        plain = (("plan", str), ("digest", str), ("n", int), ("seed", int), ("confidence", float))
        for name, kind in plain:
            if type(found[name]) is not kind:
                raise ValueError(f"{name} is {found[name]!r}")
        if not found["classes"] or not all(isinstance(name, str) for name in found["classes"]):
            raise ValueError("classes are not names")
        if len(found["classes"]) != len(found["by_class"]):
            raise ValueError("by_class is not one rate for each class")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"read audit: content is damaged ({error}), expected what to_dict wrote.") from error
    return Audit(**found)


def _rate(content: Mapping[str, Any]) -> Rate:
    rate = Rate(*(content[field.name] for field in fields(Rate)))
    whole = type(rate.count) is int and type(rate.n) is int and 0 <= rate.count <= rate.n
    if not whole or not 0 <= rate.low <= rate.high <= 1:
        raise ValueError(f"a rate is {dict(content)!r}")
    return rate
