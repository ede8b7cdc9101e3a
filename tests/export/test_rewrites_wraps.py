"""Circular paddings: layers that make the border themselves, in float64, and what their graphs become."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
import torch
from torch import Tensor, fx, nn

from cgnrt_export.inference import inference_form
from cgnrt_export.onnx_writer import write_onnx
from cgnrt_export.rewrites.batch_norm import fold_batch_norm
from cgnrt_export.rewrites.wraps import merge_wraps, wrap_linear

Rewritten = Callable[..., fx.GraphModule]
Calls = Callable[[fx.GraphModule], list[str]]


def _conv(inputs: int, outputs: int, bias: bool = True, **how: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias, padding_mode="circular", **how)  # type: ignore[arg-type]


def _start(channels: int = 6) -> list[nn.Module]:
    return [nn.Linear(5, channels * 4 * 8), nn.Unflatten(1, (channels, 4, 8))]


def _up(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Upsample(scale_factor=2),
        _conv(inputs, outputs, False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.2),
    ]


def folded(module: fx.GraphModule) -> int:
    fold_batch_norm(module)
    return merge_wraps(module)


def test_a_whole_mechanism(rewritten: Rewritten, calls: Calls) -> None:
    module = nn.Sequential(*_start(), *_up(6, 6), *_up(6, 4), _conv(4, 3), nn.BatchNorm2d(3), nn.Tanh())
    found = calls(rewritten(folded, module, 5, times=3))
    assert found == [
        "linear",
        "unflatten",
        *["conv2d", "leaky_relu", "pixel_shuffle"] * 2,
        "conv2d",
        "tanh",
    ]


def test_an_up_sampling_at_the_end(rewritten: Rewritten, calls: Calls) -> None:
    module = nn.Sequential(*_start(), nn.Tanh(), *_up(6, 3), nn.Tanh())
    found = calls(rewritten(folded, module, 5, times=1))
    assert found == ["linear", "unflatten", "tanh", "conv_transpose2d", "leaky_relu", "tanh"]


class _TwoReaders(nn.Module):
    """The picture is read with its border and without."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.convolution = nn.Sequential(*_start(3)), _conv(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        picture: Tensor = self.start(x)
        return picture + self.convolution(picture)


class _Pad(nn.Module):
    def __init__(self, pads: tuple[int, ...], mode: str) -> None:
        super().__init__()
        self.pads, self.mode = pads, mode
        self.start, self.convolution = nn.Sequential(*_start(3)), nn.Conv2d(3, 3, 5)

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(self.start(x), self.pads, mode=self.mode)
        made: Tensor = self.convolution(padded)
        return made


SLICED = {
    "two convolutions in a row need two pixels": lambda: nn.Sequential(*_start(), _conv(6, 6), _conv(6, 3)),
    "another reader": _TwoReaders,
    "another size": lambda: _Pad((2, 2, 2, 2), "circular"),
    "sides of their own": lambda: _Pad((1, 3, 0, 4), "circular"),
    "an instance norm, whose statistics are of the picture": lambda: nn.Sequential(
        *_start(), nn.InstanceNorm2d(6), _conv(6, 3)
    ),
    "grouped": lambda: nn.Sequential(*_start(), nn.Upsample(scale_factor=2), _conv(6, 4, groups=2)),
}


@pytest.mark.parametrize("name", SLICED)
def test_others_become_slices(rewritten: Rewritten, calls: Calls, name: str) -> None:
    found = calls(rewritten(merge_wraps, SLICED[name](), 5, times=2 if name.startswith("two") else 1))
    assert "cat" in found
    assert "pad" not in found


def test_another_padding_stays(rewritten: Rewritten, calls: Calls) -> None:
    assert "pad" in calls(rewritten(merge_wraps, _Pad((2, 2, 2, 2), "reflect"), 5, times=0))


def test_a_wrapped_linear_layer_draws_the_border() -> None:
    rows = torch.arange(2 * 3 * 4.0).reshape(-1, 1)
    picture = rows.reshape(1, 2, 3, 4)
    expected = nn.functional.pad(picture, (1, 1, 1, 1), mode="circular")
    assert torch.equal(wrap_linear(rows, 2, 3, 4).reshape(1, 2, 5, 6), expected)


def _nodes(module: nn.Module) -> onnx.ModelProto:
    inputs = {"x": torch.randn(3, 5)}
    form = inference_form(module, inputs)
    return onnx.load_from_string(write_onnx(form.module, inputs, ["y"], weights_name="w").graph)


def test_depth_to_space_reads_whole_blocks() -> None:
    graph = _nodes(nn.Sequential(*_start(), *_up(6, 4), _conv(4, 3))).graph
    shuffles = [node for node in graph.node if node.op_type == "DepthToSpace"]
    assert [
        (entry.name, entry.s) for node in shuffles for entry in node.attribute if entry.name == "mode"
    ] == [("mode", b"DCR")]


def test_slices_are_exported() -> None:
    graph = _nodes(nn.Sequential(*_start(), _conv(6, 6), _conv(6, 3))).graph
    assert "Pad" not in {node.op_type for node in graph.node}, "padding by wrapping needs a later opset"
