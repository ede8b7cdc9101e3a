"""The CGN for the MNIST variants (Sec. 3, App. B).

Module names follow the authors' code, so that their published checkpoints load with `strict=True`.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MASK_RANGE = (1e-4, 0.9999)  # the binary entropy of Eq. 3 needs masks away from 0 and 1

# What lies beyond a texture's border for a convolution: zeros, as in the authors' code, or the opposite side. The
# texture shuffle rolls pictures on a torus, and only with the latter is a texture seamless there.
TexturePadding = Literal["zeros", "circular"]


def initialise(module: nn.Module, kind: Literal["orthogonal", "normal"], gain: float) -> None:
    """Set the weights of every linear, convolution and batch norm layer in place; biases become 0.

    Args:
      kind: "orthogonal" with `gain`, or "normal" with standard deviation `gain`. Batch norm scales are
        drawn from N(1, gain) either way. Embeddings keep torch's N(0, 1).
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            if kind == "orthogonal":
                nn.init.orthogonal_(layer.weight, gain=gain)
            else:
                nn.init.normal_(layer.weight, std=gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, mean=1.0, std=gain)
            nn.init.zeros_(layer.bias)


class Parts(NamedTuple):
    """What the three mechanisms draw, before the composer."""

    mask: Tensor  # (n, 1, h, w) in MASK_RANGE
    foreground: Tensor  # (n, 3, h, w) in [-1, 1], after the texture shuffle
    background: Tensor  # likewise


def compose(parts: Parts) -> Tensor:
    """Blend foreground over background through the mask: the fixed composer C of Eq. 2.

    Returns:
      (n, 3, h, w) in [-1, 1].
    """
    return parts.mask * parts.foreground + (1 - parts.mask) * parts.background


def _upsample_block(c_in: int, c_out: int, padding: TexturePadding = "zeros") -> list[nn.Module]:
    return [
        nn.Upsample(scale_factor=2),
        nn.Conv2d(c_in, c_out, 3, padding=1, bias=False, padding_mode=padding),
        nn.BatchNorm2d(c_out),
        nn.LeakyReLU(0.2),
    ]


def _shape_layers(size_in: int, channels: int, resolution: int) -> list[nn.Module]:
    start = resolution // 4
    wide = 2 * channels
    return [
        nn.Linear(size_in, wide * start * start),
        nn.Unflatten(1, (wide, start, start)),
        nn.InstanceNorm2d(wide),
        *_upsample_block(wide, channels),
        nn.InstanceNorm2d(channels),
        *_upsample_block(channels, 1),
        nn.InstanceNorm2d(1),
    ]


def _texture_layers(size_in: int, channels: int, resolution: int, padding: TexturePadding) -> list[nn.Module]:
    start = resolution // 4
    wide = 2 * channels
    return [
        nn.Linear(size_in, wide * start * start),
        nn.Unflatten(1, (wide, start, start)),
        *_upsample_block(wide, wide, padding),
        *_upsample_block(wide, channels, padding),
        nn.Conv2d(channels, 3, 3, padding=1, padding_mode=padding),
        nn.BatchNorm2d(3),
        nn.Tanh(),
    ]


class _CyclicShift(torch.autograd.Function):
    """Roll every image by its own offset. The gradient is the opposite roll, not a slow scatter."""

    @staticmethod
    def _gather(images: Tensor, shifts: Tensor) -> Tensor:
        n, c, h, w = images.shape
        y = (torch.arange(h, device=images.device) - shifts[:, :1]) % h
        x = (torch.arange(w, device=images.device) - shifts[:, 1:]) % w
        flat = (y[:, :, None] * w + x[:, None, :]).reshape(n, 1, h * w)
        return images.reshape(n, c, h * w).gather(2, flat.expand(n, c, h * w)).reshape(n, c, h, w)

    @staticmethod
    def forward(ctx: Any, images: Tensor, shifts: Tensor) -> Tensor:
        ctx.save_for_backward(shifts)
        return _CyclicShift._gather(images, shifts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (shifts,) = ctx.saved_tensors
        return _CyclicShift._gather(gradient, -shifts), None


def cyclic_shift(images: Tensor, shifts: Tensor) -> Tensor:
    """Roll each image on the torus: the texture shuffle of Sec. 3.1 (tile 2 x 2, crop at random).

    Args:
      images: (n, c, h, w).
      shifts: (n, 2) int64 (dy, dx); `out[i, :, y, x] = images[i, :, (y - dy) % h, (x - dx) % w]`.
    """
    rolled: Tensor = _CyclicShift.apply(images, shifts)  # type: ignore[no-untyped-call]
    return rolled


def upsample_conv(x: Tensor, weight: Tensor, circular: bool = False) -> Tensor:
    """Nearest x2 up-sampling and a padded 3x3 convolution as one 4x4 stride-2 transposed convolution.

    Exactly the same function with 16 instead of 36 multiplications per output and channel pair, since
    neighbouring taps of the convolution read the same input pixel. Each 4x4 kernel is the 3x3 one, flipped
    and summed over the 2x2 output pixels that an input pixel fills.

    Args:
      x: (n, c_in, h, w).
      weight: (c_out, c_in, 3, 3) of the convolution.
      circular: whether the convolution pads with the opposite side, not with zeros.
    Returns:
      (n, c_out, 2h, 2w).
    """
    c_out, c_in = weight.shape[:2]
    kernels = weight.flip(2, 3).reshape(c_out * c_in, 1, 3, 3)
    spread = F.conv2d(kernels, kernels.new_ones(1, 1, 2, 2), padding=1)
    padding = 1
    if circular:
        x = F.pad(x, (1, 1, 1, 1), mode="circular")
        padding = 3
    return F.conv_transpose2d(x, spread.reshape(c_out, c_in, 4, 4).transpose(0, 1), stride=2, padding=padding)


def run_fused(mechanism: nn.Sequential, x: Tensor) -> Tensor:
    """What the layers give, with each up-sampling and the convolution behind it in one step."""
    layers = iter(mechanism)
    for layer in layers:
        if isinstance(layer, nn.Upsample):
            convolution = cast(nn.Conv2d, next(layers))
            x = upsample_conv(x, convolution.weight, convolution.padding_mode == "circular")
        else:
            x = layer(x)
    return x


class CGN(nn.Module):
    """Three independent mechanisms that share one label embedding (App. B).

    Args:
      n_classes: classes, and the size of the label embedding.
      noise_size: z, the length of u of each mechanism; u ~ N(0, 1).
      channels: width of the last convolutions; the first are twice as wide.
      resolution: h and w of the pictures, a multiple of 4.
      init: how the weights start, "orthogonal" or "normal", with `gain`.
      texture_padding: "zeros" as in the authors' code, or "circular": then rolling the first spatial map of a texture
        mechanism by 1 rolls its picture by 4, and the texture shuffle shows no seam.

    Attributes:
      fused: compute up-sampling and convolution in one step (`upsample_conv`): the same function, faster to
        train. Off by default, so that the module runs as it is written.
    """

    def __init__(
        self,
        n_classes: int = 10,
        noise_size: int = 32,
        channels: int = 32,
        resolution: int = 32,
        *,
        init: Literal["orthogonal", "normal"] = "orthogonal",
        gain: float = 0.1,
        texture_padding: TexturePadding = "zeros",
    ) -> None:
        super().__init__()
        if resolution < 4 or resolution % 4:
            raise ValueError(f"build CGN: resolution is {resolution}, expected a positive multiple of 4.")
        self.n_classes = n_classes
        self.noise_size = noise_size
        self.channels = channels
        self.resolution = resolution
        self.texture_padding = texture_padding
        self.fused = False
        size_in = noise_size + n_classes
        self.label_emb = nn.Embedding(n_classes, n_classes)
        self.f_shape = nn.Sequential(*_shape_layers(size_in, channels, resolution))
        texture = (size_in, channels, resolution, texture_padding)
        self.f_text1 = nn.Sequential(*_texture_layers(*texture))  # foreground
        self.f_text2 = nn.Sequential(*_texture_layers(*texture))  # background
        initialise(self, init, gain)

    def forward(
        self,
        shape: Tensor,
        texture: Tensor | None = None,
        background: Tensor | None = None,
        *,
        noise: Tensor | None = None,
        shifts: Tensor | None = None,
        generator: torch.Generator | None = None,
        texture_reuse: int = 1,
        masks: Tensor | None = None,
        fills: tuple[Tensor, Tensor] | None = None,
    ) -> Parts:
        """Draw n masks, foregrounds and backgrounds.

        Args:
          shape, texture, background: (n,) int64 class labels of each mechanism; texture and background are
            the shape's if left out (the training distribution), and others give counterfactuals (Sec. 3.2).
          noise: (n, 3, z) u of shape, texture and background; drawn independently if left out.
          shifts: (n, 2, 2) int64 rolls (dy, dx) of foreground and background; drawn if left out.
          generator: where noise and shifts are drawn from; one of the CPU gives the same on every device.
          texture_reuse: k draws the textures of rows 0, k, 2k, ... alone and rolls each anew for k rows.
            It saves most of the work, for the shape is the smallest network. n must be a multiple.
          masks: (n, 1, h, w) that `draw_masks` gave, instead of drawing them here.
          fills: foregrounds and backgrounds that `draw_fills` gave, n / texture_reuse each, likewise.
        """
        n = len(shape)
        device = self.label_emb.weight.device
        where = device if generator is None else generator.device
        if noise is None:
            noise = torch.randn(n, 3, self.noise_size, generator=generator, device=where).to(device)
        if shifts is None:
            shifts = torch.randint(self.resolution, (n, 2, 2), generator=generator, device=where).to(device)
        labels = (shape, shape if texture is None else texture, shape if background is None else background)
        if n % texture_reuse:
            raise ValueError(f"draw: n is {n}, expected a multiple of texture_reuse {texture_reuse}.")
        if fills is None:
            some = slice(None, None, texture_reuse)
            fills = self.draw_fills((noise[some, 1], labels[1][some]), (noise[some, 2], labels[2][some]))
        fill = [
            pictures.repeat_interleave(texture_reuse, 0) if texture_reuse > 1 else pictures
            for pictures in fills
        ]
        return Parts(
            mask=self.draw_masks(noise[:, 0], shape) if masks is None else masks,
            foreground=cyclic_shift(fill[0], shifts[:, 0]),
            background=cyclic_shift(fill[1], shifts[:, 1]),
        )

    def draw_masks(self, noise: Tensor, labels: Tensor) -> Tensor:
        """The shape mechanism alone: noise (n, z), labels (n,) -> (n, 1, h, w) in `MASK_RANGE`."""
        return self._draw(self.f_shape, noise, labels).clamp(*MASK_RANGE)

    def draw_fills(
        self, texture: tuple[Tensor, Tensor], background: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Both texture mechanisms, each for noise (n, z) and labels (n,): pictures (n, 3, h, w), not rolled."""
        return self._draw(self.f_text1, *texture), self._draw(self.f_text2, *background)

    def _draw(self, mechanism: nn.Sequential, noise: Tensor, labels: Tensor) -> Tensor:
        inputs = torch.cat([noise, self.label_emb(labels)], dim=1)
        picture: Tensor = run_fused(mechanism, inputs) if self.fused else mechanism(inputs)
        return picture
