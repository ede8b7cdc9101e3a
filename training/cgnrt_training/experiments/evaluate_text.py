"""How good plans' counterfactuals are, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cgnrt.sampling import MECHANISMS

from .tables import markdown

ABOUT = (
    "After Monteiro et al. (2023) and the benchmark of Melistas et al. (2024), by `cgnrt-train evaluate`: one label at "
    "a time is replaced, noise and the other labels stay. *Shape*, *texture*, *background*: how often a classifier "
    "that never saw the plan sees the label that was set (in bold), and the others as they were. The row *nothing* "
    "has the images themselves, which bounds it; a classifier that sees nothing is right by chance, which is 10 % of "
    "ten classes. *Minimality*: is a counterfactual nearer to its image than other images with the new label are? 0 is "
    "best, about 0.5 is an image drawn at random."
)


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Plans' measures as Markdown: plan -> what `evaluate.evaluate` returns."""
    lines = [["plan", "replaced", *(f"{name}, %" for name in MECHANISMS), "minimality"]]
    for plan, found in results.items():
        lines.append([plan, "nothing", *(_percent(found["before"][name]) for name in MECHANISMS), ""])
        for replaced in MECHANISMS:
            seen = {name: _percent(value) for name, value in found["effectiveness"][replaced].items()}
            seen[replaced] = f"**{seen[replaced]}**"
            lines.append(
                ["", replaced, *(seen[name] for name in MECHANISMS), f"{found['minimality'][replaced]:.2f}"]
            )
    return markdown(lines)


def composition(results: Mapping[str, Mapping[str, Any]]) -> str:
    """What there is to say of composition, with the largest difference that was found."""
    worst = max(found["composition"] for found in results.values())
    return (
        f"*Composition*: an image's own noise and labels give it again; the largest difference of a pixel is {worst:g}."
        " It is 0 by construction, for a generated image's noise is known. Photos have no noise, and no plan has an "
        "encoder that would infer one: composition of photos is not measured."
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
