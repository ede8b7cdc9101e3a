"""Makes plans whose mechanisms are banks of pictures: what a plan's networks draw, photos, or both.

    from cgnrt import banks
    banks.from_plan("bank.plan", "cgn.plan", 10_000)

Everything that takes a plan takes the result (`docs/banks.md`).
"""

from __future__ import annotations

from cgnrt.banks.drawing import from_plan

__all__ = ["from_plan"]
