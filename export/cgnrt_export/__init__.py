"""From trained mechanisms to a plan: checkpoint readers, inference forms, ONNX, parity.

    from cgnrt_export import MechanismModule, export_plan
    report = export_plan("my.plan", {"shape": MechanismModule(...), "texture": ..., "background": ...},
    family="mine")

torch and onnx are imported on first use, so that `cgnrt-export --help` needs neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cgnrt._support.extras import missing_dependency
from cgnrt_export.errors import ExportError

if TYPE_CHECKING:
    from cgnrt_export.api import export_plan
    from cgnrt_export.inference import InferenceForm, count_macs, inference_form
    from cgnrt_export.mechanism import MechanismModule
    from cgnrt_export.readers import read_checkpoint
    from cgnrt_export.report import ParityReport
    from cgnrt_export.saliency import SaliencyReport, export_saliency
    from cgnrt_export.tensorrt_engines import EnginesReport, add_engines

__all__ = [
    "EnginesReport",
    "ExportError",
    "InferenceForm",
    "MechanismModule",
    "ParityReport",
    "SaliencyReport",
    "add_engines",
    "count_macs",
    "export_plan",
    "export_saliency",
    "inference_form",
    "read_checkpoint",
]

_HOMES = {
    "EnginesReport": "tensorrt_engines",
    "InferenceForm": "inference",
    "MechanismModule": "mechanism",
    "ParityReport": "report",
    "SaliencyReport": "saliency",
    "add_engines": "tensorrt_engines",
    "count_macs": "inference",
    "export_plan": "api",
    "export_saliency": "saliency",
    "inference_form": "inference",
    "read_checkpoint": "readers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        raise missing_dependency("export", error, "export") from error
