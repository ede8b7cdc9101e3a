"""`cgan.pt` of a run: a BigGAN-deep that `imagenet.checkpoints.load_biggan` loads, with the names of its classes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from ..imagenet.biggan import BigGAN, BigGANConfig
from ..imagenet.calibrate import calibrate
from ..imagenet.checkpoints import CGAN_FORMAT, CGAN_VERSION
from ..imagenet.config_json import to_json
from ..imagenet.spectral import power_iterate
from ..runs.sources import Sources, without_paths
from ..settings import to_dict
from .config import Config, LogConfig

_ITERATIONS = 10  # of spectral norm's vectors, which averaging has moved


def about(config: Config, size: BigGANConfig, sources: Sources) -> dict[str, Any]:
    """What a checkpoint says of itself, beside step and weights."""
    return {
        "format": CGAN_FORMAT,
        "format_version": CGAN_VERSION,
        "config": to_dict(config),
        "biggan": to_json(size),
        "sources": without_paths(sources),
    }


class Finished:
    """The averaged generator, ready for use: what a run shows and saves as `model`.

    Args:
      average: the averaged weights.
      seed: of the samples that the batch norms' statistics are from.
    """

    def __init__(self, average: BigGAN, log: LogConfig, seed: int) -> None:
        self.model = deepcopy(average).requires_grad_(False).eval()
        self._average, self._log, self._seed = average, log, seed

    def update(self) -> BigGAN:
        """Take the present average, and calibrate it; the same for the same average."""
        self.model.load_state_dict(self._average.state_dict())
        for _ in range(_ITERATIONS):
            power_iterate(self.model)
        calibrate(self.model, self._log.calibrate_samples, torch.Generator().manual_seed(self._seed))
        return self.model

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint; in half precision only the weights, not the statistics."""
        half = self._log.weights == "fp16"
        parameters = {name for name, _ in self.model.named_parameters()}
        return {
            name: value.half() if half and name in parameters else value
            for name, value in self.model.state_dict().items()
        }

    def load_state_dict(self, state: Any, /) -> None:
        """From a checkpoint, in either precision."""
        self.model.load_state_dict(state)


def new_generator(size: BigGANConfig, embedding_std: float) -> BigGAN:
    """A BigGAN in training mode as training begins: orthogonal weights (Brock et al., 2019)."""
    model = BigGAN(size)
    nn.init.normal_(model.embeddings.weight, std=embedding_std)
    for name, weight in model.named_parameters():
        if name.endswith("weight_orig"):
            nn.init.orthogonal_(weight)
    for _ in range(_ITERATIONS):
        power_iterate(model)
    return model.train()
