"""A small cGAN, U2-Net and VGG16 with random weights, for the training of natural-image CGNs."""

from __future__ import annotations

import functools
from copy import deepcopy
from dataclasses import replace

import torch

from cgnrt_training.features.vgg16 import VGG16Features
from cgnrt_training.imagenet.biggan import BigGAN, BigGANConfig
from cgnrt_training.imagenet.calibrate import random_biggan, random_u2net
from cgnrt_training.imagenet.u2net import FULL, U2Net
from cgnrt_training.natural.config import Config
from cgnrt_training.natural.networks import Networks
from cgnrt_training.settings import override

RESOLUTION, CLASSES, NOISE = 32, 5, 8
SOURCES = {"biggan": {"name": "biggan", "sha256": "0" * 64}}


def networks() -> Networks:
    """New copies, the same at every call."""
    return Networks(cgan(0), deepcopy(_u2net()), deepcopy(_vgg()), deepcopy(SOURCES))


def cgan(seed: int) -> BigGAN:
    """A BigGAN-deep of 32 px."""
    return deepcopy(_cgan(seed))


def config(**sections: dict[str, object]) -> Config:
    """Settings for these networks: rates and batches that do something in a few updates."""
    small: dict[str, dict[str, object]] = {
        "train": {"updates": 2, "pseudo_batch": 4},
        "optimizer": {"lr_shape": 1e-4, "lr_texture": 1e-4, "lr_background": 1e-4},
        "patches": {"resolution": 32, "patch": 5},
        "log": {"sheet_samples": 2, "samples_every": 100},
    }
    for name, values in sections.items():
        small[name] = small.get(name, {}) | values
    return override(Config(), small)


@functools.cache
def _cgan(seed: int) -> BigGAN:
    size = BigGANConfig.of_resolution(RESOLUTION, channel_width=4, num_classes=CLASSES, z_dim=NOISE)
    return random_biggan(size, torch.Generator().manual_seed(seed))


@functools.cache
def _u2net() -> U2Net:
    generator = torch.Generator().manual_seed(1)
    size = replace(FULL.narrowed(1 / 32), align_corners=True)
    model = _cgan(0)
    with torch.no_grad():
        noise = torch.randn(4, NOISE, generator=generator).clamp(-2, 2)
        pictures = model(noise, model.embedding_table[:4], torch.ones(4, 1))
    return random_u2net(size, generator, pictures, inner_gain=0.1)


@functools.cache
def _vgg() -> VGG16Features:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return VGG16Features(batch_norm=True, width=4)
