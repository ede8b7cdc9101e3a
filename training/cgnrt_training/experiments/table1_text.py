"""Table 1 as text: what was measured with each loss off, beside others' figures."""

from __future__ import annotations

from collections.abc import Mapping

from ..natural.config import GROUPS
from . import paper
from .tables import markdown

ROWS = ("none", *GROUPS)  # which losses are off
TITLES = {
    "none": "all losses",
    "shape": "without shape",
    "texture": "without texture",
    "background": "without background",
    "reconstruction": "without reconstruction",
    "cgan": "the cGAN (upper bound)",
}
_HEAD = [
    "losses",
    "right class",
    "Inception score",
    "paper",
    "Re-CGN",
    "mean mask",
    "paper",
    "Re-CGN",
    "entropy of masks, bits",
]


def table(results: Mapping[str, Mapping[str, float | None]]) -> str:
    """The table as Markdown."""
    lines = [_HEAD]
    for row in (*ROWS, "cgan"):
        if row not in results:
            continue
        found, (score, mean, spread) = results[row], paper.TABLE1[row]
        again = paper.RE_CGN_TABLE1.get(row)
        lines.append(
            [
                TITLES[row],
                _percent(found.get("accuracy")),
                _number(found["inception_score"], 2),
                f"{score}",
                "" if again is None else f"{again[0]}",
                _interval(found["mu_mask"], found["mu_mask_spread"]),
                "" if mean is None else f"{mean} ± {spread}",
                "" if again is None else f"{again[1]}",
                _number(found["entropy"], 3),
            ]
        )
    return markdown(lines)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _interval(value: float | None, spread: float | None) -> str:
    return "" if value is None else f"{value:.2f} ± {spread:.2f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"
