"""BigGAN-deep against `pytorch_pretrained_biggan`, in float64."""

from __future__ import annotations

import pytest
import torch
from pytorch_pretrained_biggan import BigGAN as Reference
from pytorch_pretrained_biggan import BigGANConfig as ReferenceConfig
from torch import Tensor

from cgnrt_training.imagenet.biggan import BLOCKS, BatchNorm, BigGAN, BigGANConfig
from cgnrt_training.imagenet.statistics import grid_rows, look_up

WIDTH = 8
# Sums of a few thousand products of numbers near 1, in another order: a few units in the 14th digit.
TOLERANCE = 1e-12
OFF_BY_ONE = {0.14: 8, 0.28: 15, 0.56: 29, 0.58: 28, 0.94: 46}


@pytest.fixture(scope="module")
def reference() -> Reference:
    """With spectral norms that have converged somewhat, and every tensor at work."""
    torch.manual_seed(0)
    model = Reference(ReferenceConfig(channel_width=WIDTH)).double()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith(("running_means", ".bias")):
                tensor.normal_()
            elif name.endswith(("running_vars", "bn.weight")):
                tensor.uniform_(0.5, 2)
            elif name.endswith("gamma"):
                tensor.fill_(0.7)
        for _ in range(3):
            model(torch.randn(2, 128).double(), torch.eye(1000)[:2].double(), 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def ours(reference: Reference) -> BigGAN:
    model = BigGAN(BigGANConfig.of_resolution(128, channel_width=WIDTH)).double()
    model.load_state_dict(reference.state_dict(), strict=True)
    return model.eval()


@pytest.fixture(scope="module")
def noise() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 128).double()


def _expected(reference: Reference, noise: Tensor, truncation: float) -> Tensor:
    one_hot = torch.nn.functional.one_hot(torch.tensor([3, 999]), 1000).double()
    with torch.no_grad():
        return reference(noise, one_hot, truncation)


def _drawn(ours: BigGAN, noise: Tensor, *truncation: float, dtype: torch.dtype = torch.float64) -> Tensor:
    given = torch.tensor(truncation, dtype=dtype).double()[:, None].expand(len(noise), 1)
    with torch.no_grad():
        return ours(noise, ours.embedding_table[[3, 999]], given)


@pytest.mark.parametrize("truncation", [0.02, *OFF_BY_ONE, 0.3, 0.37, 0.5, 0.019999, 1.0])
def test_pictures_are_those_of_the_reference(
    reference: Reference, ours: BigGAN, noise: Tensor, truncation: float
) -> None:
    expected = _expected(reference, noise, truncation)
    assert 0.3 < expected.std() < 0.95, "flat or saturated: nothing is compared"
    torch.testing.assert_close(_drawn(ours, noise, truncation), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("truncation", [*OFF_BY_ONE, 0.3, 0.5, 0.7, 1.0])
def test_a_float32_truncation_on_the_grid_is_exact(
    reference: Reference, ours: BigGAN, noise: Tensor, truncation: float
) -> None:
    drawn = _drawn(ours, noise, truncation, dtype=torch.float32)
    torch.testing.assert_close(drawn, _expected(reference, noise, truncation), rtol=0, atol=TOLERANCE)


def test_a_float32_truncation_between_is_as_near_as_float32_is(
    reference: Reference, ours: BigGAN, noise: Tensor
) -> None:
    drawn = _drawn(ours, noise, 0.37, dtype=torch.float32)
    torch.testing.assert_close(drawn, _expected(reference, noise, 0.37), rtol=0, atol=1e-5)


def test_each_sample_has_its_own_truncation(reference: Reference, ours: BigGAN, noise: Tensor) -> None:
    mixed = _drawn(ours, noise, 0.14, 0.37)
    for k, truncation in enumerate((0.14, 0.37)):
        expected = _expected(reference, noise, truncation)
        torch.testing.assert_close(mixed[k], expected[k], rtol=0, atol=TOLERANCE)
    assert (mixed[0] - _expected(reference, noise, 0.37)[0]).abs().max() > 0.01, "truncation does nothing"


def test_the_rows_are_those_that_the_reference_reads(reference: Reference) -> None:
    """Statistics that say which row they are, through the reference's own batch norm."""
    norm = reference.generator.bn
    saved = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    try:
        norm.running_means.copy_(-torch.arange(51)[:, None].double().expand(-1, WIDTH))
        norm.running_vars.fill_(1 - norm.eps)
        with torch.no_grad():
            norm.weight.fill_(1)
            norm.bias.fill_(0)
        grid = grid_rows()
        for k in range(1, 51):
            row = norm(torch.zeros(1, WIDTH, 1, 1).double(), k / 50).mean().item()
            assert row == pytest.approx(int(grid[k]), abs=1e-9)
            rows = look_up(torch.tensor([[k / 50]]), grid)
            assert int(rows.first) == int(grid[k])
            assert float(rows.weight) == 1
    finally:
        norm.load_state_dict(saved)
    assert {k / 50: int(grid[k]) for k in range(51) if grid[k] != k} == OFF_BY_ONE


def test_truncations_beside_the_grid_are_not_snapped() -> None:
    rows = look_up(torch.tensor([[0.300001], [0.299999], [0.31]]), grid_rows())
    assert rows.first.tolist() == [15, 14, 15]
    assert rows.second.tolist() == [16, 15, 16]
    assert rows.weight[:, 0].tolist() == pytest.approx([5e-5, 1 - 5e-5, 0.5], abs=1e-5)


def test_training_iterates_the_spectral_norm_as_the_reference_does(
    reference: Reference, ours: BigGAN, noise: Tensor
) -> None:
    saved = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    try:
        reference.train()
        ours.train()
        for module in ours.modules():
            if isinstance(module, BatchNorm):
                module.training = False  # the reference takes stored statistics then, too; its layers train
        expected = reference(noise, torch.eye(1000)[[3, 999]].double(), 0.5)
        given = torch.full((2, 1), 0.5).double()
        drawn = ours(noise, ours.embedding_table[[3, 999]], given)
        torch.testing.assert_close(drawn, expected, rtol=0, atol=TOLERANCE)
        expected.square().sum().backward()
        drawn.square().sum().backward()
        for name in ("generator.gen_z.weight_orig", "generator.layers.3.bn_1.scale.weight_orig"):
            right, got = reference.get_parameter(name).grad, ours.get_parameter(name).grad
            torch.testing.assert_close(got, right, rtol=1e-9, atol=1e-12)
        for name, tensor in reference.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=0, atol=TOLERANCE)
    finally:
        for model in (reference, ours):
            model.load_state_dict(saved)
            model.eval()
            model.zero_grad()


def test_keys_and_shapes_of_the_published_128_px_model() -> None:
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in Reference(ReferenceConfig()).state_dict().items()}
    with torch.device("meta"):
        found = {
            name: tensor.shape
            for name, tensor in BigGAN(BigGANConfig.of_resolution(128)).state_dict().items()
        }
    assert found == expected
    assert found["embeddings.weight"] == (128, 1000)
    assert found["generator.layers.8.gamma"] == (1,)


@pytest.mark.parametrize(("resolution", "millions"), [(128, 50.4), (256, 55.9), (512, 56.2)])
def test_sizes_of_the_published_models(resolution: int, millions: float) -> None:
    config = BigGANConfig.of_resolution(resolution)
    assert config.resolution == resolution
    with torch.device("meta"):
        count = sum(p.numel() for p in BigGAN(config).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.06)
    assert config.blocks == BLOCKS[resolution]


def test_there_is_no_other_published_resolution() -> None:
    with pytest.raises(ValueError, match="resolution is 96, expected 32, 64, 128, 256, 512"):
        BigGANConfig.of_resolution(96)


@pytest.mark.parametrize("condition", [None, 6])
def test_training_takes_the_statistics_of_the_batch(condition: int | None) -> None:
    torch.manual_seed(0)
    norm = BatchNorm(4, condition, eps=1e-4, n_stats=51).double().train()
    x, given = 3 * torch.randn(5, 4, 7, 7).double() + 2, torch.randn(5, 6).double()
    stored = {name: buffer.clone() for name, buffer in norm.named_buffers(recurse=False)}
    rows = look_up(torch.ones(5, 1).double(), grid_rows())
    drawn = norm(x, rows, given)
    norm.eval()  # else the spectral norm goes on
    for name, buffer in norm.named_buffers(recurse=False):
        assert torch.equal(buffer, stored[name])
    norm.running_means[:] = x.mean((0, 2, 3))
    norm.running_vars[:] = x.var((0, 2, 3), correction=0)
    torch.testing.assert_close(drawn, norm(x, rows, given), rtol=1e-12, atol=1e-12)
