"""Counterfactual batches from a plan.

    import cgnrt
    gen = cgnrt.Generator("cgn.plan")
    batch = gen.sample(256, seed=0)

Importing this imports neither torch nor any engine library.
"""

from __future__ import annotations

from cgnrt.auditing.result import Audit
from cgnrt.auditing.run import audit
from cgnrt.batch import Batch, BFloat16Array
from cgnrt.errors import BackendError, CgnrtError, CheckpointError, MissingDependencyError, PlanError
from cgnrt.generator import Generator
from cgnrt.ops import build_info, compose
from cgnrt.plan import Plan
from cgnrt.request.options import SampleOptions
from cgnrt.sampling import Labels, Noise

__all__ = [
    "Audit",
    "BFloat16Array",
    "BackendError",
    "Batch",
    "CgnrtError",
    "CheckpointError",
    "Generator",
    "Labels",
    "MissingDependencyError",
    "Noise",
    "Plan",
    "PlanError",
    "SampleOptions",
    "audit",
    "build_info",
    "compose",
]
__version__ = "0.1.0"
