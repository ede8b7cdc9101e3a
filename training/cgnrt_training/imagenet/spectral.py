"""Layers under spectral norm (Miyato et al., 2018) in the form in which BigGAN's weights are published.

A layer keeps `weight_orig` and the two singular vectors `weight_u`, `weight_v`, under these names, as
`torch.nn.utils.spectral_norm` does; unlike that hook it is a plain function of its tensors in eval mode, so that it
can be traced, and its weight be computed once.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FIRST_ITERATIONS = 3  # so that a new layer's weight has about the size that it says, not that of chance


class SpectralNorm(nn.Module):
    """A weight divided by its largest singular value, which power iteration tracks while training."""

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, shape: tuple[int, ...], *, bias: bool, eps: float) -> None:
        super().__init__()
        rows, columns = shape[0], math.prod(shape[1:])
        self.eps = eps
        self.weight_orig = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(rows)) if bias else None
        nn.init.normal_(self.weight_orig, std=columns**-0.5)
        self.register_buffer("weight_u", F.normalize(torch.randn(rows), dim=0, eps=eps))
        self.register_buffer("weight_v", torch.zeros(columns))
        for _ in range(_FIRST_ITERATIONS):
            self.iterate()

    def weight(self) -> Tensor:
        """The weight that the layer computes with; one power iteration before it in training mode."""
        u, v = self.weight_u, self.weight_v
        if self.training:
            self.iterate()
            u, v = u.clone(), v.clone()  # the next iteration may come before the backward pass
        if torch.is_autocast_enabled(u.device.type):  # a singular value in half precision is off by a percent
            with torch.autocast(u.device.type, enabled=False):
                return self._normalised(u, v)
        return self._normalised(u, v)

    def _normalised(self, u: Tensor, v: Tensor) -> Tensor:
        return self.weight_orig / torch.dot(u, torch.mv(self.weight_orig.flatten(1), v))

    @torch.no_grad()
    def iterate(self) -> None:
        """One step of power iteration, towards the singular vectors of the present weight."""
        matrix = self.weight_orig.flatten(1)
        self.weight_v.copy_(F.normalize(torch.mv(matrix.t(), self.weight_u), dim=0, eps=self.eps))
        self.weight_u.copy_(F.normalize(torch.mv(matrix, self.weight_v), dim=0, eps=self.eps))


class SpectralLinear(SpectralNorm):
    """`nn.Linear` under spectral norm: (n, features_in) -> (n, features_out)."""

    def __init__(self, features_in: int, features_out: int, *, bias: bool = True, eps: float) -> None:
        super().__init__((features_out, features_in), bias=bias, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight(), self.bias)


class SpectralConv2d(SpectralNorm):
    """`nn.Conv2d` under spectral norm: (n, c_in, h, w) -> (n, c_out, h / stride, w / stride).

    Args:
      kernel: odd at stride 1, where it keeps the size; 4 at stride 2.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1, *, bias: bool = True, eps: float
    ) -> None:
        super().__init__((c_out, c_in, kernel, kernel), bias=bias, eps=eps)
        self.stride, self.padding = stride, (kernel - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight(), self.bias, self.stride, self.padding)


class SpectralEmbedding(SpectralNorm):
    """`nn.Embedding` under spectral norm: (n,) int64 below `rows` -> (n, columns)."""

    def __init__(self, rows: int, columns: int, *, eps: float) -> None:
        super().__init__((rows, columns), bias=False, eps=eps)

    def forward(self, labels: Tensor) -> Tensor:
        return F.embedding(labels, self.weight())


def power_iterate(model: nn.Module) -> None:
    """One step of power iteration in every layer of a model under spectral norm, for models in evaluation mode."""
    for module in model.modules():
        if isinstance(module, SpectralNorm):
            module.iterate()
