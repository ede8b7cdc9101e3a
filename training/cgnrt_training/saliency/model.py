"""A small U-Net that finds objects at 64 px, where U2-Net, which learnt from photos of 320 px, sees too little."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Channels by level over the width: each level has half the height of the one before.
LEVELS = (1, 2, 6, 8, 12)
MULTIPLE = 2 ** (len(LEVELS) - 1)  # of which height and width are multiples


class ConvNormReLU(nn.Module):
    """3x3 convolution, batch norm, ReLU; with `folded` the norm is in the convolution."""

    def __init__(self, c_in: int, c_out: int, *, folded: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=folded)
        self.norm = nn.Identity() if folded else nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class SaliencyNet(nn.Module):
    """A U-Net whose decoder adds the encoder's features to its own.

    Args:
      width: channels at the full resolution; 8 makes 0.3 million parameters and 31 million multiply-adds at 64 px.
      folded: no batch norms; they have been folded into the convolutions.
    """

    def __init__(self, width: int = 8, *, folded: bool = False) -> None:
        super().__init__()
        self.width = width
        channels = [factor * width for factor in LEVELS]
        self.first = ConvNormReLU(3, channels[0], folded=folded)
        self.down, self.narrow, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for high, low in pairwise(channels):
            two = (ConvNormReLU(high, low, folded=folded), ConvNormReLU(low, low, folded=folded))
            self.down.append(nn.Sequential(*two))
            self.narrow.append(nn.Conv2d(low, high, 1))
            self.up.append(ConvNormReLU(high, high, folded=folded))
        self.last = nn.Conv2d(channels[0], 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Find what is salient.

        Args:
          image: (n, 3, h, w) in [-1, 1]; h and w are multiples of 16.
        Returns:
          (n, 1, h, w) in [0, 1].
        Raises:
          ValueError: h or w is not such a multiple.
        """
        return torch.sigmoid(self.logits(image))

    def logits(self, image: Tensor) -> Tensor:
        """As `forward`, before the sigmoid."""
        height, width = image.shape[2:]
        if height % MULTIPLE or width % MULTIPLE:
            raise ValueError(
                f"find saliency: images are {height} x {width}, expected multiples of {MULTIPLE}. Resize them."
            )
        encoded = [self.first(image)]
        for down in self.down:
            encoded.append(down(F.max_pool2d(encoded[-1], 2)))
        y = encoded.pop()
        for narrow, up in zip(reversed(self.narrow), reversed(self.up), strict=True):
            y = up(F.interpolate(narrow(y), scale_factor=2.0, mode="nearest") + encoded.pop())
        logits: Tensor = self.last(y)
        return logits

    @torch.no_grad()
    def without_norms(self) -> SaliencyNet:
        """The same function with the batch norms folded into the convolutions: a new network in evaluation mode."""
        state = {key: value for key, value in self.state_dict().items() if ".norm." not in key}
        for name, module in self.named_modules():
            if isinstance(module, ConvNormReLU) and isinstance(module.norm, nn.BatchNorm2d):
                norm = module.norm.state_dict()
                weight, bias, mean, variance = (
                    norm[key] for key in ("weight", "bias", "running_mean", "running_var")
                )
                scale = weight / (variance + module.norm.eps).sqrt()
                state[f"{name}.conv.weight"] = module.conv.weight * scale[:, None, None, None]
                state[f"{name}.conv.bias"] = bias - mean * scale
        network = SaliencyNet(self.width, folded=True)
        network.load_state_dict(state)
        return network.eval()
