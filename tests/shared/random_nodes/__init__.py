"""Random nodes of every operator, for a comparison of the plan reader's size rules with what engines make.

Most attributes and parameters are good ones, some are negative, out of range, too many, too few or missing: a rule may
refuse them, but must not accept them with another result than an engine's.
"""

from __future__ import annotations

from random_nodes import elementwise, layers, layout, values, windows  # noqa: F401 (they fill the table)
from random_nodes.draws import GENERATORS, Case, Data, Draw

__all__ = ["GENERATORS", "Case", "Data", "draw_case"]


def draw_case(op: str, seed: int) -> Case:
    """A random node of this operator; the same seed gives the same node."""
    draw = Draw(seed)
    case = GENERATORS[op](draw)
    case.opset = draw.opset
    return case
