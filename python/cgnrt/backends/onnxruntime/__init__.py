"""ONNX Runtime: fp32 on every CPU that it has wheels for, and NVIDIA GPUs through its CUDA or TensorRT provider."""

from __future__ import annotations

from cgnrt.backends.onnxruntime.backend import OnnxRuntimeBackend

__all__ = ["OnnxRuntimeBackend"]
