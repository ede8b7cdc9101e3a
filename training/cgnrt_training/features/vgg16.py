"""The feature maps of VGG16 (Simonyan & Zisserman, 2015), with torchvision's key names.

With batch norm (`vgg16_bn`), as the CGN's paper has it, or without (`vgg16`), as its authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from ..checkpoints import has_memory
from .maps import IMAGENET_MEAN, IMAGENET_STD, FeatureMaps, Stage, load_frozen

Taps = Literal["pools", "relus"]

_BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))  # channels in widths, convolutions
WIDTH = 64  # channels of the first convolution; narrower ones are stand-ins


class VGG16Features(FeatureMaps):
    """Up to four feature maps, shallow to deep (64, 128, 256, 512 channels), frozen.

    Args:
      taps: "pools" gives the maps after the first four poolings (App. C.3), "relus" those before them.
      width: channels of the first convolution.
    """

    def __init__(
        self,
        *,
        batch_norm: bool,
        taps: Taps = "pools",
        width: int = WIDTH,
        depth: int = 4,
        normalise: bool = True,
    ) -> None:
        super().__init__(IMAGENET_MEAN, IMAGENET_STD, depth, normalise)
        self.taps = taps
        layers: list[nn.Module] = []
        self._pools = []  # where they stand in `features`
        c_in = 3
        for factor, convolutions in _BLOCKS:
            for _ in range(convolutions):
                layers.append(nn.Conv2d(c_in, factor * width, 3, padding=1))
                c_in = factor * width
                if batch_norm:
                    layers.append(nn.BatchNorm2d(c_in))
                layers.append(nn.ReLU())
            self._pools.append(len(layers))
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        wide = "" if width == WIDTH else f" of width {width}, not {WIDTH}: a stand-in"
        self.label = f"VGG16 {'with' if batch_norm else 'without'} batch norm{wide}"
        self.freeze()

    @classmethod
    def of_state(
        cls,
        state: Mapping[str, Any],
        subject: str,
        *,
        taps: Taps = "pools",
        depth: int = 4,
        normalise: bool = True,
    ) -> VGG16Features:
        """From what was in the file `subject`, without its classifier; batch norm or none is told by the keys.

        Raises:
          CheckpointError: keys or shapes differ; the message names them.
        """
        first = state.get("features.0.weight")
        known = isinstance(first, Tensor) and first.dim() == 4 and has_memory(first) and len(first)
        model = cls(
            batch_norm=has_batch_norm(state),
            taps=taps,
            width=len(first) if known and first is not None else WIDTH,
            depth=depth,
            normalise=normalise,
        )
        load_frozen(model, state, ("classifier.",), subject)
        return model

    def stages(self) -> Sequence[Stage]:
        ends = [end + (self.taps == "pools") for end in self._pools]
        return [self.features[a:b] for a, b in zip([0, *ends], ends[: self.MAPS], strict=False)]


def has_batch_norm(state: Mapping[str, Any]) -> bool:
    """Whether a VGG16's keys are those with batch norm."""
    return "features.1.running_mean" in state
