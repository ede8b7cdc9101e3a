"""TensorRT, or TensorRT for RTX: engines built for one card from a plan's ONNX graphs. See docs/tensorrt.md."""

from __future__ import annotations

from cgnrt.backends.tensorrt.backend import TensorRtBackend

__all__ = ["TensorRtBackend"]
