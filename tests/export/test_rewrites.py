"""Every rewrite in float64: the same function to the last digits, and untouched where it would not be."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from cgnrt_export.graph import trace
from cgnrt_export.inference import InferenceForm, count_macs, inference_form
from cgnrt_export.rewrites.batch_norm import fold_batch_norm, fold_into_weights
from cgnrt_export.rewrites.constants import fold_constants
from cgnrt_export.rewrites.no_ops import remove_no_ops
from cgnrt_export.rewrites.upsample import merge_upsampling, transposed_weight

# Sums of some hundred products of numbers near 1: a few units in the 15th digit. Rounding in float32 (1e-7)
# or a wrong tap (1e-1) would show.
TOLERANCE = 1e-12


Rewritten = Callable[..., fx.GraphModule]
Calls = Callable[[fx.GraphModule], list[str]]
Form = Callable[..., InferenceForm]


@pytest.fixture
def make_form(settle: Callable[[nn.Module], nn.Module]) -> Form:
    """The inference form of a module, checked against it."""

    def make(module: nn.Module, *shape: int) -> InferenceForm:
        module = settle(module)
        x = torch.randn(3, *shape, dtype=torch.float64)
        form = inference_form(module, {"x": x})
        torch.testing.assert_close(form.module(x), module(x), atol=TOLERANCE, rtol=TOLERANCE)
        return form

    return make


CONVOLUTIONS = {
    "plain": lambda: nn.Conv2d(4, 6, 3),
    "without bias": lambda: nn.Conv2d(4, 6, 3, bias=False),
    "odd stride and kernel": lambda: nn.Conv2d(4, 6, (3, 5), stride=(2, 3), padding=(1, 2)),
    "dilated": lambda: nn.Conv2d(4, 6, 3, dilation=2),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4, bias=False),
    "same padding": lambda: nn.Conv2d(4, 6, 3, padding="same"),
    "reflect padding": lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1),
    "transposed, grouped": lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False),
    "transposed, output padding": lambda: nn.ConvTranspose2d(4, 5, 3, stride=3, output_padding=1),
}


@pytest.mark.parametrize("make", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_batch_norm_goes_into_the_convolution(
    make: Callable[[], nn.Module], rewritten: Rewritten, calls: Calls
) -> None:
    layer = make()
    module = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU())
    traced = rewritten(fold_batch_norm, module, 4, 9, 11, times=1)
    assert "batch_norm" not in calls(traced)


@pytest.mark.parametrize("dimensions", [1, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_batch_norm_in_one_and_three_dimensions(
    dimensions: int, transposed: bool, rewritten: Rewritten
) -> None:
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{dimensions}d")
    norm = getattr(nn, f"BatchNorm{dimensions}d")(6)
    rewritten(fold_batch_norm, nn.Sequential(kind(4, 6, 3), norm), 4, *[7] * dimensions, times=1)


@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_goes_into_the_linear_layer(bias: bool, rewritten: Rewritten) -> None:
    rewritten(fold_batch_norm, nn.Sequential(nn.Linear(5, 7, bias=bias), nn.BatchNorm1d(7)), 5, times=1)


def test_batch_norm_without_weights_of_its_own(rewritten: Rewritten) -> None:
    rewritten(
        fold_batch_norm, nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, affine=False)), 2, 5, 5, times=1
    )


class _SequenceNorm(nn.Module):
    """Batch norm over axis 1 of (n, length, features): not the axis that the linear layer made."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(5, 7), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


class _Shared(nn.Module):
    """The convolution's own result is needed as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        return h + self.norm(h)


class _InPlace(nn.Module):
    """The convolution's result is written to before the batch norm reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        h.relu_()
        return self.norm(h)


class _OneConvolutionTwice(nn.Module):
    """One layer with two batch norms: each use gets weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.conv(self.a(self.conv(x))))


def test_batch_norm_stays_where_folding_would_change_the_function(rewritten: Rewritten) -> None:
    rewritten(fold_batch_norm, _SequenceNorm(), 4, 5, times=0)
    rewritten(fold_batch_norm, _Shared(), 2, 5, 5, times=0)
    rewritten(fold_batch_norm, _InPlace(), 2, 5, 5, times=0)
    rewritten(
        fold_batch_norm, nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU(), nn.BatchNorm2d(2)), 2, 5, 5, times=0
    )
    rewritten(
        fold_batch_norm, nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3, padding=1)), 2, 5, 5, times=0
    )


def test_one_convolution_used_twice(rewritten: Rewritten) -> None:
    rewritten(fold_batch_norm, _OneConvolutionTwice(), 2, 5, 5, times=2)


def test_folding_rounds_once() -> None:
    weight, scale = torch.randn(3, 2, 1, 1), torch.rand(3, dtype=torch.float64)
    shift = torch.rand(3, dtype=torch.float64)
    folded, bias = fold_into_weights(weight, None, scale, shift)
    assert folded.dtype == bias.dtype == torch.float32
    assert torch.equal(folded, (weight.double() * scale[:, None, None, None]).float())
    assert torch.equal(bias, shift.float())


@pytest.mark.parametrize("kernel", [3, 5, 7, (3, 5), (1, 3)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4)])
def test_upsampling_and_convolution_become_one(
    kernel: int | tuple[int, int], bias: bool, size: tuple[int, int], rewritten: Rewritten, calls: Calls
) -> None:
    convolution = nn.Conv2d(3, 4, kernel, padding="same", bias=bias)
    traced = rewritten(
        merge_upsampling, nn.Sequential(nn.Upsample(scale_factor=2), convolution), 3, *size, times=1
    )
    assert calls(traced) == ["conv_transpose2d"]


def test_the_3x3_kernel_has_known_sums() -> None:
    weight = torch.arange(1.0, 10).reshape(1, 1, 3, 3)
    # Rows and columns are the taps 2, 1 + 2, 0 + 1, 0.
    expected = torch.tensor([[9.0, 17, 15, 7], [15, 28, 24, 11], [9, 16, 12, 5], [3, 5, 3, 1]])
    assert torch.equal(transposed_weight(weight)[0, 0], expected)


class _Functional(nn.Module):
    """Written without a module for the up-sampling, by size instead of scale, with two readers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 3, 5, padding=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        wide = F.interpolate(x, size=(10, 14))
        return self.a(wide) * torch.tanh(self.b(wide))


class _ReadTwice(nn.Module):
    """Something else reads the up-sampled image, so it is made anyway."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        wide = F.interpolate(x, scale_factor=2)
        return wide + self.conv(wide)


class _SourceWritten(nn.Module):
    """The small image is written to after it was up-sampled."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = x * 2
        wide = F.interpolate(h, scale_factor=2)
        h.add_(1)
        return self.conv(wide) + F.interpolate(h, scale_factor=2, mode="bilinear")


def test_upsampling_in_functional_style(rewritten: Rewritten) -> None:
    rewritten(merge_upsampling, _Functional(), 2, 5, 7, times=2)
    rewritten(merge_upsampling, _SourceWritten(), 2, 5, 7, times=1)
    exact = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest-exact"), nn.Conv2d(2, 3, 3, padding=1))
    rewritten(merge_upsampling, exact, 2, 5, 7, times=1)


NOT_MERGED = {
    "strided": (nn.Upsample(scale_factor=2), nn.Conv2d(2, 4, 3, padding=1, stride=2)),
    "dilated": (nn.Upsample(scale_factor=2), nn.Conv2d(2, 4, 3, padding=2, dilation=2)),
    "not padded": (nn.Upsample(scale_factor=2), nn.Conv2d(2, 4, 3)),
    "padded by reflection": (
        nn.Upsample(scale_factor=2),
        nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"),
    ),
    "even kernel": (nn.Upsample(scale_factor=2), nn.Conv2d(2, 4, 4, padding=2)),
    "1x1": (nn.Upsample(scale_factor=2), nn.Conv2d(2, 4, 1)),
    "grouped": (nn.Upsample(scale_factor=2), nn.Conv2d(2, 4, 3, padding=1, groups=2)),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(2, 4, 3, padding=1)),
    "x3": (nn.Upsample(scale_factor=3), nn.Conv2d(2, 4, 3, padding=1)),
    "x2 in one direction": (nn.Upsample(scale_factor=(2, 1)), nn.Conv2d(2, 4, 3, padding=1)),
    "activation between": (nn.Upsample(scale_factor=2), nn.ReLU(), nn.Conv2d(2, 4, 3, padding=1)),
}


@pytest.mark.parametrize("layers", NOT_MERGED.values(), ids=NOT_MERGED)
def test_other_upsampling_stays(layers: tuple[nn.Module, ...], rewritten: Rewritten) -> None:
    rewritten(merge_upsampling, nn.Sequential(*layers), 2, 5, 6, times=0)


def test_upsampling_stays_where_it_is_read_by_others(rewritten: Rewritten) -> None:
    rewritten(merge_upsampling, _ReadTwice(), 2, 5, 6, times=0)


def test_dropout_and_identity_vanish(rewritten: Rewritten, calls: Calls) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Identity(), nn.AlphaDropout(0.1), nn.Tanh())
    traced = rewritten(remove_no_ops, module, 4, times=2)
    assert calls(traced) == ["linear", "tanh"]


def test_parametrised_weights_become_tensors(rewritten: Rewritten, calls: Calls, make_form: Form) -> None:
    spectral = nn.utils.parametrizations.spectral_norm(nn.Conv2d(2, 3, 3, padding=1))
    weight_norm = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
    traced = rewritten(
        fold_constants, nn.Sequential(weight_norm, nn.Unflatten(1, (5, 1)), nn.Flatten()), 4, times=1
    )
    assert "_weight_norm_interface" not in calls(traced)
    form = make_form(nn.Sequential(nn.Upsample(scale_factor=2), spectral, nn.BatchNorm2d(3)), 2, 5, 5)
    assert calls(form.module) == ["conv_transpose2d"]


class _Noisy(nn.Module):
    """Random numbers depend on no input and are not a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn(4)


def test_random_numbers_are_no_constants() -> None:
    assert fold_constants(trace(_Noisy(), {"x": torch.zeros(3, 4)})) == 0


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Upsample(scale_factor=2),
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.Dropout2d(0.1),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.2),
    ]


def test_the_whole_chain(make_form: Form) -> None:
    module = nn.Sequential(
        nn.Linear(6, 8 * 4 * 4),
        nn.Unflatten(1, (8, 4, 4)),
        nn.InstanceNorm2d(8),
        *_block(8, 4),
        *_block(4, 2),
    )
    form = make_form(module, 6)
    assert {name: count for name, count in form.rewrites.items() if count} == {
        "no-ops removed": 2,
        "batch norms folded": 2,
        "up-samplings merged": 2,
    }
    linear, first, second = 6 * 128, 8 * 4 * 8 * 8, 4 * 2 * 16 * 16
    assert form.macs_before == linear + 9 * first + 9 * second
    assert form.macs_after == linear + 4 * first + 4 * second
    # Nothing that the graph does not read is carried along.
    assert len(form.module.state_dict()) == 6


def test_a_module_without_patterns_stays(make_form: Form) -> None:
    form = make_form(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), 3)
    assert not any(form.rewrites.values())
    assert form.macs_before == form.macs_after == 12


def test_training_mode_is_left_alone() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    statistics = copy.deepcopy(module.state_dict())
    inference_form(module, {"x": torch.randn(3, 3)})
    assert all(part.training for part in module.modules())
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(statistics[key], value) for key, value in module.state_dict().items())


def test_count_macs() -> None:
    assert count_macs(nn.Conv2d(3, 5, 3, groups=1), torch.zeros(2, 3, 6, 6)) == 2 * 3 * 5 * 9 * 16
    assert count_macs(nn.ConvTranspose2d(3, 5, 4, 2, 1), torch.zeros(1, 3, 6, 6)) == 3 * 5 * 16 * 36
    assert count_macs(nn.Linear(3, 5), torch.zeros(2, 3)) == 30
