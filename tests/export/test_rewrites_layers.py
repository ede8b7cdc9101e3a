"""Rewrites of convolutions in float64: channels nobody reads, 1x1 convolutions, factors, calls in place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from cgnrt_export.inference import inference_form
from cgnrt_export.rewrites.channels import kept_weights, slice_channels
from cgnrt_export.rewrites.duplicates import merge_duplicates
from cgnrt_export.rewrites.in_place import remove_writes
from cgnrt_export.rewrites.no_ops import remove_no_ops
from cgnrt_export.rewrites.pointwise import (
    fold_pointwise,
    merged_weights,
    move_pointwise_down,
    split_pointwise,
)
from cgnrt_export.rewrites.scales import fold_scales
from cgnrt_export.rewrites.sizes import name_factors

Rewritten = Callable[..., fx.GraphModule]
Calls = Callable[[fx.GraphModule], list[str]]


def plain(rewrite: Callable[[fx.GraphModule], int]) -> Callable[[fx.GraphModule], int]:
    """A rewrite behind those that always come before it: `y[:, :3]` is traced as a slice of all rows, too."""

    def rewritten(module: fx.GraphModule) -> int:
        remove_no_ops(module)
        merge_duplicates(module)
        return rewrite(module)

    return rewritten


class Apply(nn.Module):
    """A function of a picture and of layers; `layers` are its parameters."""

    def __init__(self, function: Callable[..., Tensor | tuple[Tensor, ...]], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function(x, *self.layers.values())


def _up(x: Tensor, mode: str = "bilinear", *, size: tuple[int, int] | None = None) -> Tensor:
    corners = None if mode.startswith("nearest") else False
    return F.interpolate(x, size=size, scale_factor=None if size else 2.0, mode=mode, align_corners=corners)


SLICED = {
    "the first three": (lambda x, conv: torch.tanh(conv(x)[:, :3]), 3),
    "from the middle": (lambda x, conv: conv(x)[:, 2:5], 3),
    "the last, from the end": (lambda x, conv: conv(x)[:, -2:], 2),
    "two runs with a gap": (lambda x, conv: _pair(conv(x)), 5),
}


def _pair(y: Tensor) -> Tensor:
    return y[:, 1:3] * y[:, 4:6]


@pytest.mark.parametrize(("function", "kept"), SLICED.values(), ids=SLICED)
@pytest.mark.parametrize("bias", [True, False])
def test_channels_that_nobody_reads_are_not_computed(
    function: Callable[..., Tensor], kept: int, bias: bool, rewritten: Rewritten
) -> None:
    traced = rewritten(
        plain(slice_channels), Apply(function, conv=nn.Conv2d(4, 8, 3, bias=bias)), 4, 5, 6, times=1
    )
    (conv,) = (node for node in traced.graph.nodes if "conv2d" in str(node.target))
    assert conv.meta["val"].shape[1] == kept


def test_transposed_convolutions_and_other_dimensions_are_cut_too(rewritten: Rewritten) -> None:
    for conv in (nn.ConvTranspose2d(4, 8, 4, stride=2), nn.Conv2d(4, 8, 1, stride=2)):
        rewritten(plain(slice_channels), Apply(lambda x, conv: conv(x)[:, 1:4], conv=conv), 4, 5, 6, times=1)
    line = Apply(lambda x, conv: conv(x)[:, 1:4], conv=nn.Conv1d(4, 8, 3))
    rewritten(plain(slice_channels), line, 4, 5, times=1)


NOT_SLICED = {
    "everything is read": lambda x, conv: conv(x)[:, :3] + conv(x).sum(1, keepdim=True),
    "the whole is read too": lambda x, conv: (y := conv(x)).mean() + y[:, :3],
    "all channels": lambda x, conv: _halves(conv(x)),
    "every second channel": lambda x, conv: conv(x)[:, ::2],
    "rows, not channels": lambda x, conv: conv(x)[:, :, :2],
    "an activation between": lambda x, conv: torch.relu(conv(x))[:, :3],
}


def _halves(y: Tensor) -> Tensor:
    return y[:, :4] + y[:, 4:]


@pytest.mark.parametrize("function", NOT_SLICED.values(), ids=NOT_SLICED)
def test_channels_stay_where_they_are_read(function: Callable[..., Tensor], rewritten: Rewritten) -> None:
    rewritten(plain(slice_channels), Apply(function, conv=nn.Conv2d(4, 8, 3)), 4, 5, 6, times=0)


def test_groups_and_writes_stop_the_cut(rewritten: Rewritten) -> None:
    grouped = nn.Conv2d(4, 8, 3, groups=2)
    rewritten(plain(slice_channels), Apply(lambda x, conv: conv(x)[:, :3], conv=grouped), 4, 5, 6, times=0)
    written = Apply(lambda x, conv: conv(x)[:, :3].relu_(), conv=nn.Conv2d(4, 8, 3))
    rewritten(plain(slice_channels), written, 4, 5, 6, times=0)


def test_kept_weights() -> None:
    weight, bias = torch.randn(8, 4, 3, 3), torch.randn(8)
    kept, offset = kept_weights(weight, bias, 2, 5)
    assert torch.equal(kept, weight[2:5])
    assert offset is not None
    assert torch.equal(offset, bias[2:5])
    kept, offset = kept_weights(weight, None, 1, 3, transposed=True)
    assert torch.equal(kept, weight[:, 1:3])
    assert offset is None


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "nearest-exact"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_1x1_convolution_moves_before_the_upsampling(
    mode: str, bias: bool, rewritten: Rewritten, calls: Calls
) -> None:
    module = Apply(lambda x, conv: torch.relu(conv(_up(x, mode))), conv=nn.Conv2d(4, 3, 1, bias=bias))
    traced = rewritten(plain(move_pointwise_down), module, 4, 5, 6, times=1)
    assert calls(traced)[0] == "conv2d"


def test_it_moves_before_any_enlargement_by_size(rewritten: Rewritten) -> None:
    module = Apply(lambda x, conv: conv(_up(x, size=(9, 17))), conv=nn.Conv2d(4, 3, 1))
    rewritten(plain(move_pointwise_down), module, 4, 5, 6, times=1)
    corners = Apply(
        lambda x, conv: conv(F.interpolate(x, size=(9, 17), mode="bilinear", align_corners=True)),
        conv=nn.Conv2d(4, 3, 1),
    )
    rewritten(plain(move_pointwise_down), corners, 4, 5, 6, times=1)


STAYS = {
    "3x3": (lambda x, conv: conv(_up(x)), nn.Conv2d(4, 3, 3, padding=1)),
    "padded": (lambda x, conv: conv(_up(x)), nn.Conv2d(4, 3, 1, padding=1)),
    "strided": (lambda x, conv: conv(_up(x)), nn.Conv2d(4, 3, 1, stride=2)),
    "grouped": (lambda x, conv: conv(_up(x)), nn.Conv2d(4, 4, 1, groups=2)),
    "read elsewhere": (lambda x, conv: _both(_up(x), conv), nn.Conv2d(4, 4, 1)),
    "down-sampling": (lambda x, conv: conv(_up(x, size=(3, 3))), nn.Conv2d(4, 3, 1)),
    "bicubic": (lambda x, conv: conv(_up(x, "bicubic")), nn.Conv2d(4, 3, 1)),
}


def _both(y: Tensor, conv: nn.Module) -> Tensor:
    return conv(y) + y


@pytest.mark.parametrize(("function", "conv"), STAYS.values(), ids=STAYS)
def test_other_convolutions_stay_behind_the_upsampling(
    function: Callable[..., Tensor], conv: nn.Module, rewritten: Rewritten
) -> None:
    rewritten(plain(move_pointwise_down), Apply(function, conv=conv), 4, 5, 6, times=0)


@pytest.mark.parametrize("bias", [True, False])
def test_a_1x1_convolution_over_parts_is_split(bias: bool, rewritten: Rewritten, calls: Calls) -> None:
    module = Apply(
        lambda x, conv: conv(
            torch.cat([x, _up(x[:, :1, :3, :3], size=(5, 6)), x * 2, _up(x)[:, :, :5, :6]], 1)
        ),
        conv=nn.Conv2d(13, 3, 1, bias=bias),
    )
    traced = rewritten(plain(split_pointwise), module, 4, 5, 6, times=1)
    # One for the up-sampled part, one for the other three together.
    assert calls(traced).count("conv2d") == 2


def test_a_1x1_convolution_over_parts_that_gain_nothing_stays(rewritten: Rewritten) -> None:
    two = Apply(lambda x, conv: conv(torch.cat([x, x * 2], 1)), conv=nn.Conv2d(8, 3, 1))
    rewritten(plain(split_pointwise), two, 4, 5, 6, times=0)

    def shared(x: Tensor, conv: nn.Module) -> Tensor:
        wide = torch.cat([x, _up(x[:, :, :3, :3], size=(5, 6))], 1)
        return conv(wide) + wide[:, :3]

    rewritten(plain(split_pointwise), Apply(shared, conv=nn.Conv2d(8, 3, 1)), 4, 5, 6, times=0)


@pytest.mark.parametrize("first_bias", [True, False])
@pytest.mark.parametrize("second_bias", [True, False])
def test_a_1x1_convolution_is_folded_into_the_one_before(
    first_bias: bool, second_bias: bool, rewritten: Rewritten, calls: Calls
) -> None:
    first = nn.Conv2d(4, 6, 3, padding=2, stride=2, dilation=2, bias=first_bias)
    module = nn.Sequential(first, nn.Conv2d(6, 2, 1, bias=second_bias))
    traced = rewritten(fold_pointwise, module, 4, 9, 8, times=1)
    assert calls(traced) == ["conv2d"]


def test_a_1x1_convolution_stays_where_folding_is_more_work_or_wrong(rewritten: Rewritten) -> None:
    widening = nn.Sequential(nn.Conv2d(4, 2, 3), nn.Conv2d(2, 16, 1))
    rewritten(fold_pointwise, widening, 4, 9, 8, times=0)
    between = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1))
    rewritten(fold_pointwise, between, 4, 9, 8, times=0)
    shared = Apply(lambda x, a, b: _both(a(x), b), a=nn.Conv2d(4, 6, 3), b=nn.Conv2d(6, 6, 1))
    rewritten(fold_pointwise, shared, 4, 9, 8, times=0)
    grouped = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Conv2d(6, 2, 1))
    rewritten(fold_pointwise, grouped, 4, 9, 8, times=0)


def test_folding_convolutions_rounds_once() -> None:
    weight, pointwise = torch.randn(6, 4, 3, 3), torch.randn(2, 6, 1, 1)
    product, total = merged_weights(weight, None, pointwise, None)
    expected = torch.einsum("om,mihw->oihw", pointwise.double()[:, :, 0, 0], weight.double())
    assert torch.equal(product, expected.float())
    assert total is None


class Fused(nn.Module):
    """The end of U2-Net: side outputs of several sizes, up-sampled, side by side, fused by a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = nn.ModuleList(nn.Conv2d(4, 1, 3, padding=1) for _ in range(3))
        self.fuse = nn.Conv2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        sides = [side(F.max_pool2d(x, 2**k) if k else x) for k, side in enumerate(self.sides)]
        wide = [_up(side, size=x.shape[2:]) if k else side for k, side in enumerate(sides)]
        return torch.sigmoid(self.fuse(torch.cat(wide, 1)))


def test_the_fused_mask_becomes_a_sum_of_upsampled_pictures(
    settle: Callable[[nn.Module], nn.Module], calls: Calls
) -> None:
    module = settle(Fused())
    x = torch.randn(3, 4, 8, 12, dtype=torch.float64)
    form = inference_form(module, {"x": x})
    torch.testing.assert_close(form.module(x), module(x), atol=1e-13, rtol=1e-13)
    assert form.rewrites["1x1 convolutions folded"] == 3
    assert calls(form.module).count("conv2d") == 3
    assert "cat" not in calls(form.module)


def test_a_factor_goes_into_the_convolution(rewritten: Rewritten, calls: Calls) -> None:
    class Gain(nn.Module):
        def __init__(self, factor: Tensor) -> None:
            super().__init__()
            self.conv, self.factor = nn.Conv2d(4, 6, 3), nn.Parameter(factor)

        def forward(self, x: Tensor) -> Tensor:
            return self.factor * self.conv(x)

    for factor in (torch.tensor([0.7]), torch.tensor(0.7), torch.randn(6, 1, 1), torch.randn(1, 6, 1, 1)):
        traced = rewritten(fold_scales, Gain(factor), 4, 5, 6, times=1)
        assert calls(traced) == ["conv2d"]
    for factor in (torch.randn(4), torch.randn(1, 6, 3, 4)):  # along the rows; at each pixel
        rewritten(fold_scales, Gain(factor), 4, 5, 6, times=0)
    two = Apply(lambda x, conv: _both(conv(x) * 2, conv), conv=nn.Conv2d(4, 4, 1))
    rewritten(fold_scales, two, 4, 5, 6, times=1)
    shared = Apply(lambda x, conv: (y := conv(x)) * 2 + y, conv=nn.Conv2d(4, 4, 1))
    rewritten(fold_scales, shared, 4, 5, 6, times=0)


def test_writes_become_values(rewritten: Rewritten, calls: Calls) -> None:
    traced = rewritten(
        remove_writes, nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True)), 4, 5, 6, times=1
    )
    assert calls(traced) == ["conv2d", "relu"]

    def read_afterwards(x: Tensor) -> Tensor:
        y = x * 2
        before = y.sum()
        y.add_(1)
        return y * before + torch.tanh(y)

    rewritten(remove_writes, Apply(read_afterwards), 4, 5, 6, times=1)


def test_writes_into_views_and_arguments_stay(rewritten: Rewritten) -> None:
    def view(x: Tensor) -> Tensor:
        y = x * 2
        part = y[:, :2]
        y.add_(1)
        return part + y[:, 2:]

    def into_view(x: Tensor) -> Tensor:
        y = x * 2
        y[:, :2].mul_(3)
        return y

    rewritten(remove_writes, Apply(view), 4, 5, 6, times=0)
    rewritten(remove_writes, Apply(into_view), 4, 5, 6, times=0)


def test_equal_calls_are_made_once(rewritten: Rewritten, calls: Calls) -> None:
    traced = rewritten(
        merge_duplicates, Apply(lambda x: torch.floor(x * 5) + torch.floor(x * 5) * (x * 5.5)), 4, times=2
    )
    assert calls(traced) == ["mul", "floor", "mul", "mul", "add"]

    def written(x: Tensor) -> Tensor:
        y = x * 2
        first = torch.tanh(y)
        y.add_(1)
        return first + torch.tanh(y)

    rewritten(merge_duplicates, Apply(written), 4, times=0)


def test_slices_and_reshapes_of_everything_vanish(rewritten: Rewritten, calls: Calls) -> None:
    traced = rewritten(
        remove_no_ops, Apply(lambda x: x[:, :4, ...].view(-1, 4).expand(-1, 4).to(x.dtype) + 1), 4, times=4
    )
    assert calls(traced) == ["add"]
    kept = rewritten(
        remove_no_ops, Apply(lambda x: x[:, :3].expand(-1, 3).reshape(-1, 1, 3)[:, :, ::2]), 4, times=3
    )
    assert calls(kept).count("slice") == 2


def test_whole_factors_are_named(rewritten: Rewritten) -> None:
    def factors(module: fx.GraphModule) -> list[list[float] | None]:
        return [node.args[-1] for node in module.graph.nodes if "upsample" in str(node.target)]

    whole = rewritten(name_factors, Apply(lambda x: _up(x, size=(10, 18))), 4, 5, 6, times=1)
    assert factors(whole) == [[2.0, 3.0]]
    rewritten(name_factors, Apply(lambda x: _up(x, "nearest", size=(10, 18))), 4, 5, 6, times=1)
    rewritten(name_factors, Apply(lambda x: _up(x, size=(10, 17))), 4, 5, 6, times=0)
    rewritten(name_factors, Apply(_up), 4, 5, 6, times=0)
