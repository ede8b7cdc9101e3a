"""U2-Net and U2-Net-p (Qin et al., 2020): salient object detection, the head of the shape mechanism (Fig. 2).

State-dict keys are the official ones, so that `u2net.pth` and `u2netp.pth` load strictly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_DEPTHS = (7, 6, 5, 4, 4, 4)  # of the encoder's stages; decoder stage k has encoder stage k's
_DILATED = (5, 6)  # stages at low resolution: dilated convolutions instead of pooling


class Stage(NamedTuple):
    """Channels of one U-shaped residual stage: inside, and out of it."""

    inner: int
    out: int


@dataclass(frozen=True)
class U2NetConfig:
    """Channels of each stage.

    Attributes:
      encoder: stages 1 to 6.
      decoder: stages 1 to 5, those with a `d` in their names.
      align_corners: how feature maps are up-sampled (bilinear): the official code does not align corners, the CGN
        authors' copy does. The CGN follows the latter.
      folded: no batch norms; they have been folded into the convolutions.
    """

    encoder: tuple[Stage, ...]
    decoder: tuple[Stage, ...]
    align_corners: bool = False
    folded: bool = False

    def narrowed(self, factor: float) -> U2NetConfig:
        """The same with this share of the channels, at least two, for small nets."""

        def narrow(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
            return tuple(Stage(*(max(2, round(c * factor)) for c in stage)) for stage in stages)

        return replace(self, encoder=narrow(self.encoder), decoder=narrow(self.decoder))


FULL = U2NetConfig(  # 44.0 million parameters
    encoder=(
        Stage(32, 64),
        Stage(32, 128),
        Stage(64, 256),
        Stage(128, 512),
        Stage(256, 512),
        Stage(256, 512),
    ),
    decoder=(Stage(16, 64), Stage(32, 64), Stage(64, 128), Stage(128, 256), Stage(256, 512)),
)
SMALL = U2NetConfig(encoder=(Stage(16, 64),) * 6, decoder=(Stage(16, 64),) * 5)  # U2-Net-p: 1.1 million


def _resize(x: Tensor, like: Tensor, align_corners: bool) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=align_corners)


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, stride=2, ceil_mode=True)


class ConvNormReLU(nn.Module):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, c_in: int, c_out: int, dilation: int, *, folded: bool) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(c_in, c_out, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.Identity() if folded else nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn_s1(self.conv_s1(x)))


class ResidualU(nn.Module):
    """A small U-Net with a residual connection (RSU): `depth` convolutions down, one fewer up.

    `dilated` ones (RSU-4F) keep their resolution and dilate by 1, 2, 4, 8 instead.
    """

    def __init__(self, depth: int, c_in: int, stage: Stage, *, dilated: bool, config: U2NetConfig) -> None:
        super().__init__()
        self.depth = depth
        self.dilated = dilated
        self.align_corners = config.align_corners

        def conv(c_in: int, c_out: int, dilation: int) -> ConvNormReLU:
            return ConvNormReLU(c_in, c_out, dilation, folded=config.folded)

        self.rebnconvin = conv(c_in, stage.out, 1)
        for k in range(1, depth + 1):
            dilation = 2 ** (k - 1) if dilated else 1 + (k == depth)
            self.add_module(f"rebnconv{k}", conv(stage.out if k == 1 else stage.inner, stage.inner, dilation))
        for k in range(depth - 1, 0, -1):
            c_out = stage.out if k == 1 else stage.inner
            self.add_module(f"rebnconv{k}d", conv(2 * stage.inner, c_out, 2 ** (k - 1) if dilated else 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c_in, h, w) -> (n, c_out, h, w)."""
        inside = self.rebnconvin(x)
        down = [self._conv(1)(inside)]
        for k in range(2, self.depth + 1):
            # The deepest convolution widens its view by dilation, not by another pooling.
            pooled = down[-1] if self.dilated or k == self.depth else _pool(down[-1])
            down.append(self._conv(k)(pooled))
        y = down.pop()
        for k in range(self.depth - 1, 0, -1):
            skip = down.pop()
            if not self.dilated and k < self.depth - 1:
                y = _resize(y, skip, self.align_corners)
            y = self._conv(f"{k}d")(torch.cat([y, skip], dim=1))
        out: Tensor = y + inside
        return out

    def scale_inner(self, gain: float) -> None:
        """Multiply what the U adds to its input; with batch norms only."""
        norm = self._conv("1d").get_submodule("bn_s1")
        for parameter in norm.parameters():
            parameter.data.mul_(gain)

    def _conv(self, name: int | str) -> nn.Module:
        return self.get_submodule(f"rebnconv{name}")


class U2Net(nn.Module):
    """A U-Net of small U-Nets; six side outputs are fused into one mask.

    The fused mask is all that a CGN needs, and all that `forward` gives; `side_outputs` has the others, for training.
    """

    def __init__(self, config: U2NetConfig = FULL) -> None:
        super().__init__()
        self.config = config
        c_in = 3
        for k, stage in enumerate(config.encoder, 1):
            self.add_module(f"stage{k}", self._stage(k, c_in, stage))
            c_in = stage.out
        for k in range(5, 0, -1):
            stage = config.decoder[k - 1]
            self.add_module(f"stage{k}d", self._stage(k, c_in + config.encoder[k - 1].out, stage))
            c_in = stage.out
        for k, stage in enumerate((*config.decoder, config.encoder[-1]), 1):
            self.add_module(f"side{k}", nn.Conv2d(stage.out, 1, 3, padding=1))
        self.outconv = nn.Conv2d(6, 1, 1)

    def _stage(self, k: int, c_in: int, stage: Stage) -> ResidualU:
        return ResidualU(_DEPTHS[k - 1], c_in, stage, dilated=k in _DILATED, config=self.config)

    def forward(self, image: Tensor) -> Tensor:
        """Find what is salient.

        Args:
          image: (n, 3, h, w). The official nets were trained on normalised photos; the CGN feeds them its pre-mask
            in [-1, 1] as it is.
        Returns:
          (n, 1, h, w) in [0, 1].
        """
        return torch.sigmoid(self.outconv(torch.cat(self._logits(image), dim=1)))

    def side_outputs(self, image: Tensor) -> list[Tensor]:
        """The fused mask and the six that it is fused from, finest first; each (n, 1, h, w) in [0, 1]."""
        logits = self._logits(image)
        fused = self.outconv(torch.cat(logits, dim=1))
        return [torch.sigmoid(each) for each in (fused, *logits)]

    def _logits(self, image: Tensor) -> list[Tensor]:
        encoded = [self.get_submodule("stage1")(image)]
        for k in range(2, 7):
            encoded.append(self.get_submodule(f"stage{k}")(_pool(encoded[-1])))
        y = encoded.pop()
        features = [y]
        for k in range(5, 0, -1):
            skip = encoded.pop()
            y = _resize(y, skip, self.config.align_corners)
            y = self.get_submodule(f"stage{k}d")(torch.cat([y, skip], dim=1))
            features.append(y)
        logits = [self.get_submodule(f"side{k}")(x) for k, x in enumerate(reversed(features), 1)]
        return [logits[0], *(_resize(each, logits[0], self.config.align_corners) for each in logits[1:])]
