"""The ImageNet CGN, its random weights and its class names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cgnrt_training import cli
from cgnrt_training.imagenet.biggan import BatchNorm, BigGAN, BigGANConfig
from cgnrt_training.imagenet.calibrate import random_biggan, random_cgn
from cgnrt_training.imagenet.cgn import CGN, MASK_RANGE, compose
from cgnrt_training.imagenet.checkpoints import load_cgn
from cgnrt_training.imagenet.classes import class_names
from cgnrt_training.imagenet.u2net import FULL, U2Net


@pytest.fixture(scope="module")
def cgn() -> CGN:
    torch.manual_seed(0)
    return random_cgn(128, seed=5, channel_width=4, num_classes=7)


@pytest.fixture(scope="module")
def drawn(cgn: CGN) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    truncation = torch.tensor([[0.1], [0.5], [0.8], [1.0]])
    noise = torch.randn(4, 128, generator=generator).clamp(-2, 2) * truncation
    labels = torch.randint(7, (3, 4), generator=generator)
    return *labels, noise, truncation


def test_mechanisms_alone_draw_what_the_cgn_draws(cgn: CGN, drawn: tuple[Tensor, ...]) -> None:
    *labels, noise, truncation = drawn
    with torch.no_grad():
        parts = cgn(*labels, noise=noise, truncation=truncation)
        alone = {
            name: module(noise, biggan.embedding_table[label], truncation)
            for (name, module), biggan, label in zip(
                cgn.mechanisms().items(), (cgn.f_shape, cgn.f_text, cgn.f_bg), labels, strict=True
            )
        }
        independent = cgn(*labels, noise=torch.stack([noise, noise.flip(0), noise], 1), truncation=truncation)
    mask, pre_mask = alone["shape"]
    assert torch.equal(parts.mask, mask)
    assert torch.equal(parts.pre_mask, pre_mask)
    assert torch.equal(parts.foreground, alone["texture"])
    assert torch.equal(parts.background, alone["background"])
    assert torch.equal(independent.mask, mask)
    assert not torch.equal(independent.foreground, parts.foreground)
    assert [tuple(part.shape) for part in parts] == [(4, 1, 128, 128), *[(4, 3, 128, 128)] * 3]
    expected = mask * parts.foreground + (1 - mask) * parts.background
    assert torch.equal(compose(parts), expected)


def test_random_weights_make_pictures_with_contrast(cgn: CGN, drawn: tuple[Tensor, ...]) -> None:
    *labels, noise, truncation = drawn
    with torch.no_grad():
        parts = cgn(*labels, noise=noise, truncation=truncation)
    for picture in parts[1:]:
        assert 0.2 < picture.std() < 0.85, "neither flat nor saturated"
        assert (picture.abs() > 0.99).float().mean() < 0.2
        assert (picture[0] - picture[1]).abs().mean() > 0.05, "samples differ"
    assert parts.mask.min() >= MASK_RANGE[0]
    assert parts.mask.max() <= MASK_RANGE[1]
    assert (parts.mask < 0.2).float().mean() > 0.05
    assert (parts.mask > 0.8).float().mean() > 0.05


def test_statistics_fit_activations_at_each_truncation(cgn: CGN) -> None:
    """What leaves a batch norm has a mean near 0 and a deviation near 1, for rows measured and interpolated."""
    found: list[Tensor] = []

    def look(norm: BatchNorm, args: tuple[Tensor, ...], output: Tensor) -> None:
        x, rows, _ = args
        mean, variance = rows.blend(norm.running_means), rows.blend(norm.running_vars)
        assert bool((variance > 1e-12).all())
        scaled = (x - mean[:, :, None, None]) * torch.rsqrt(variance + norm.eps)[:, :, None, None]
        found.append(scaled.square().mean().sqrt())

    model = cgn.f_text
    norms = [norm for norm in model.modules() if isinstance(norm, BatchNorm)]
    handles = [norm.register_forward_hook(look) for norm in norms]
    generator = torch.Generator().manual_seed(9)
    for truncation in (0.06, 0.5, 0.9):
        found.clear()
        noise = torch.randn(8, 128, generator=generator).clamp(-2, 2) * truncation
        labels = torch.randint(7, (8,), generator=generator)
        with torch.no_grad():
            model(noise, model.embedding_table[labels], torch.full((8, 1), truncation))
        assert len(found) == len(norms)
        assert min(found) > 0.4
        assert max(found) < 2.5
        assert 0.75 < torch.stack(found).mean() < 1.5
    for handle in handles:
        handle.remove()


def test_random_weights_do_not_amplify_rounding(cgn: CGN, drawn: tuple[Tensor, ...]) -> None:
    *labels, noise, truncation = drawn
    with torch.no_grad():
        single = cgn(*labels, noise=noise, truncation=truncation)
        double = cgn.double()(*labels, noise=noise.double(), truncation=truncation.double())
        cgn.float()
    for one, other in zip(single, double, strict=True):
        assert (one - other).abs().max() < 1e-3


def test_spectral_norms_have_converged(cgn: CGN) -> None:
    for name in ("gen_z", "layers.2.conv_1", "layers.2.conv_3", "layers.5.bn_1.scale", "conv_to_rgb"):
        layer = cgn.f_shape.generator.get_submodule(name)
        largest = torch.linalg.matrix_norm(layer.weight().detach().flatten(1), 2)
        assert float(largest) == pytest.approx(1, abs=1e-5)
        assert float(torch.linalg.matrix_norm(layer.weight_orig.detach().flatten(1), 2)) != pytest.approx(
            1, abs=1e-3
        )


def test_a_seed_says_which_weights() -> None:
    blocks = ((True, 16, 8), (True, 8, 4), (True, 4, 2), (False, 2, 1))
    config = BigGANConfig(blocks, channel_width=4, num_classes=2)
    one, again, other = (
        random_biggan(config, torch.Generator().manual_seed(seed)).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[key], again[key]) for key in one)
    changed = [key for key in one if not torch.equal(one[key], other[key])]
    assert "generator.layers.2.conv_1.weight_orig" in changed
    assert "generator.layers.2.bn_1.running_means" in changed


def test_what_is_never_trained_stays_in_evaluation_mode() -> None:
    config = BigGANConfig.of_resolution(128, channel_width=4, num_classes=2)
    model = CGN(*(BigGAN(config) for _ in range(3)), U2Net(FULL.narrowed(1 / 32)), BigGAN(config))
    for part, trains in (("f_text", True), ("u2net", False), ("biggan_GT", False)):
        assert model.train().get_submodule(part).training is trains
        assert not model.eval().get_submodule(part).training


def test_a_cgn_has_one_resolution() -> None:
    small = BigGAN(BigGANConfig.of_resolution(128, channel_width=4, num_classes=2))
    large = BigGAN(BigGANConfig.of_resolution(256, channel_width=4, num_classes=2))
    with pytest.raises(ValueError, match="resolutions are 128, 256, expected one for all"):
        CGN(small, small, large, U2Net(FULL.narrowed(1 / 32)))


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match="channel_width is 6, expected a positive multiple of 4"):
        random_cgn(128, channel_width=6)
    with pytest.raises(ValueError, match="resolution is 100, expected 32, 64, 128, 256, 512"):
        random_cgn(100, channel_width=4)


def test_class_names() -> None:
    names = class_names()
    assert len(names) == len(set(names)) == 1000
    for index, name in (
        (0, "tench"),
        (134, "crane (bird)"),
        (385, "Indian elephant"),
        (386, "African elephant"),
        (517, "crane (machine)"),
        (638, "maillot"),
        (639, "maillot, tank suit"),
        (999, "toilet tissue"),
    ):
        assert names[index] == name
    assert all(name == name.strip() and name for name in names)


def test_the_job_writes_what_export_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cgn.pth"
    command = [
        "imagenet-random",
        "--resolution",
        "128",
        "--seed",
        "1",
        "--channel-width",
        "4",
        "-o",
        str(path),
    ]
    assert cli.main([*command, "--threads", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{path}\n"
    assert "draw and calibrate f_bg" in captured.err
    assert "the weights are random" in captured.err
    assert isinstance(load_cgn(path, resolution=128), nn.Module)
    assert cli.main(command) == 2
    assert "the file exists, expected a new one. Use --force" in capsys.readouterr().err
    assert cli.main([*command[:-1], str(tmp_path / "none" / "cgn.pth")]) == 2
    assert "is missing, expected one. Make it." in capsys.readouterr().err
    assert cli.main([*command, "--force", "--channel-width", "5"]) == 2
    assert "channel_width is 5, expected a positive multiple of 4" in capsys.readouterr().err
    assert cli.main([*command, "--force", "--seed", "-1"]) == 2
    assert "--seed is -1, expected 0.." in capsys.readouterr().err
