"""Inference forms with half-precision pictures: how near they are, and what stays float32."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from cgnrt_export.graph import is_call
from cgnrt_export.half import with_half_pictures
from cgnrt_export.inference import inference_form
from cgnrt_training.imagenet.biggan import BigGANConfig
from cgnrt_training.imagenet.calibrate import random_biggan
from cgnrt_training.imagenet.cgn import MASK_RANGE, ShapeMechanism
from cgnrt_training.imagenet.u2net import FULL, ResidualU, Stage


def psnr(pictures: Tensor, truth: Tensor, width: float) -> float:
    return 10 * math.log10(width**2 / float((pictures.double() - truth.double()).square().mean()))


def calls(module: fx.GraphModule, *names: str) -> list[fx.Node]:
    return [node for node in module.graph.nodes if is_call(node, *names)]


class Head(nn.Module):
    """One of the small U-Nets that U2-Net is made of, and its last layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = ResidualU(4, 3, Stage(8, 16), dilated=False, config=FULL)
        self.side = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self.side(self.stage(image)))


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "noise": torch.randn(3, 6, generator=draw).clamp(-2, 2),
        "class_embedding": torch.randn(3, 6, generator=draw),
        "truncation": torch.tensor([[0.5], [0.37], [1.0]]),
    }


@pytest.fixture(scope="module")
def form(inputs: dict[str, Tensor]) -> fx.GraphModule:
    """Of a shape mechanism: a small BigGAN with attention and up-samplings, and a saliency head."""
    blocks = ((False, 16, 8), (True, 8, 4), (False, 4, 2), (True, 2, 1))
    config = BigGANConfig(blocks=blocks, channel_width=4, z_dim=6, num_classes=3, attention=2, n_stats=11)
    biggan = random_biggan(config, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    return inference_form(ShapeMechanism(biggan, Head()).eval(), inputs).module


# Sums of a few hundred products, of operands with 11 or 8 bits; some ten layers behind one another.
@pytest.mark.parametrize(("dtype", "decibels"), [(torch.float16, 50), (torch.bfloat16, 30)])
def test_it_is_near_the_float32_form(
    form: fx.GraphModule, inputs: dict[str, Tensor], dtype: torch.dtype, decibels: float
) -> None:
    before = {name: value.clone() for name, value in form.state_dict().items()}
    half = with_half_pictures(form, dtype)
    with torch.no_grad():
        expected = form(*inputs.values())
        for module in (half, half.to(memory_format=torch.channels_last)):
            found = module(*inputs.values())
            for picture, truth, width in zip(found, expected, (1, 2), strict=True):
                assert picture.dtype == torch.float32
                assert psnr(picture, truth, width) > decibels
    assert all(torch.equal(value, before[name]) for name, value in form.state_dict().items())


def test_layers_of_pictures_are_half_and_vectors_float32(form: fx.GraphModule) -> None:
    half = with_half_pictures(form)
    types = {name: value.dtype for name, value in half.named_buffers()} | {
        name: value.dtype for name, value in half.named_parameters()
    }
    layers = calls(half, "conv2d", "conv_transpose2d")
    assert layers
    assert {types[str(node.args[1].target)] for node in layers} == {torch.float16}
    linears = calls(half, "linear")
    assert linears
    assert {types[str(node.args[1].target)] for node in linears} == {torch.float32}
    assert {types[str(node.args[0].target)] for node in calls(half, "embedding")} == {torch.float32}
    # Each weight is kept once.
    assert not [node for node in half.graph.nodes if node.op == "get_attr" and not node.users]
    assert set(types) == {str(node.target) for node in half.graph.nodes if node.op == "get_attr"}


def test_a_mask_keeps_its_bounds() -> None:
    class Mask(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(1000 * self.layer(x)).clamp(*MASK_RANGE)

    given = {"x": torch.randn(3, 3, 8, 8)}
    half = with_half_pictures(inference_form(Mask().eval(), given).module)
    with torch.no_grad():
        masks = half(*given.values())
    assert masks.max() == torch.tensor(MASK_RANGE[1])
    assert masks.min() == torch.tensor(MASK_RANGE[0])
    assert torch.tensor(MASK_RANGE[1]).half() == 1


@pytest.mark.parametrize("squash", [torch.tanh, torch.sigmoid])
def test_a_mechanism_of_vectors_alone_is_left_as_it_is(squash: Callable[[Tensor], Tensor]) -> None:
    class Vectors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 3 * 8 * 8)

        def forward(self, noise: Tensor) -> Tensor:
            return squash(self.layer(noise)).unflatten(1, (3, 8, 8))

    given = {"noise": torch.randn(3, 5)}
    form = inference_form(Vectors().eval(), given).module
    half = with_half_pictures(form)
    with torch.no_grad():
        assert torch.equal(half(*given.values()), form(*given.values()))


def test_what_is_no_half_precision_is_refused(form: fx.GraphModule) -> None:
    with pytest.raises(ValueError, match=r"dtype is torch.float64, expected torch.float16 or torch.bfloat16"):
        with_half_pictures(form, torch.float64)
