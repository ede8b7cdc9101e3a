"""The generator of BigGAN-deep (Brock et al., 2019): the backbone of each mechanism of the ImageNet CGN.

State-dict keys are those of `pytorch-pretrained-biggan`, through which its weights are published and which it equals
up to rounding. What differs: truncation is a tensor, a value for each sample; the class embedding is passed in; and a
batch norm is one multiplication and addition, so that its small linear layers can be merged.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .spectral import SpectralConv2d, SpectralLinear
from .statistics import Rows, grid_rows, look_up

START = 4  # pixels: where the generator begins
_GAIN = 16  # times channel_width: the channels there
_REDUCTION = 4  # a block's inner convolutions have as much fewer channels

Blocks = tuple[tuple[bool, int, int], ...]  # up-sample?, channels in and out in multiples of channel_width


def _blocks(*widths: int) -> Blocks:
    """Two blocks from each width to the next: the first keeps size and channels, the second doubles the size."""
    pairs = itertools.pairwise(widths)
    return tuple(block for a, b in pairs for block in ((False, a, a), (True, a, b)))


BLOCKS: Mapping[int, Blocks] = {  # 32 and 64 px are ours, the others are published
    32: ((False, 16, 16), (True, 16, 8), (False, 8, 4), (True, 4, 2), (False, 2, 2), (True, 2, 1)),
    64: _blocks(16, 8, 4, 2, 1),
    128: _blocks(16, 16, 8, 4, 2, 1),
    256: _blocks(16, 16, 8, 8, 4, 2, 1),
    512: _blocks(16, 16, 8, 8, 4, 2, 1, 1),
}
# The block before which self-attention stands, where it is not the default: at 8 and 16 px.
_ATTENTION = {32: 3, 64: 4}


@dataclass(frozen=True)
class BigGANConfig:
    """The size of a generator; the defaults are those of BigGAN-deep-256.

    Attributes:
      blocks: see `Blocks`.
      channel_width: the channels of the last block.
      num_classes, z_dim: rows and columns of the class embedding; z_dim is the length of the noise too.
      attention: the block before which self-attention stands.
      eps: of the batch norms.
      n_stats: truncations that batch norms have statistics for: 0, 1 / (n_stats - 1), ... 1.
      class_names: a name for each class; empty where its file names none.
    """

    blocks: Blocks = BLOCKS[256]
    channel_width: int = 128
    num_classes: int = 1000
    z_dim: int = 128
    attention: int = 8
    eps: float = 1e-4
    n_stats: int = 51
    class_names: tuple[str, ...] = ()

    @property
    def resolution(self) -> int:
        """Height and width of the pictures."""
        return START << sum(up for up, _, _ in self.blocks)

    @classmethod
    def of_resolution(cls, resolution: int, **sizes: Any) -> BigGANConfig:
        """The published generator of 128, 256 or 512 px, or ours of 32 or 64 px.

        Raises:
          ValueError: there is none of this resolution.
        """
        if resolution not in BLOCKS:
            raise ValueError(
                f"build BigGAN-deep: resolution is {resolution}, expected {', '.join(map(str, BLOCKS))}."
            )
        attention = _ATTENTION.get(resolution, cls.attention)
        return replace(cls(blocks=BLOCKS[resolution], attention=attention), **sizes)


class BatchNorm(nn.Module):
    """Batch norm with stored statistics for each truncation; scale and shift from noise and class, or learned.

    In training mode it takes the statistics of the batch, and the stored ones stay as they are: `calibrate` sets them.

    Args:
      channels: c.
      condition: length of noise and class embedding side by side; None for learned scale and shift.
    """

    running_means: Tensor
    running_vars: Tensor

    def __init__(self, channels: int, condition: int | None, *, eps: float, n_stats: int) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("running_means", torch.zeros(n_stats, channels))
        self.register_buffer("running_vars", torch.ones(n_stats, channels))
        self.conditional = condition is not None
        if condition is not None:
            self.scale = SpectralLinear(condition, channels, bias=False, eps=eps)
            self.offset = SpectralLinear(condition, channels, bias=False, eps=eps)
        else:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, rows: Rows, condition: Tensor) -> Tensor:
        """(n, c, h, w) -> the same."""
        if self.training:
            x = F.batch_norm(x, None, None, training=True, eps=self.eps)
            gain = 1 + self.scale(condition) if self.conditional else self.weight[None]
            shift = self.offset(condition) if self.conditional else self.bias[None]
            return torch.addcmul(shift[:, :, None, None], x, gain[:, :, None, None])
        mean, variance = rows.blend(self.running_means), rows.blend(self.running_vars)
        gain = 1 + self.scale(condition) if self.conditional else self.weight
        scale = gain * torch.rsqrt(variance + self.eps)
        shift = (self.offset(condition) if self.conditional else self.bias) - mean * scale
        return x * scale[:, :, None, None] + shift[:, :, None, None]


class GenBlock(nn.Module):
    """A residual block: 1x1, 3x3, 3x3, 1x1 convolutions, each behind batch norm and ReLU."""

    def __init__(
        self, c_in: int, c_out: int, condition: int, *, up_sample: bool, eps: float, n_stats: int
    ) -> None:
        super().__init__()
        inner = c_in // _REDUCTION
        self.up_sample = up_sample
        self.c_skip = c_in if c_in == c_out else c_in // 2

        def norm(channels: int) -> BatchNorm:
            return BatchNorm(channels, condition, eps=eps, n_stats=n_stats)

        self.bn_0, self.conv_0 = norm(c_in), SpectralConv2d(c_in, inner, 1, eps=eps)
        self.bn_1, self.conv_1 = norm(inner), SpectralConv2d(inner, inner, 3, eps=eps)
        self.bn_2, self.conv_2 = norm(inner), SpectralConv2d(inner, inner, 3, eps=eps)
        self.bn_3, self.conv_3 = norm(inner), SpectralConv2d(inner, c_out, 1, eps=eps)

    def forward(self, x: Tensor, rows: Rows, condition: Tensor) -> Tensor:
        """(n, c_in, h, w) -> (n, c_out, h, w) or twice the height and width."""
        y = self.conv_0(F.relu(self.bn_0(x, rows, condition)))
        y = F.relu(self.bn_1(y, rows, condition))
        if self.up_sample:
            y = F.interpolate(y, scale_factor=2, mode="nearest")
        y = self.conv_1(y)
        y = self.conv_2(F.relu(self.bn_2(y, rows, condition)))
        y = self.conv_3(F.relu(self.bn_3(y, rows, condition)))
        skip = x[:, : self.c_skip]
        if self.up_sample:
            skip = F.interpolate(skip, scale_factor=2, mode="nearest")
        out: Tensor = y + skip
        return out


class SelfAttention(nn.Module):
    """Self-attention (Zhang et al., 2019) with keys and values at half the height and width."""

    def __init__(self, channels: int, *, eps: float) -> None:
        super().__init__()

        def conv(c_in: int, c_out: int) -> SpectralConv2d:
            return SpectralConv2d(c_in, c_out, 1, bias=False, eps=eps)

        self.snconv1x1_theta = conv(channels, channels // 8)
        self.snconv1x1_phi = conv(channels, channels // 8)
        self.snconv1x1_g = conv(channels, channels // 2)
        self.snconv1x1_o_conv = conv(channels // 2, channels)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same."""
        theta = self.snconv1x1_theta(x).flatten(2)
        phi = F.max_pool2d(self.snconv1x1_phi(x), 2).flatten(2)
        g = F.max_pool2d(self.snconv1x1_g(x), 2).flatten(2)
        attention = torch.softmax(torch.bmm(theta.transpose(1, 2), phi), dim=-1)
        mixed = torch.bmm(g, attention.transpose(1, 2)).reshape(-1, g.shape[1], *x.shape[2:])
        out: Tensor = x + self.gamma * self.snconv1x1_o_conv(mixed)
        return out


class Generator(nn.Module):
    """From noise and class embedding side by side to a picture."""

    grid: Tensor

    def __init__(self, config: BigGANConfig) -> None:
        super().__init__()
        width, condition, eps = config.channel_width, 2 * config.z_dim, config.eps
        self.c_start = _GAIN * width
        self.gen_z = SpectralLinear(condition, START * START * self.c_start, eps=eps)
        self.layers = nn.ModuleList()
        for position, (up_sample, c_in, c_out) in enumerate(config.blocks):
            if position == config.attention:
                self.layers.append(SelfAttention(c_in * width, eps=eps))
            self.layers.append(
                GenBlock(
                    c_in * width,
                    c_out * width,
                    condition,
                    up_sample=up_sample,
                    eps=eps,
                    n_stats=config.n_stats,
                )
            )
        self.bn = BatchNorm(width, None, eps=eps, n_stats=config.n_stats)
        self.conv_to_rgb = SpectralConv2d(width, width, 3, eps=eps)
        self.register_buffer("grid", grid_rows(config.n_stats), persistent=False)

    def start(self, condition: Tensor) -> Tensor:
        """(n, 2z) -> (n, c, 4, 4)."""
        z: Tensor = self.gen_z(condition).unflatten(1, (START, START, self.c_start))
        return z.permute(0, 3, 1, 2).contiguous()

    def forward(self, condition: Tensor, truncation: Tensor) -> Tensor:
        """(n, 2z), (n, 1) -> (n, 3, h, w) in [-1, 1]."""
        return self.draw(condition, look_up(truncation, self.grid))

    def draw(self, condition: Tensor, rows: Rows) -> Tensor:
        """The same with given rows of the batch norms' statistics."""
        x = self.start(condition)
        for layer in self.layers:
            x = layer(x, rows, condition) if isinstance(layer, GenBlock) else layer(x)
        x = F.relu(self.bn(x, rows, condition))
        if not self.training:
            return torch.tanh(self.conv_to_rgb(x)[:, :3])  # the export cuts the convolution
        weight, bias = self.conv_to_rgb.weight()[:3], self.conv_to_rgb.bias  # the other rows are never seen
        return torch.tanh(F.conv2d(x, weight, None if bias is None else bias[:3], padding=1))


class BigGAN(nn.Module):
    """BigGAN-deep: class embedding and generator.

    Attributes:
      embeddings: its weight (z, classes) holds a column for each class; `embedding_table` has them as rows.
    """

    def __init__(self, config: BigGANConfig | None = None) -> None:
        super().__init__()
        self.config = config or BigGANConfig()
        self.embeddings = nn.Linear(self.config.num_classes, self.config.z_dim, bias=False)
        self.generator = Generator(self.config)

    @property
    def embedding_table(self) -> Tensor:
        """(classes, z): a row for each class, to be passed to `forward`."""
        return self.embeddings.weight.t()

    def forward(self, noise: Tensor, class_embedding: Tensor, truncation: Tensor) -> Tensor:
        """Draw pictures.

        Args:
          noise: (n, z), standard normal truncated to [-2, 2], already multiplied by the truncation.
          class_embedding: (n, z), rows of `embedding_table`, or between them.
          truncation: (n, 1) in (0, 1]: which statistics the batch norms take, for each sample.
        Returns:
          (n, 3, h, w) in [-1, 1].
        """
        picture: Tensor = self.generator(torch.cat([noise, class_embedding], dim=1), truncation)
        return picture
