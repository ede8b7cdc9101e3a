"""Counterfactuals of real photos: exchange their objects, textures and backgrounds.

    from cgnrt import real
    masks = real.Saliency("u2netp.plan")(photos)
    batch = real.counterfactuals(photos, masks, seed=0)

It is the mixed-background augmentation (Table 4, Mixed-Rand; Xiao et al., 2020), and the same for textures (App. C.2),
as a stream: sample i is a function of photos, masks, seed and i.
"""

from __future__ import annotations

from cgnrt.real.fill import fill_object
from cgnrt.real.known_sets.results import CueConflictAudit, CueRates, In9Audit
from cgnrt.real.known_sets.run import cue_conflict, in9
from cgnrt.real.photo_audit.rates import Example, PhotoRates
from cgnrt.real.photo_audit.result import PhotoAudit
from cgnrt.real.photo_audit.run import audit
from cgnrt.real.photos import usable
from cgnrt.real.saliency import Saliency
from cgnrt.real.swap import Counterfactuals, Exchange, counterfactuals

__all__ = [
    "Counterfactuals",
    "CueConflictAudit",
    "CueRates",
    "Example",
    "Exchange",
    "In9Audit",
    "PhotoAudit",
    "PhotoRates",
    "Saliency",
    "audit",
    "counterfactuals",
    "cue_conflict",
    "fill_object",
    "in9",
    "usable",
]
