"""The losses of a natural-image CGN against formulas of their own, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from cgnrt_training.natural import losses
from cgnrt_training.natural.config import GROUPS, RECIPES, Config, PerceptualConfig
from cgnrt_training.settings import from_dict, from_texts, load_toml, override, to_dict

PIXELS = 12


@pytest.fixture
def pictures() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    a, b = torch.rand(2, 3, 3, PIXELS, PIXELS, dtype=torch.float64) * 2 - 1
    return a, b


def test_l1_is_the_mean_of_each_sample(pictures: tuple[Tensor, Tensor]) -> None:
    a, b = pictures
    expected = [np.abs(p - q).mean() for p, q in zip(a.numpy(), b.numpy(), strict=True)]
    assert losses.l1(a, b).tolist() == pytest.approx(expected, rel=1e-14)


def test_entropy_is_one_bit_at_one_half_and_symmetric() -> None:
    assert losses.binary(torch.full((2, 1, 4, 4), 0.5, dtype=torch.float64)).tolist() == [1.0, 1.0]
    p = torch.linspace(0.01, 0.99, 99, dtype=torch.float64).reshape(-1, 1, 1, 1)
    found = losses.binary(p).numpy()
    q = p.numpy().ravel()
    expected = -(q * np.log(q) + (1 - q) * np.log(1 - q)) / np.log(2)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    np.testing.assert_allclose(found, found[::-1], rtol=1e-13)


@pytest.mark.parametrize(("mean", "slope"), [(0.05, -1), (0.1001, 0), (0.5, 0), (0.8999, 0), (0.95, 1)])
def test_hinge_gradient_is_zero_inside_and_500_over_pixels_outside(mean: float, slope: int) -> None:
    mask = torch.full((1, 1, PIXELS, PIXELS), mean, dtype=torch.float64, requires_grad=True)
    loss = Config().loss.mask * losses.interval(mask, 0.1)
    assert loss.item() == pytest.approx(500 * max(0.1 - mean, mean - 0.9, 0), abs=1e-11)
    loss.sum().backward()
    assert mask.grad is not None
    torch.testing.assert_close(mask.grad, torch.full_like(mask, slope * 500 / PIXELS**2), rtol=1e-15, atol=0)


def test_hinge_is_of_each_sample_not_of_the_batch() -> None:
    mask = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1).expand(2, 1, 4, 4)
    assert losses.interval(mask, 0.1).tolist() == pytest.approx([0.1, 0.1])


def gram_by_loops(features: np.ndarray) -> np.ndarray:
    c, h, w = features.shape
    out = np.zeros((c, c))
    for i in range(c):
        for j in range(c):
            out[i, j] = (features[i] * features[j]).sum() / (c * h * w)
    return out


@pytest.mark.parametrize("distance", ["squared", "absolute"])
def test_style_weighs_the_gram_matrices_of_each_map(distance: str) -> None:
    torch.manual_seed(0)
    shapes = [(2, 3, 5, 4), (2, 4, 3, 2), (2, 2, 2, 2), (2, 5, 1, 1)]
    ours = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    theirs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    weights = (2.0, 0.0, 0.5, 3.0)
    config = replace(PerceptualConfig(), distance=distance)
    expected = []
    for n in range(2):
        total = 0.0
        for weight, a, b in zip(weights, ours, theirs, strict=True):
            difference = gram_by_loops(a[n].numpy()) - gram_by_loops(b[n].numpy())
            total += weight * ((difference**2).sum() if distance == "squared" else np.abs(difference).mean())
        expected.append(total)
    assert losses.style(ours, theirs, weights, config).tolist() == pytest.approx(expected, rel=1e-12)
    # Maps beyond the last weight need not be there.
    assert losses.style(ours[:1], theirs[:1], (2.0, 0, 0, 0), config).shape == (2,)


def test_saliency_and_residue() -> None:
    found = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    found[0, 0, 0] = 1.0  # a row
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    mask[:, :, :2] = 0.5  # two rows
    assert losses.saliency(found).tolist() == [0.25, 0.0]
    assert losses.residue(found, mask).tolist() == [0.5, 0.0]
    assert losses.residue(found, torch.zeros_like(mask)).tolist() == [0.0, 0.0]
    found.requires_grad_()
    mask.requires_grad_()
    losses.residue(found, mask).sum().backward()
    assert mask.grad is None


def test_defaults_are_those_of_the_paper() -> None:
    """Eq. 4 and App. C.3."""
    loss, rates, patches, train = Config().loss, Config().optimizer, Config().patches, Config().train
    assert [loss.l1, loss.perceptual, loss.binary, loss.mask] == [100, 5, 300, 500]
    assert [loss.texture, loss.background, loss.tau] == [5, 2000, 0.1]
    assert [rates.lr_shape, rates.lr_texture, rates.lr_background] == [8e-6, 1e-5, 1e-5]
    assert [patches.patch, patches.grid, patches.source] == [15, 6, "composite"]
    assert [train.pseudo_batch, train.micro_batch, train.truncation] == [4000, 1, 1.0]


def test_recipe_for_small_cgans() -> None:
    """Its patches fit into pictures of 32 px, too, and all losses are on."""
    config = override(Config(), load_toml("small", RECIPES))
    assert config.patches.patch <= 16
    assert all((config.loss.l1, config.loss.perceptual, config.loss.texture, config.loss.background))
    assert config.train.pseudo_batch % config.train.micro_batch == 0


def test_recipe_of_the_authors_code() -> None:
    config = override(Config(), load_toml("authors-code", RECIPES))
    style = config.perceptual
    assert style.reconstruction == (4.0**2 * 5000,) * 4
    assert style.texture == (0, 5.0**2 * 5000, 5.0**2 * 5000, 0)
    assert (style.taps, style.normalise, style.distance) == ("relus", False, "absolute")
    assert (config.patches.source, config.optimizer.lr_texture) == ("teacher", 3e-5)
    assert config.train.power_iteration == "micro-batch"
    assert from_dict(Config, to_dict(config)) == config


@pytest.mark.parametrize("group", list(GROUPS))
def test_a_group_of_losses_off(group: str) -> None:
    before, after = Config().loss, Config().without(group).loss
    changed = {name for name in to_dict(before) if getattr(before, name) != getattr(after, name)}
    assert changed == {name for name in GROUPS[group] if getattr(before, name)}
    assert all(getattr(after, name) == 0 for name in changed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss.l1=-1", "loss.l1 is -1.0, expected >= 0"),
        ("loss.tau=0.5", "loss.tau is 0.5, expected below 0.5"),
        ("loss.l2=1", "key is 'loss.l2', expected one of loss.l1"),
        ("perceptual.taps=convs", "perceptual.taps is 'convs', expected one of pools, relus"),
        ("perceptual.texture=[1, 1]", "perceptual.texture is .*, expected a list of 4 numbers"),
        ("patches.patch=300", r"patches.patch is 300, expected in 1\.\.255"),
        ("patches.resolution=4", "patches.patch is 15, expected at most patches.resolution 4"),
        ("patches.resolution=16", "patches.top is 100, expected at most the 4 windows"),
        ("patches.smallest=16", "patches.smallest is 16, expected at most patches.patch 15"),
        ("optimizer.beta1=1.0", r"optimizer.beta1 is 1.0, expected in \[0, 1\)"),
        ("train.truncation=0.01", "train.truncation is 0.01, expected in 0.02..1"),
        ("train.micro_batch=0", "train.micro_batch is 0, expected > 0"),
        ("train.power_iteration=always", "expected one of update, micro-batch, off"),
        ("train.seed=-1", r"train.seed is -1, expected in 0\.\.9223372036854775807"),
    ],
)
def test_settings_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_texts(Config(), [text])


def test_all_losses_off_are_refused() -> None:
    off = dict.fromkeys(vars(Config().loss), 0.0) | {"tau": 0.1}
    with pytest.raises(ValueError, match=r"loss is \{'l1': 0\.0, .*\}, expected a weight > 0"):
        override(Config(), {"loss": off})


def test_losses_of_a_batch_are_those_of_its_samples(pictures: tuple[Tensor, Tensor]) -> None:
    a, b = pictures
    mask = (a[:, :1] + 1) / 2 * 0.99 + 0.005
    maps: Callable[[Tensor], list[Tensor]] = lambda x: [x, x[:, :2]]  # noqa: E731
    for loss in (
        lambda s: losses.l1(a[s], b[s]),
        lambda s: losses.binary(mask[s]),
        lambda s: losses.interval(mask[s] * 0.1, 0.1),
        lambda s: losses.saliency(mask[s]),
        lambda s: losses.residue(mask[s], b[s, :1].abs()),
        lambda s: losses.style(maps(a[s]), maps(b[s]), (1.0, 1.0, 0, 0), PerceptualConfig()),
    ):
        whole = loss(slice(None))
        apart = torch.cat([loss(slice(k, k + 1)) for k in range(3)])
        torch.testing.assert_close(whole, apart, rtol=1e-13, atol=0)
