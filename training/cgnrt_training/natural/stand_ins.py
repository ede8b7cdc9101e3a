"""Random files in place of BigGAN, U2-Net and VGG16, so that the whole recipe can be tried without any of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ..checkpoints import save
from ..features.vgg16 import WIDTH, VGG16Features
from ..imagenet.biggan import BigGANConfig
from ..imagenet.calibrate import Progress, draw_pictures, random_biggan, random_u2net
from ..imagenet.checkpoints import save_biggan, save_u2net
from ..imagenet.u2net import FULL

FULL_WIDTH = 128  # the published BigGAN's channel_width
_INNER_GAIN = 0.1  # a smooth function of the picture, as a trained U2-Net is: the mechanisms learn through it


def write_stand_ins(
    folder: Path,
    resolution: int,
    *,
    seed: int = 0,
    channel_width: int = FULL_WIDTH,
    num_classes: int = 1000,
    progress: Progress = lambda message: None,
    device: torch.device | None = None,
) -> Path:
    """Write `biggan/`, `u2net.pth` and `vgg16_bn.pth`, the same for the same arguments.

    Args:
      channel_width: of the BigGAN; U2-Net and VGG16 are as much narrower than the published ones.
      progress: called with a line for each step.
      device: see `random_biggan`.
    Returns:
      The folder.
    Raises:
      ValueError: there is no BigGAN-deep of this resolution, or channel_width is not a positive multiple of 4.
    """
    if channel_width < 4 or channel_width % 4:
        raise ValueError(
            f"build BigGAN: channel_width is {channel_width}, expected a positive multiple of 4."
        )
    config = BigGANConfig.of_resolution(resolution, channel_width=channel_width, num_classes=num_classes)
    generator = torch.Generator().manual_seed(seed)
    progress("draw and calibrate biggan")
    biggan = random_biggan(config, generator, device)
    progress("draw and calibrate u2net")
    size = FULL if channel_width == FULL_WIDTH else FULL.narrowed(channel_width / FULL_WIDTH)
    pictures = draw_pictures(biggan, generator)
    u2net = random_u2net(replace(size, align_corners=True), generator, pictures, inner_gain=_INNER_GAIN)
    progress("draw vgg16_bn")
    vgg = VGG16Features(batch_norm=True, width=max(2, WIDTH * channel_width // FULL_WIDTH))
    with torch.no_grad():
        for module in vgg.modules():
            if isinstance(module, nn.Conv2d):
                deviation = (2 / module.weight[0].numel()) ** 0.5
                module.weight.normal_(std=deviation, generator=generator)
                module.bias.zero_()  # type: ignore[union-attr]
    progress(f"write {folder}")
    save_biggan(biggan.cpu(), folder / "biggan")
    save_u2net(u2net.cpu(), folder / "u2net.pth")
    save(vgg.state_dict(), folder / "vgg16_bn.pth")
    return folder
