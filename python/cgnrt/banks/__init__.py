"""Makes plans whose mechanisms are banks of pictures: what a plan's networks draw, photos, or both.

    from cgnrt import banks
    banks.from_plan("bank.plan", "cgn.plan", 10_000)  # what a plan's networks draw
    banks.from_folders("photos.plan", "photos/", saliency="u2netp.plan")
    banks.from_arrays("arrays.plan", photos, masks, labels, classes=["cat", "dog"])
    banks.join("mixed.plan", shape="bank.plan", texture="cgn.plan", background="bank.plan")  # plans of one size

Everything that takes a plan takes the result (`docs/banks.md`).
"""

from __future__ import annotations

from cgnrt.banks.arrays import from_arrays
from cgnrt.banks.drawing import from_plan
from cgnrt.banks.entries import TEXTURES, Recipe
from cgnrt.banks.joining import join
from cgnrt.banks.photos import PhotoBank, from_folders

__all__ = ["TEXTURES", "PhotoBank", "Recipe", "from_arrays", "from_folders", "from_plan", "join"]
