"""The parts of a cGAN's training: batches, augmentation, features, discriminators, encoder, settings."""

from __future__ import annotations

import io

import cgan_runs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cgnrt_training.cgan.augment import augment, draw_strengths
from cgnrt_training.cgan.batches import Batches
from cgnrt_training.cgan.config import AugmentConfig, Config
from cgnrt_training.cgan.discriminator import (
    PlainDiscriminator,
    ProjectedDiscriminator,
    discriminator_loss,
    diversity_loss,
    generator_loss,
)
from cgnrt_training.cgan.encoder import Encoder, Looks, divergence, perceptual_loss
from cgnrt_training.cgan.features import FrozenFeatures, Mixing
from cgnrt_training.cgan.run import Run
from cgnrt_training.settings import from_texts, override

CPU = torch.device("cpu")
OFF = AugmentConfig(brightness=0, saturation=0, contrast=0, translation=0, cutout=0, cutout_share=0)


def random() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def pictures(n: int = 6, size: int = 32) -> Tensor:
    return torch.rand(n, 3, size, size, generator=random()) * 2 - 1


def augmented(images: Tensor, **settings: float) -> Tensor:
    strengths = draw_strengths(len(images), random())
    return augment(images, strengths, override(OFF, settings))


def test_batches_are_pairs_of_a_class_in_equal_shares() -> None:
    batches = Batches(cgan_runs.photos(), CPU)
    generator = random()
    for _ in range(20):
        chosen = batches.draw(6, generator)
        assert sorted(chosen.labels.tolist()) == [0, 0, 1, 1, 2, 2]
        assert torch.equal(chosen.labels[0::2], chosen.labels[1::2])
        assert (chosen.rows[0::2] != chosen.rows[1::2]).all()
        assert torch.equal(torch.from_numpy(batches.photos.labels)[chosen.rows], chosen.labels)
    counts = torch.bincount(batches.draw(20, generator).labels)
    assert sorted(counts.tolist()) == [6, 6, 8]


def test_photos_are_read_as_they_are_or_mirrored() -> None:
    photos = cgan_runs.photos()
    images = Batches(photos, CPU).read(torch.tensor([4, 4]), torch.tensor([False, True]))
    expected = torch.from_numpy(photos.images[4]).float() / 127.5 - 1
    assert torch.equal(images[0], expected)
    assert torch.equal(images[1], expected.flip(2))


def test_every_photo_is_spread_alike() -> None:
    chosen = Batches(cgan_runs.photos(), CPU).spread(40, random())
    counts = torch.bincount(chosen.rows, minlength=18)
    assert (counts.min().item(), counts.max().item(), len(chosen.flips)) == (2, 3, 40)


def test_a_class_of_one_photo_is_refused() -> None:
    photos = cgan_runs.photos(per_class=1)
    with pytest.raises(
        ValueError, match=r"class 'red' has 1 photos, expected at least 2\. Add photos, or leave"
    ):
        Batches(photos, CPU)


def test_augmentation_off_changes_nothing() -> None:
    assert torch.equal(augmented(pictures()), pictures())


def test_colours_are_shifted_and_scaled() -> None:
    images = pictures()
    brighter = augmented(images, brightness=0.8) - images
    assert brighter.flatten(1).std(1).max() < 1e-6
    assert 0.05 < brighter.abs().max() < 0.4
    assert len(brighter[:, 0, 0, 0].unique()) == len(images)
    paler = augmented(images, saturation=1.5)
    torch.testing.assert_close(paler.mean(1), images.mean(1))
    starker = augmented(images, contrast=0.8)
    torch.testing.assert_close(starker.mean((1, 2, 3)), images.mean((1, 2, 3)))
    factor = starker.flatten(1).std(1) / images.flatten(1).std(1)
    assert ((factor > 0.6) & (factor < 1.4)).all()


def test_pictures_are_moved_and_reflected() -> None:
    images = pictures(20)
    moved = augmented(images, translation=0.125)
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    offsets = set()
    for image, around in zip(moved, padded, strict=True):
        found = [
            (y, x)
            for y in range(9)
            for x in range(9)
            if torch.equal(image, around[:, y : y + 32, x : x + 32])
        ]
        assert len(found) == 1
        offsets.add(found[0])
    assert len(offsets) > 10


def test_a_square_is_greyed_in_some_pictures() -> None:
    images = pictures(200)
    cut = augmented(images, cutout=0.375, cutout_share=0.5)
    changed = (cut != images).any(1)
    assert (cut[changed[:, None].expand_as(cut)] == 0).all()
    share = changed.flatten(1).any(1).float().mean().item()
    assert 0.35 < share < 0.65
    sizes = changed.flatten(1).sum(1)
    assert sizes.max().item() == 12 * 12
    assert augmented(images, cutout=1.0, cutout_share=0.0).equal(images)


def test_the_same_strengths_do_the_same() -> None:
    strengths = draw_strengths(2, random())
    strengths = strengths[:, :1].expand(-1, 4)
    images = pictures(1).expand(4, -1, -1, -1)
    out = augment(images, strengths, AugmentConfig())
    assert torch.equal(out[0], out[3])
    assert not torch.equal(out[0], images[0])


def test_augmentation_passes_gradients() -> None:
    images = pictures(2).double().requires_grad_()
    strengths = draw_strengths(2, random()).double()
    out = augment(images, strengths, AugmentConfig(cutout_share=1.0))
    out.sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert (images.grad != 0).any(dim=(1, 2, 3)).all()  # type: ignore[call-overload]


def test_frozen_features_are_the_network_s() -> None:
    network = cgan_runs.network()
    images = pictures()
    maps = network(images)
    pooled = network.pool(maps[-1])
    config = cgan_runs.config(discriminator={"mixing": "none"})
    features = FrozenFeatures(cgan_runs.network(), config)
    seen = features(images, pooled=True)
    for ours, theirs in zip(seen.raw, maps, strict=True):
        # Rounding grows over the layers, whose weights are random.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3 * theirs.abs().max().item())
    torch.testing.assert_close(seen.pooled, pooled, rtol=0, atol=1e-3 * pooled.abs().max().item())
    assert features(images, pooled=False).pooled.shape == (6, 0)
    assert not any(p.requires_grad for p in features.parameters())
    larger = FrozenFeatures(cgan_runs.network(), cgan_runs.config(features={"size": 64}))
    assert [m.shape[2] for m in larger(images, pooled=False).maps] == [16, 8, 4, 2]


def test_half_precision_features_are_near_and_single() -> None:
    config = cgan_runs.config(discriminator={"mixing": "none"})
    half = cgan_runs.config(discriminator={"mixing": "none"}, features={"precision": "bf16"})
    exact = FrozenFeatures(cgan_runs.network(), config)(pictures(), pooled=True)
    near = FrozenFeatures(cgan_runs.network(), half)(pictures(), pooled=True)
    assert near.pooled.dtype == near.maps[0].dtype == torch.float32
    scale = exact.raw[0].abs().max()
    assert not torch.equal(near.raw[0], exact.raw[0])
    assert (near.raw[0] - exact.raw[0]).abs().max() < 0.05 * scale


def test_scales_are_mixed_from_deep_to_shallow() -> None:
    torch.manual_seed(0)
    mixing = Mixing([3, 5], 4, scales=True)
    maps = [torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)]
    shallow, deep = mixing(maps)
    assert shallow.shape == (2, 4, 8, 8)
    changed = mixing([maps[0], maps[1] + 1])
    assert not torch.equal(changed[0], shallow)
    again = mixing([maps[0] + 1, maps[1]])
    assert torch.equal(again[1], deep)
    alone = Mixing([3, 5], 4, scales=False)
    assert torch.equal(alone([maps[0], maps[1] + 1])[0], alone(maps)[0])
    assert not any(p.requires_grad for p in mixing.parameters())


@pytest.mark.parametrize("kind", ["projected", "plain"])
def test_discriminators_look_at_pictures_and_labels(kind: str) -> None:
    torch.manual_seed(0)
    maps = [torch.randn(4, 6, size, size) for size in (8, 4, 2, 1)]
    net = ProjectedDiscriminator([6] * 4, 8, 3) if kind == "projected" else PlainDiscriminator(16, 8, 3)
    net.eval()
    images, labels = pictures(4, 16), torch.tensor([0, 1, 2, 0])
    scores = net(images, maps, labels)
    assert len(scores) == (4 if kind == "projected" else 1)
    assert {len(s) for s in scores} == {4}
    other = net(images, maps, (labels + 1) % 3)
    assert all((a != b).any(dim=1).all() for a, b in zip(scores, other, strict=True))


def test_hinge_losses_by_their_definition() -> None:
    real, fake = torch.tensor([[2.0, 0.5]]), torch.tensor([[-3.0, 0.25]])
    assert discriminator_loss([real], [fake]).item() == pytest.approx(0.25 + 0.625)
    assert discriminator_loss([real, real], [fake, fake]).item() == pytest.approx(1.75)
    assert generator_loss([fake, fake]).item() == pytest.approx(2.75)


def test_diversity_is_lost_where_a_class_is_one_picture() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(8, 4, 3, 3)]
    assert diversity_loss(maps, maps).item() < 0.2
    same = [maps[0][::2].repeat_interleave(2, 0)]
    assert diversity_loss(same, maps).item() == pytest.approx(1)


def test_codes_and_reconstruction_by_their_definition() -> None:
    mean, log_std = torch.randn(5, 3, generator=random()), torch.full((5, 3), 0.3)
    normal = torch.distributions.Normal(mean, log_std.exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0, 1)).sum(1).mean()
    torch.testing.assert_close(divergence(mean, log_std), expected)
    maps = [torch.randn(2, 4, 3, 3), torch.randn(2, 4, 2, 2)]
    assert perceptual_loss(maps, [3 * m for m in maps]).item() == pytest.approx(0, abs=1e-6)
    assert perceptual_loss(maps, [-m for m in maps]).item() == pytest.approx(4)


def test_looks_are_those_of_the_photo_or_its_mirror_image() -> None:
    batches = Batches(cgan_runs.photos(), CPU)
    features = FrozenFeatures(cgan_runs.network(), cgan_runs.config())
    looks = Looks(batches, features)
    rows, flips = torch.tensor([3, 3, 7]), torch.tensor([False, True, True])
    found = looks.of(rows, flips)
    assert found.shape == (3, Looks.length(features))
    thumbnails = F.avg_pool2d(batches.read(rows, flips), 4).flatten(1)
    torch.testing.assert_close(found[:, -192:].float(), thumbnails, rtol=0, atol=2e-3)
    encoder = Encoder(Looks.length(features), 8, 4)
    looks.scale(encoder)
    scaled = (looks.table.flatten(0, 1).float() - encoder.mean) / encoder.std
    assert scaled.mean(0).abs().max() < 0.02
    assert scaled.std(0).max() < 1.1
    assert encoder(found)[0].shape == (3, 4)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["generator.width=18"], "generator.width is 18, expected a multiple of 4"),
        (["train.batch=7"], "train.batch is 7, expected an even number"),
        (["train.images=8"], "train.images is 8, expected >= train.batch"),
        (["augment.cutout=1.5"], "augment.cutout is 1.5, expected in 0..1"),
        (["loss.classify=-1"], "loss.classify is -1.0, expected >= 0"),
        (["optimizer.lr_generator=0"], "optimizer.lr_generator is 0.0, expected > 0"),
        (["train.ema=1"], r"train.ema is 1.0, expected in \[0, 1\)"),
        (
            ["ramp.diversity=[0, 0.5, 0.4]"],
            "ramp.diversity is .*, expected shares in 0..1, the last not below",
        ),
        (["ramp.adversarial=[2, 0, 1]"], "ramp.adversarial is .*, expected shares in 0..1"),
        (["discriminator.kind=deep"], "discriminator.kind is 'deep', expected one of projected, plain"),
        (["loss.diverse=1"], "key is 'loss.diverse', expected one of .* Did you mean loss.diversity"),
    ],
)
def test_settings_that_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_texts(Config(), texts)


def test_a_network_is_asked_for_only_where_it_is_needed() -> None:
    inputs = cgan_runs.inputs(network=None)
    with pytest.raises(ValueError, match="--features is missing, expected an EfficientNet-Lite"):
        Run(cgan_runs.config(), inputs, CPU)
    config = cgan_runs.config(
        discriminator={"kind": "plain"}, encoder={"share": 0.0}, loss={"classify": 0.0, "diversity": 0.0}
    )
    run = Run(config, inputs, CPU)
    run.prepare(io.StringIO())
    assert set(run.step()) == {"discriminator", "generator"}


def test_photos_of_a_size_without_a_generator_are_refused() -> None:
    with pytest.raises(ValueError, match="resolution is 48, expected 32, 64, 128, 256, 512"):
        Run(cgan_runs.config(), cgan_runs.inputs(photos=cgan_runs.photos(48)), CPU)


def test_learning_rates_fall_at_the_end() -> None:
    config = cgan_runs.config(
        train={"images": 80}, optimizer={"lr_generator": 1.0, "decay": 0.5, "final": 0.1}
    )
    run = Run(config, cgan_runs.inputs(), CPU)
    rates = []
    for step in range(11):
        run.state.step = step
        run.set_learning_rates()
        rates.append(run.optimizers["generator"].param_groups[0]["lr"])
    assert rates[:6] == [1.0] * 6
    np.testing.assert_allclose(rates[6:], [0.82, 0.64, 0.46, 0.28, 0.1])


def test_weights_of_losses_over_a_run() -> None:
    losses = {"adversarial": 2.0, "perceptual": 1.0, "thumbnail": 2.0, "divergence": 5.0, "diversity": 4.0}
    ramps: dict[str, object] = {"adversarial": [0.25, 0.0, 0.5], "reconstruction": [0.5, 0.5, 0.5]}
    ramps["diversity"] = [0.0, 0.25, 0.75]
    config = cgan_runs.config(loss=losses, ramp=ramps, train={"images": 64})
    run = Run(config, cgan_runs.inputs(), CPU)
    weights = []
    for step in range(9):
        run.state.step = step
        weights.append(run.weights())
    assert [w["generator"] for w in weights] == [0.5, 0.875, 1.25, 1.625, 2, 2, 2, 2, 2]
    assert [w["perceptual"] for w in weights] == [0.5] * 4 + [1] * 5
    assert [w["thumbnail"] for w in weights] == [1] * 4 + [2] * 5
    assert [w["diversity"] for w in weights] == [0, 0, 0, 1, 2, 3, 4, 4, 4]
    assert {w["divergence"] for w in weights} == {5}
