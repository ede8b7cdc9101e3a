"""The errors of the exporter."""

from __future__ import annotations

from cgnrt.errors import CgnrtError


class ExportError(CgnrtError):
    """A module cannot be written as ONNX, or what was written does not compute what the module computes."""
