from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cgnrt_training.mnist.discriminators import DiscConv, DiscLin, DiscStrided, standardise
from cgnrt_training.mnist.models import (
    CGN,
    MASK_RANGE,
    Parts,
    compose,
    cyclic_shift,
    run_fused,
    upsample_conv,
)


def _texture(name: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"0.weight": (4096, 42), "0.bias": (4096,)}
    shapes |= {"3.weight": (64, 64, 3, 3)} | _norm(4, 64)
    shapes |= {"7.weight": (32, 64, 3, 3)} | _norm(8, 32)
    shapes |= {"10.weight": (3, 32, 3, 3), "10.bias": (3,)} | _norm(11, 3)
    return {f"{name}.{key}": shape for key, shape in shapes.items()}


def _norm(place: int, size: int) -> dict[str, tuple[int, ...]]:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{place}.{name}": (size,) for name in names} | {f"{place}.num_batches_tracked": ()}


# The 57 tensors of the authors' published checkpoints.
AUTHORS = {
    "label_emb.weight": (10, 10),
    "f_shape.0.weight": (4096, 42),
    "f_shape.0.bias": (4096,),
    "f_shape.4.weight": (32, 64, 3, 3),
    **{f"f_shape.{key}": shape for key, shape in _norm(5, 32).items()},
    "f_shape.9.weight": (1, 32, 3, 3),
    **{f"f_shape.{key}": shape for key, shape in _norm(10, 1).items()},
    **_texture("f_text1"),
    **_texture("f_text2"),
}


def test_state_has_the_names_and_shapes_of_the_authors() -> None:
    state = {key: tuple(tensor.shape) for key, tensor in CGN().state_dict().items()}
    assert len(AUTHORS) == 57
    assert list(state.items()) == list(AUTHORS.items())


@pytest.mark.parametrize("init", ["orthogonal", "normal"])
def test_forward(init) -> None:
    torch.manual_seed(0)
    cgn = CGN(10, 8, 4, 16, init=init)
    parts = cgn(torch.arange(10))
    assert parts.mask.shape == (10, 1, 16, 16)
    assert parts.foreground.shape == parts.background.shape == (10, 3, 16, 16)
    assert parts.mask.min() >= MASK_RANGE[0]
    assert parts.mask.max() <= MASK_RANGE[1]
    assert parts.foreground.abs().max() <= 1
    composite = compose(parts)
    assert composite.shape == (10, 3, 16, 16)
    assert composite.abs().max() <= 1


def test_empty_batch() -> None:
    parts = CGN(10, 8, 4, 16).eval()(torch.zeros(0, dtype=torch.int64))
    assert parts.mask.shape == (0, 1, 16, 16)


def test_compose_is_equation_2() -> None:
    mask = torch.tensor([0.25]).reshape(1, 1, 1, 1)
    parts = Parts(mask, torch.full((1, 3, 1, 1), 1.0), torch.full((1, 3, 1, 1), -1.0))
    assert torch.equal(compose(parts), torch.full((1, 3, 1, 1), -0.5))


@torch.no_grad()
def test_mechanisms_are_independent() -> None:
    """A label or noise moves its own mechanism and no other (Sec. 2.2)."""
    cgn = CGN(10, 8, 4, 16, gain=1.0).eval()
    y, other = torch.arange(4), torch.arange(4) + 4
    noise, shifts = torch.randn(4, 3, 8), torch.zeros(4, 2, 2, dtype=torch.int64)
    before = cgn(y, noise=noise, shifts=shifts)
    for k, labels in enumerate([(other, y, y), (y, other, y), (y, y, other)]):
        after = cgn(*labels, noise=noise, shifts=shifts)
        assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [j != k for j in range(3)]
        changed = noise.clone()
        changed[:, k] += 1
        after = cgn(y, noise=changed, shifts=shifts)
        assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [j != k for j in range(3)]


@torch.no_grad()
def test_generator_decides_all_draws() -> None:
    cgn = CGN(10, 8, 4, 16).eval()
    a, b = (cgn(torch.arange(4), generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_cyclic_shift_is_a_roll() -> None:
    images, shifts = torch.randn(5, 3, 6, 8), torch.randint(-9, 9, (5, 2))
    rolled = cyclic_shift(images, shifts)
    for image, shift, got in zip(images, shifts.tolist(), rolled, strict=True):
        assert torch.equal(got, torch.roll(image, shift, (1, 2)))


def test_cyclic_shift_gradient() -> None:
    images = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    shifts = torch.randint(4, (3, 2))
    assert torch.autograd.gradcheck(lambda x: cyclic_shift(x, shifts), images)


def test_upsample_conv_is_up_sampling_then_convolution() -> None:
    x = torch.randn(2, 5, 7, 6, dtype=torch.float64)
    weight = torch.randn(4, 5, 3, 3, dtype=torch.float64)
    expected = F.conv2d(F.interpolate(x, scale_factor=2), weight, padding=1)
    # Another order of the sums: rounding only.
    torch.testing.assert_close(upsample_conv(x, weight), expected, rtol=1e-12, atol=1e-12)


def test_fused_is_the_same_function() -> None:
    torch.manual_seed(0)
    cgn = CGN(10, 8, 4, 16).double()
    noise, shifts = torch.randn(10, 3, 8, dtype=torch.float64), torch.randint(16, (10, 2, 2))
    results = []
    for fused in (False, True):
        cgn.fused = fused
        cgn.zero_grad()
        parts = cgn(torch.arange(10), noise=noise, shifts=shifts)
        compose(parts).square().sum().backward()
        results.append((*parts, *(p.grad for p in cgn.parameters())))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)  # fp64 rounding through instance norms


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("padding", "seamless"), [("circular", True), ("zeros", False)])
def test_circular_textures_roll_with_their_first_map(padding, seamless: bool, fused: bool) -> None:
    """Behind the linear layer a texture mechanism knows no place: a roll by 1 there is a roll by 4 of the picture."""
    torch.manual_seed(0)
    cgn = CGN(10, 8, 4, 16, init="normal", gain=0.5, texture_padding=padding).double().eval()
    for mechanism in (cgn.f_text1, cgn.f_text2):
        layers = mechanism[2:]
        first = torch.randn(2, 8, 4, 4, dtype=torch.float64)

        def draw(x: torch.Tensor, layers: torch.nn.Sequential = layers) -> torch.Tensor:
            picture: torch.Tensor = run_fused(layers, x) if fused else layers(x)
            return picture

        rolled = draw(first.roll((1, 2), (2, 3)))
        assert torch.allclose(draw(first).roll((4, 8), (2, 3)), rolled, atol=1e-12) == seamless


def test_texture_reuse_shares_textures_not_shapes_or_rolls() -> None:
    cgn = CGN(10, 8, 4, 16).eval()
    y = torch.tensor([3, 3, 5, 5])
    noise, shifts = torch.randn(4, 3, 8), torch.zeros(4, 2, 2, dtype=torch.int64)
    alone = cgn(y, noise=noise, shifts=shifts)
    shared = cgn(y, noise=noise, shifts=shifts, texture_reuse=2)
    torch.testing.assert_close(shared.mask, alone.mask)
    torch.testing.assert_close(shared.foreground, alone.foreground[[0, 0, 2, 2]], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="n is 4, expected a multiple of texture_reuse 3"):
        cgn(y, texture_reuse=3)


def test_resolution_is_checked() -> None:
    with pytest.raises(ValueError, match="resolution is 30, expected a positive multiple of 4"):
        CGN(resolution=30)


def test_standardise_brings_faint_shapes_out() -> None:
    image = torch.full((1, 3, 8, 8), 0.5)
    image[:, 0, :4] += 2.0
    image[:, 1, :4] += 0.5
    seen = standardise(image)
    assert seen.mean((2, 3)).abs().max() < 1e-6
    assert seen[0, 1].std() > 0.7 * seen[0, 0].std() > 0.6
    assert seen[0, 2].abs().max() == 0  # a flat channel stays flat


@pytest.mark.parametrize(("projection", "contrast"), [(False, False), (True, True)])
@pytest.mark.parametrize("kind", [DiscLin, DiscConv, DiscStrided])
def test_discriminators_see_the_label(kind, projection: bool, contrast: bool) -> None:
    torch.manual_seed(0)
    discriminator = kind(width=8, projection=projection, contrast=contrast).eval().requires_grad_(False)
    images = torch.randn(1, 3, 32, 32).expand(4, -1, -1, -1)
    scores = discriminator(images, torch.tensor([0, 0, 1, 2]))
    assert scores.shape == (4,)
    assert scores[0] == pytest.approx(scores[1].item(), rel=1e-5)
    assert scores[0] != scores[2] != scores[3]
