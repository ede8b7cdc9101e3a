"""Counterfactuals of real photos: exchange their objects, textures and backgrounds.

    from cgnrt import real
    masks = real.Saliency("u2netp.plan")(photos)
    batch = real.counterfactuals(photos, masks, seed=0)

It is the mixed-background augmentation (Table 4, Mixed-Rand; Xiao et al., 2020), and the same for textures (App. C.2),
as a stream: sample i is a function of photos, masks, seed and i.
"""

from __future__ import annotations

from cgnrt.real.fill import fill_object
from cgnrt.real.photo_audit.rates import Example, PhotoRates
from cgnrt.real.photo_audit.result import PhotoAudit
from cgnrt.real.photo_audit.run import audit
from cgnrt.real.photos import usable
from cgnrt.real.saliency import Saliency
from cgnrt.real.swap import Counterfactuals, Exchange, counterfactuals

__all__ = [
    "Counterfactuals",
    "Example",
    "Exchange",
    "PhotoAudit",
    "PhotoRates",
    "Saliency",
    "audit",
    "counterfactuals",
    "fill_object",
    "usable",
]
