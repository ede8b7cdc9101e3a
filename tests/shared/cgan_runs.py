"""Photos that differ by colour, and settings, for cGANs that train in a second."""

from __future__ import annotations

import functools
from copy import deepcopy

import numpy as np
import torch

from cgnrt_training.cgan.config import Config
from cgnrt_training.cgan.run import Inputs
from cgnrt_training.features.efficientnet_lite import SIZES, EfficientNetLite
from cgnrt_training.photos.pack import Photos
from cgnrt_training.settings import override

SOURCES = {"photos": {"name": "pack", "sha256": "0" * 64, "path": "/pack"}}


def photos(size: int = 32, per_class: int = 6) -> Photos:
    """Noise around a red, a green and a blue."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), per_class)
    images = random.integers(0, 60, (len(labels), 3, size, size))
    images[np.arange(len(labels)), labels] += 180
    names = ("red", "green", "blue")
    return Photos(images.astype(np.uint8), labels, None, names, size, "0" * 64)


def inputs(**changes: object) -> Inputs:
    """A network of its own at every call."""
    given = {"photos": photos(), "network": network(), "sources": SOURCES} | changes
    return Inputs(**given)  # type: ignore[arg-type]


def network(resolution: int = 224) -> EfficientNetLite:
    """An EfficientNet-Lite0 with random weights, and statistics under which its features differ.

    Args:
      resolution: at which it judges pictures.
    """
    net = deepcopy(_network())
    net.size = net.size._replace(resolution=resolution)
    return net


def config(**sections: dict[str, object]) -> Config:
    """Two steps of small networks."""
    small: dict[str, dict[str, object]] = {
        "generator": {"width": 4, "z_dim": 8},
        "features": {"size": 32},
        "discriminator": {"channels": 8},
        "loss": {"diversity": 0.0},
        "probe": {"samples": 18, "steps": 20},
        "train": {"images": 16, "batch": 8},
        "log": {"checkpoint_every": 8, "scalars_every": 8, "calibrate_samples": 8, "sheet_samples": 2},
    }
    for name, values in sections.items():
        small[name] = small.get(name, {}) | values
    return override(Config(), small)


@functools.cache
def _network() -> EfficientNetLite:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = EfficientNetLite(SIZES[0])
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.train()
                module.momentum = None  # the mean over all batches
        net.logits(torch.rand(8, 3, 32, 32) * 2 - 1)
        net.eval()
        return net
