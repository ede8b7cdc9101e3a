from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import standin_device
import torch

from cgnrt import Generator
from cgnrt_training.classifier import sources
from cgnrt_training.classifier.augment import blend, jitter
from cgnrt_training.classifier.config import ClassifierConfig
from cgnrt_training.classifier.sources import (
    Batches,
    Counterfactuals,
    Inputs,
    JointCues,
    environments,
    open_batches,
    open_domain,
)
from cgnrt_training.runs.order import Order


class Told:
    """A Generator that remembers what it was asked for."""

    def __init__(self, plan: Path) -> None:
        self.generator = Generator(plan, threads=1)
        self.asked: list[dict[str, object]] = []
        self.indices: list[int] = []

    def sample(self, **options: object) -> object:
        self.asked.append(options)
        self.indices += np.asarray(options["indices"]).tolist()
        return self.generator.sample(**options)  # type: ignore[arg-type]


def test_order_visits_everything_once_an_epoch_in_another_order() -> None:
    order = Order(10, seed=3)
    epochs, indices = order(0, 30)
    assert epochs.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    for epoch in range(3):
        assert sorted(indices[epoch * 10 : epoch * 10 + 10]) == list(range(10))
    assert indices[:10].tolist() != indices[10:20].tolist()
    assert Order(10, seed=3)(13, 9)[1].tolist() == indices[13:22].tolist()  # a function of the place alone
    assert Order(10, seed=4)(0, 10)[1].tolist() != indices[:10].tolist()


@pytest.mark.parametrize("label", ["shape", "texture", "background"])
@pytest.mark.parametrize("row", ["oracle", "irm-2", "original"])
def test_real_images_carry_the_label_that_is_learnt(row: str, label: str, mnist: Path) -> None:
    inputs = Inputs(mnist)
    data = open_domain("double-colored", inputs, "train")
    config = ClassifierConfig(row, "double-colored", batch_size=40, label=label, joint_cues=False)
    found = open_batches(config, data, inputs)(0)
    expected, first = [], 0
    for k, (domain, count) in enumerate(zip(environments(config, data), found.sizes, strict=True)):
        seed = config.seed * 16 + k if row == "irm-2" else config.seed
        _, indices = Order(len(data), seed)(0, count)
        batch = domain.batch(indices)
        np.testing.assert_array_equal(found.images[first : first + count].numpy(), batch.images)
        expected.append(batch.labels if label == "shape" else getattr(batch, label))
        first += count
    assert found.labels.tolist() == np.concatenate(expected).tolist()
    if row == "oracle" and label != "shape":  # the cues are random there
        batch = environments(config, data)[0].batch(Order(len(data), 0)(0, 40)[1])
        assert found.labels.tolist() != batch.labels.tolist()


def test_counterfactuals_are_the_stream_and_begin_anew_after_size(demo_plan: Path) -> None:
    told = Told(demo_plan)
    source = Counterfactuals(told, size=8, draws=1000, per_noise=2, seed=5)  # type: ignore[arg-type]
    drawn = [source.draw(step, 4) for step in range(4)]
    assert sorted(told.indices[:8]) == sorted(told.indices[8:]) == list(range(8))
    assert told.indices[:8] != told.indices[8:]
    assert {(options["seed"], options["per_noise"]) for options in told.asked} == {(5 << 24, 2)}
    again = Counterfactuals(told, size=8, draws=1000, per_noise=2, seed=5).draw(2, 4)  # type: ignore[arg-type]
    assert torch.equal(again[0], drawn[2][0])
    assert torch.equal(again[1], drawn[2][1])
    assert drawn[0][0].shape == (4, 3, 32, 32)


def test_counterfactuals_out_of_reach_are_left_out(demo_plan: Path) -> None:
    told = Told(demo_plan)
    source = Counterfactuals(told, size=1_000_000, draws=12)  # type: ignore[arg-type]
    for step in range(3):
        source.draw(step, 4)
    assert source.distinct == 12
    assert sorted(told.indices) == list(range(12))


def test_labels_of_another_mechanism(demo_plan: Path) -> None:
    labels = Generator(demo_plan).sample(20, seed=0).labels
    for name in ("shape", "texture", "background"):
        found = Counterfactuals(Generator(demo_plan), size=20, draws=20, label=name).draw(0, 20)[1]
        order = Order(20, 0)(0, 20)[1]
        assert found.tolist() == getattr(labels, name)[order].tolist()


def test_reuse_takes_pools_one_after_another(demo_plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "POOL_ENTRIES", 4)
    told = Told(demo_plan)
    source = Counterfactuals(told, size=32, draws=1000, reuse=4)  # type: ignore[arg-type]
    assert source.entries == 4  # 32 images, 2 pools of 4 entries that serve 16 each
    images, labels = zip(*(source.draw(step, 6) for step in range(6)), strict=True)
    assert [len(part) for part in images] == [6] * 6
    assert {(options["seed"], options["pool"]) for options in told.asked} == {(0, 4), (1, 4)}
    assert told.indices == [*range(32), *range(4)]
    stream, of_all = torch.cat(images), torch.cat(labels)
    assert torch.equal(stream[32:], stream[:4])  # begins anew
    first = told.generator.sample(16, seed=0, pool=4)
    assert torch.equal(stream[:16], torch.from_numpy(first.images))
    assert of_all[:16].tolist() == first.labels.shape.tolist()


def test_batches_of_rows(mnist: Path, textures: Path, demo_plan: Path) -> None:
    inputs = Inputs(mnist, textures, demo_plan)

    def batch_of(row: str, step: int = 0, **settings: int) -> sources.StepBatch:
        config = ClassifierConfig(row, "double-colored", batch_size=20, steps=10, **settings)  # type: ignore[arg-type]
        return open_batches(config, open_domain("double-colored", inputs, "train"), inputs)(step)

    original = batch_of("original")
    assert original.images.shape == (20, 3, 32, 32)
    assert original.images.is_contiguous(memory_format=torch.channels_last)
    assert original.sizes == (20,)
    assert torch.equal(original.images, batch_of("original").images)
    assert not torch.equal(
        original.images, batch_of("original", step=2).images
    )  # the next epoch's cues differ
    mixed = batch_of("original+cgn", counterfactuals=50_000)
    assert torch.equal(mixed.images[:10], original.images[:10])
    stream = Generator(demo_plan).sample(100, seed=0)
    where = Order(100, 0)(0, 10)[1]
    torch.testing.assert_close(mixed.images[10:], torch.from_numpy(stream.images[where]))
    assert mixed.labels[10:].tolist() == stream.labels.shape[where].tolist()
    assert batch_of("irm-5").sizes == (4, 4, 4, 4, 4)
    assert batch_of("pooled-5").sizes == (20,)
    assert torch.equal(batch_of("irm-5").images, batch_of("pooled-5").images)
    jittered = batch_of("colour-jitter")
    assert torch.equal(jittered.labels, original.labels)
    assert not torch.equal(jittered.images, original.images)


def test_counterfactuals_are_made_on_the_device_that_is_trained_on(
    mnist: Path, demo_plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    standin_device.register(monkeypatch)
    inputs = Inputs(mnist, plan=demo_plan)
    data = open_domain("double-colored", inputs, "train")
    for reuse in (1, 4):
        config = ClassifierConfig("original+cgn", "double-colored", batch_size=20, steps=10, reuse=reuse)
        there = open_batches(config, data, inputs, torch.device(standin_device.NAME, 0))(3)
        here = open_batches(config, data, inputs)(3)
        assert {there.images.device.type, there.labels.device.type} == {standin_device.NAME}
        assert torch.equal(there.labels.cpu(), here.labels)
        # The plan's default is bf16, which the CPU may not have: 61 dB.
        assert (there.images.cpu() - here.images).square().mean() < 4e-5


def test_environments_keep_their_correlation(mnist: Path) -> None:
    config = ClassifierConfig("irm-2", "double-colored", batch_size=8, steps=10)
    data = open_domain("double-colored", Inputs(mnist), "train")
    batches = open_batches(config, data, Inputs(mnist))
    found = [source.data.correlation for source, _ in batches._parts]  # type: ignore[attr-defined]
    assert found == [0.9, 1.0]
    assert data.correlation == 1.0


def test_joint_cues_follow_the_label_together_or_not_at_all(mnist: Path) -> None:
    data = open_domain("double-colored", Inputs(mnist), "train")
    batch = JointCues(data, 0.75, seed=3).batch(np.arange(4000))
    follows = (batch.texture == batch.labels) & (batch.background == batch.labels)
    assert abs(follows.mean() - (0.75 + 0.25 / 100)) < 0.03
    alone = (batch.texture == batch.labels) & (batch.background != batch.labels)
    assert abs(alone.mean() - 0.25 * 0.1 * 0.9) < 0.02
    where = [5, 3999, 0]
    again = JointCues(data, 0.75, seed=3).batch(np.array(where))
    np.testing.assert_array_equal(again.images, batch.images[where])
    np.testing.assert_array_equal(again.labels, batch.labels[where])
    config = ClassifierConfig("irm-2", "double-colored", joint_cues=True)
    assert [type(domain) for domain in environments(config, data)] == [JointCues, JointCues]


def test_rows_say_what_they_lack(mnist: Path) -> None:
    data = open_domain("colored", Inputs(mnist), "train")
    for row, message in {"original+cgn": "--plan is not given", "original+gan": "--gan is not given"}.items():
        with pytest.raises(ValueError, match=message):
            open_batches(ClassifierConfig(row, "colored"), data, Inputs(mnist))


def test_jitter_changes_colours_and_keeps_shapes() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.full((1, 3, 4, 4), -0.5)
    image[:, 0, 1:3, 1:3] = 0.5
    found = jitter(image.expand(64, 3, 4, 4), generator)
    assert found.shape == (64, 3, 4, 4)
    assert found.min() >= -1
    assert found.max() <= 1
    # Still one colour inside and one outside, and others for each image.
    inside, outside = found[:, :, 1:3, 1:3].flatten(2), torch.cat([found[:, :, 0], found[:, :, 3]], 2)
    assert (inside.amax(2) - inside.amin(2)).max() < 1e-6
    assert (outside.amax(2) - outside.amin(2)).max() < 1e-6
    assert len({tuple(c.tolist()) for c in inside[:, :, 0]}) == 64


def test_blend_keeps_the_first_image_foremost() -> None:
    images = torch.eye(16).reshape(16, 1, 4, 4).expand(16, 3, 4, 4)
    found = blend(images, torch.Generator().manual_seed(0))
    own = (found * images).amax(dim=(1, 2, 3))
    assert (own > 0.5).all()
    assert (own < 1).any()


def test_mixed_batch_has_the_sizes_asked_for() -> None:
    class Constant:
        def __init__(self, value: int) -> None:
            self.value = value

        def draw(self, step: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.full((count, 3, 32, 32), float(self.value)), torch.full((count,), self.value)

    batch = Batches([(Constant(1), 2), (Constant(2), 0), (Constant(3), 3)], environments=True)(0)
    assert batch.labels.tolist() == [1, 1, 3, 3, 3]
    assert batch.sizes == (2, 3)
    assert batch.images[:, 0, 0, 0].tolist() == [1, 1, 3, 3, 3]
