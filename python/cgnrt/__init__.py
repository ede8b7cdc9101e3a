"""Counterfactual batches from a plan.

    import cgnrt
    gen = cgnrt.Generator("cgn.plan")
    batch = gen.sample(256, seed=0)

Importing this imports neither torch nor any engine library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgnrt.batch import Batch, BFloat16Array
from cgnrt.errors import BackendError, CgnrtError, CheckpointError, MissingDependencyError, PlanError
from cgnrt.generator import Generator
from cgnrt.ops import build_info, compose
from cgnrt.plan import Plan
from cgnrt.request.options import SampleOptions
from cgnrt.request.place import Place
from cgnrt.sampling import Labels, Noise

if TYPE_CHECKING:
    from cgnrt.auditing.result import Audit
    from cgnrt.auditing.run import audit

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
    "Place",
    "Plan",
    "PlanError",
    "SampleOptions",
    "audit",
    "build_info",
    "compose",
]
__version__ = "0.1.0"


if not TYPE_CHECKING:  # with it type checkers would take any name

    def __getattr__(name: str) -> Any:
        """Import audits when they are first used: a training script starts faster without them."""
        if name == "Audit":
            from cgnrt.auditing.result import Audit

            return Audit
        if name == "audit":
            from cgnrt.auditing.run import audit

            return audit
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
