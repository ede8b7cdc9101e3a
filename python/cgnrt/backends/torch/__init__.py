"""PyTorch: every graph of a plan on every `torch.device`, without an engine library beside it."""

from __future__ import annotations

from cgnrt.backends.torch.backend import TorchBackend

__all__ = ["TorchBackend"]
