"""A network for `_core.PictureNetwork` and, step by step, what torch makes of it in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from cgnrt import _core

N = 5  # images of every network; runs take the first of them
RUNS = ((2, 3), (N, 1), (1, 1), (N, 3), (0, 1))  # images and threads
ACTIVATIONS: list[tuple[Any, ...]] = [
    ("leaky_relu", 0.0),
    ("leaky_relu", 0.2),
    ("leaky_relu", 1.5),
    ("tanh",),
    ("sigmoid",),
    ("clip", -0.5, 0.25),
]
Map = tuple[bool, bool, tuple[Any, ...] | None]  # with a scale, with a shift, activation


def double(weight: torch.Tensor) -> torch.Tensor:
    """The 4x4 transposed convolution (in, out, 4, 4) that is a 3x3 one behind nearest x2 up-sampling, tap by tap."""
    reads = {0: [2], 1: [1, 2], 2: [0, 1], 3: [0]}
    out = torch.zeros(weight.shape[1], weight.shape[0], 4, 4)
    for y, rows in reads.items():
        for x, columns in reads.items():
            out[:, :, y, x] = weight[:, :, rows][:, :, :, columns].sum((2, 3)).T
    return out


def activate(x: torch.Tensor, act: tuple[Any, ...] | None) -> torch.Tensor:
    if act is None:
        return x
    if act[0] == "leaky_relu":
        return torch.where(x > 0, x, act[1] * x)
    if act[0] == "clip":
        return x.clamp(act[1], act[2])
    return {"tanh": torch.tanh, "sigmoid": torch.sigmoid}[act[0]](x)


class Net:
    """Steps are added one by one; each method returns the new picture's index."""

    def __init__(self, seed: int = 0) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.vectors: list[np.ndarray] = []
        self.pictures: list[list[int]] = []
        self.steps: list[dict[str, Any]] = []
        self.values: list[torch.Tensor] = []
        self.outputs: list[int] = []
        self.image: int | None = None
        self.image_data: np.ndarray | None = None

    # What steps are made of.

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.random)

    def vector(self, values: torch.Tensor) -> int:
        self.vectors.append(np.ascontiguousarray(values.reshape(N, -1).numpy(), np.float32))
        return len(self.vectors) - 1

    def picture(self, values: torch.Tensor, where: tuple[int, int] | None = None) -> int:
        """A picture with a buffer of its own, or in `where` (buffer, first channel)."""
        k = len(self.pictures)
        self.pictures.append([*values.shape[1:], *(where or (k, 0))])
        self.values.append(values)
        return k

    def _map(self, x: torch.Tensor, given: Map | None) -> tuple[torch.Tensor, tuple[Any, ...]]:
        has_scale, has_shift, act = given or (False, False, None)
        scale = shift = None
        if has_scale:
            factors = self.normal(N, x.shape[1])
            x, scale = x * factors.double()[:, :, None, None], self.vector(factors)
        if has_shift:
            offsets = self.normal(N, x.shape[1])
            x, shift = x + offsets.double()[:, :, None, None], self.vector(offsets)
        return activate(x, act), (scale, shift, act)

    def _add(
        self,
        step: dict[str, Any],
        x: torch.Tensor,
        *,
        after: Map | None = None,
        residual: int | None = None,
        up: bool = False,
        last: Map | None = None,
        where: tuple[int, int] | None = None,
    ) -> int:
        x, step["after"] = self._map(x, after)
        if residual is not None:
            other = self.values[residual][:, : x.shape[1]]
            x = x + (F.interpolate(other, scale_factor=2) if up else other)
            step |= {"residual": residual, "residual_up": int(up)}
        x, step["last"] = self._map(x, last)
        step["out"] = self.picture(x, where)
        self.steps.append(step)
        return int(step["out"])

    # Steps.

    def start(
        self, channels: int, height: int, width: int, *, channels_last: bool = False, **more: Any
    ) -> int:
        x = self.normal(N, channels, height, width)
        vector = self.vector(x.permute(0, 2, 3, 1) if channels_last else x)
        step = {"kind": "start", "in": [], "vector": vector, "channels_last": int(channels_last)}
        return self._add(step, x.double(), **more)

    def take_image(self, channels: int, height: int, width: int, **more: Any) -> int:
        x = self.normal(N, channels, height, width)
        self.image, self.image_data = len(self.pictures), x.numpy()
        return self._add({"kind": "image", "in": []}, x.double(), **more)

    def conv(
        self,
        source: int,
        outs: int,
        kernel: int = 3,
        dilation: int = 1,
        *,
        bias: bool = True,
        before: Map | None = None,
        **more: Any,
    ) -> int:
        channels = self.pictures[source][0]
        # Results of size 1, so that neither layers nor images outweigh one another.
        weight = self.normal(outs, channels, kernel, kernel) / (channels * kernel**2) ** 0.5
        offset = self.normal(outs) if bias else None
        step: dict[str, Any] = {"kind": "conv", "in": [source], "kernel": kernel, "dilation": dilation}
        step |= {"weight": weight.numpy(), "bias": None if offset is None else offset.numpy()}
        x, step["before"] = self._map(self.values[source], before)
        pad = dilation * (kernel // 2)
        given = None if offset is None else offset.double()
        return self._add(step, F.conv2d(x, weight.double(), given, 1, pad, dilation), **more)

    def up_conv(self, source: int, outs: int, *, bias: bool = True, **more: Any) -> int:
        channels = self.pictures[source][0]
        weight = self.normal(outs, channels, 3, 3) / (channels * 9) ** 0.5
        offset = self.normal(outs) if bias else None
        step = {"kind": "up_conv", "in": [source], "weight": double(weight).numpy()}
        step["bias"] = None if offset is None else offset.numpy()
        x = F.interpolate(self.values[source], scale_factor=2)
        given = None if offset is None else offset.double()
        return self._add(step, F.conv2d(x, weight.double(), given, 1, 1), **more)

    def max_pool(self, source: int, **more: Any) -> int:
        x = F.max_pool2d(self.values[source], 2, 2, ceil_mode=True)
        return self._add({"kind": "max_pool", "in": [source]}, x, **more)

    def resize(self, source: int, height: int, width: int, *, align: bool, **more: Any) -> int:
        x = F.interpolate(self.values[source], (height, width), mode="bilinear", align_corners=align)
        return self._add({"kind": "resize", "in": [source], "align_corners": int(align)}, x, **more)

    def attention(self, query: int, key: int, value: int, **more: Any) -> int:
        q, k, v = (self.values[p].flatten(2) for p in (query, key, value))
        x = v @ torch.softmax(q.transpose(1, 2) @ k, -1).transpose(1, 2)
        shape = (N, v.shape[1], *self.values[query].shape[2:])
        return self._add({"kind": "attention", "in": [query, key, value]}, x.reshape(shape), **more)

    def pointwise(self, source: int, *, before: Map | None = None, **more: Any) -> int:
        x, maps = self._map(self.values[source], before)
        return self._add({"kind": "pointwise", "in": [source], "before": maps}, x, **more)

    # Parts of pictures.

    def whole(self, parts: Sequence[int]) -> int:
        """The concatenation of pictures that lie behind one another in one buffer already."""
        return self.picture(torch.cat([self.values[k] for k in parts], 1), (self.pictures[parts[0]][3], 0))

    def part(self, source: int, first: int, channels: int) -> int:
        buffer, start = self.pictures[source][3:]
        return self.picture(self.values[source][:, first : first + channels], (buffer, start + first))

    # Runs.

    def engine(self, isa: str | None = None) -> Any:
        return _core.PictureNetwork(
            [vector.shape[1] for vector in self.vectors],
            self.pictures,
            self.steps,
            self.outputs,
            image=self.image,
            isa=isa,
        )

    def run(self, engine: Any, n: int, threads: int = 1, outs: list[Any] | None = None) -> list[np.ndarray]:
        image = None if self.image_data is None else self.image_data[:n]
        given = outs or [None] * len(self.outputs)
        found: list[np.ndarray] = engine.run(
            [vector[:n] for vector in self.vectors], image, n, given, threads=threads
        )
        return found

    def check(self, isa: str, tolerance: float, runs: Sequence[tuple[int, int]] = RUNS) -> None:
        """Runs of so many images on so many threads against torch; the tolerance is relative to the largest value."""
        engine = self.engine(isa)
        for n, threads in runs:
            found = self.run(engine, n, threads)
            assert len(found) == len(self.outputs)
            for picture, array in zip(self.outputs, found, strict=True):
                expected = self.values[picture].numpy()
                limit = tolerance * np.abs(expected).max()
                np.testing.assert_allclose(array, expected[:n], rtol=0, atol=limit)
