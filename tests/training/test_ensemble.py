"""Three heads on a backbone: the model, its losses, its backbones and its batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import photo_runs
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cgnrt
from cgnrt import Generator
from cgnrt.errors import CheckpointError
from cgnrt_training.ensemble.augment import erase, move
from cgnrt_training.ensemble.backbones import NAMES, load_backbone, new_backbone
from cgnrt_training.ensemble.config import RECIPES, ROWS, AugmentConfig, EnsembleConfig
from cgnrt_training.ensemble.model import Ensemble, ensemble_losses, mean_log_probabilities, mean_logits
from cgnrt_training.ensemble.sources import Batches, PhotoImages, PlanImages, open_batches, places_of, scaled
from cgnrt_training.ensemble.testsets import SETS, TestSets
from cgnrt_training.ensemble.train import Inputs, Run, rate
from cgnrt_training.features.squeezenet import SqueezeNetFeatures
from cgnrt_training.photos.masks import MaskFolder
from cgnrt_training.photos.pack import Photos, open_photos, pack_photos
from cgnrt_training.settings import load_toml, override


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos")
    images, masks = photo_runs.write_photos(path)
    pack_photos(images, path / "pack", photo_runs.SIZE, MaskFolder(masks))
    photo_runs.write_plan(path / "cgn.plan")
    return path


@pytest.fixture
def photos(folder: Path) -> Photos:
    return open_photos(folder / "pack")


class Means(nn.Module):
    """A backbone: the mean of each channel, after a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.norm(images).mean((2, 3))
        return found


def small(row: str = "original+cgn", **train: object) -> EnsembleConfig:
    return override(EnsembleConfig(), {"train": {"row": row, "batch_size": 6, **train}})


def test_heads_are_averaged_both_ways() -> None:
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]])
    expected = (logits[0, 0].log_softmax(0) + logits[0, 1].log_softmax(0) + logits[0, 2].log_softmax(0)) / 3
    torch.testing.assert_close(mean_log_probabilities(logits)[0], expected)
    torch.testing.assert_close(mean_logits(logits)[0], torch.tensor([2 / 3, 4 / 3]))
    # Both name the same class: they differ by a constant of each image.
    uneven = torch.tensor([[[9.0, 0.0, 0.0], [0.0, 5.0, 5.0], [0.0, 5.0, 4.0]]])
    assert mean_logits(uneven).argmax() == 1
    assert mean_log_probabilities(uneven).argmax() == 1
    scaled_by = (
        uneven + torch.tensor([0.0, 40.0, 0.0])[None, :, None]
    )  # a constant in a head's logits says nothing
    torch.testing.assert_close(mean_log_probabilities(scaled_by), mean_log_probabilities(uneven))


def test_any_module_takes_three_heads(folder: Path) -> None:
    torch.manual_seed(0)
    model = Ensemble(Means(), features=3, classes=3)
    images = torch.rand(4, 3, 8, 8)
    assert model(images).shape == (4, 3, 3)
    model.eval()
    logits = model(images)
    torch.testing.assert_close(model.answering("texture", average="logits")(images), logits[:, 1])
    torch.testing.assert_close(model.answering()(images), logits.log_softmax(2).mean(1))
    torch.testing.assert_close(
        model.answering("shape", "texture", average="logits")(images), logits[:, :2].mean(1)
    )
    found = cgnrt.audit(model.answering("background"), folder / "cgn.plan", 20)
    assert found.changes.shape.n == 20
    assert [name for name, _ in model.named_children()] == ["backbone", "heads"]


def test_batch_norm_is_frozen_or_not() -> None:
    images = torch.rand(4, 3, 8, 8) + 3
    for frozen in (True, False):
        model = Ensemble(Means(), 3, 2, freeze_norm=frozen).train()
        norm = model.backbone.norm
        model(images)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert bool((norm.running_mean == 0).all()) == frozen
        assert norm.training != frozen
        assert not model.eval().backbone.norm.training  # type: ignore[union-attr]
    # Also of a network that is otherwise always in evaluation mode, as the feature networks are.
    lite = Ensemble(new_backbone("efficientnet_lite0"), 1280, 2, freeze_norm=False).train()
    assert all(m.training for m in lite.modules() if isinstance(m, nn.BatchNorm2d))
    assert all(p.requires_grad for p in lite.parameters())


def test_pictures_are_scaled_to_the_input_size() -> None:
    seen: list[tuple[int, ...]] = []

    class Sizes(Means):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(tuple(images.shape))
            return super().forward(images)

    Ensemble(Sizes(), 3, 2, input_size=12)(torch.rand(2, 3, 8, 8))
    Ensemble(Sizes(), 3, 2)(torch.rand(2, 3, 8, 8))
    assert seen == [(2, 3, 12, 12), (2, 3, 8, 8)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": 0}, "features is 0, expected at least 1"),
        ({"classes": 1}, "classes is 1, expected at least 2"),
        ({"input_size": -1}, "input_size is -1, expected at least 0"),
        ({"heads": ()}, "heads are missing, expected different names"),
        ({"heads": ("a", "a")}, "heads are a, a, expected different names"),
    ],
)
def test_wrong_ensembles(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ensemble(Means(), **({"features": 3, "classes": 2} | changed))  # type: ignore[arg-type]


def test_wrong_answers() -> None:
    model = Ensemble(Means(), 3, 2)
    with pytest.raises(ValueError, match="head is 'object', expected one of shape, texture, background"):
        model.answering("object")
    with pytest.raises(ValueError, match="average is 'median', expected one of log-probabilities, logits"):
        model.answering(average="median")  # type: ignore[arg-type]


def test_losses_by_their_definition() -> None:
    torch.manual_seed(0)
    real, other = torch.randn(4, 3, 5), torch.randn(2, 3, 5)
    labels, own = (
        torch.tensor([0, 1, 2, 3]),
        [torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([4, 0])],
    )
    found = ensemble_losses(real, labels, other, own)
    assert list(found) == ["real", "shape", "texture", "background"]
    torch.testing.assert_close(found["real"], F.cross_entropy(real.mean(1), labels))
    for k, name in enumerate(("shape", "texture", "background")):
        torch.testing.assert_close(found[name], F.cross_entropy(other[:, k], own[k]))
    # Two processes with a part each: their losses add up to those of the whole batch.
    halves = [
        ensemble_losses(real[p], labels[p], other[q], [c[q] for c in own], counts=(4, 2))
        for p, q in ((slice(3), slice(1)), (slice(3, 4), slice(1, 2)))
    ]
    for name, loss in found.items():
        torch.testing.assert_close(halves[0][name] + halves[1][name], loss)
    assert list(ensemble_losses(real, labels)) == ["real"]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "resnet50"])
def test_backbones_from_files(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = new_backbone(name)
    state = getattr(network, "network", network).state_dict()
    classifier = "_fc" if name.startswith("eff") else "fc"
    state |= {
        f"{classifier}.weight": torch.rand(1000, network.features),
        f"{classifier}.bias": torch.rand(1000),
    }
    torch.save(state, tmp_path / "weights.pth")
    found, loaded = load_backbone(tmp_path / "weights.pth")
    assert found == name
    images = torch.rand(2, 3, 40, 32) * 2 - 1
    with torch.no_grad():
        features = loaded.eval()(images)
        torch.testing.assert_close(features, network.eval()(images))
    assert features.shape == (2, network.features)
    other = "resnet18" if name != "resnet18" else "resnet50"
    with pytest.raises(
        CheckpointError, match=f"content is {name}, expected weights of {other}. Give another file"
    ):
        load_backbone(tmp_path / "weights.pth", other)
    del state[next(key for key in state if "bn1.weight" in key)]
    torch.save(state, tmp_path / "missing.pth")
    with pytest.raises(CheckpointError, match="missing keys are"):
        load_backbone(tmp_path / "missing.pth")


def test_resnet50_has_torchvisions_keys_and_size() -> None:
    state = new_backbone("resnet50").state_dict()
    assert {"conv1.weight", "layer3.5.conv3.weight", "layer2.0.downsample.1.running_var"} <= set(state)
    numbers = sum(p.numel() for p in new_backbone("resnet50").parameters())
    assert numbers == 25_557_032 - 2048 * 1000 - 1000  # torchvision's, without its classifier
    assert sum(p.numel() for p in new_backbone("resnet18").parameters()) == 11_689_512 - 512 * 1000 - 1000


def test_files_of_other_networks(tmp_path: Path) -> None:
    torch.save(SqueezeNetFeatures().state_dict(), tmp_path / "squeeze.pth")
    with pytest.raises(
        CheckpointError, match=r"content is a SqueezeNet 1.1, expected weights of efficientnet_lite0"
    ):
        load_backbone(tmp_path / "squeeze.pth")
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "res.pth")
    with pytest.raises(CheckpointError, match=r"content is another network .*, expected weights of resnet50"):
        load_backbone(tmp_path / "res.pth", "resnet50")
    with pytest.raises(ValueError, match="name is 'vgg', expected one of efficientnet_lite0"):
        load_backbone(tmp_path / "res.pth", "vgg")
    assert "efficientnet_lite4" in NAMES


def test_labels_are_mapped_by_name(folder: Path, photos: Photos) -> None:
    generator = Generator(folder / "cgn.plan", device="cpu")
    assert [place.tolist() for place in places_of(generator, photos.classes)] == [[2, 1, 0]] * 3
    images, (shape, texture, background) = PlanImages(generator, photos.classes).draw(np.arange(30))
    colours = torch.tensor([photo_runs.CLASSES[name] for name in photos.classes])
    inside = ((images[:, :, 6, 8] + 1) * 127.5).round()  # every mask covers it
    outside = ((images[:, :, 0, 0] + 1) * 127.5).round()
    torch.testing.assert_close(inside, colours[texture].float())
    torch.testing.assert_close(outside, (colours[background] // 2).float())
    height = (images[:, :, :, 8] - images[:, :, :1, 8]).abs().sum(1).gt(1e-3).sum(1)
    seen = height > 0  # texture and background differ
    assert set((height[seen] + 4 * shape[seen]).tolist()) == {18}  # red 10 rows, green 14, blue 18
    assert len(set(shape.tolist())) == 3


def test_a_pool_gives_new_images_for_fewer_runs(folder: Path, photos: Photos) -> None:
    source = PlanImages(Generator(folder / "cgn.plan", device="cpu"), photos.classes, reuse=4)
    images, labels = source.draw(np.arange(8, 16))
    again, same = source.draw(np.arange(8, 16))
    assert torch.equal(images, again)
    assert all(torch.equal(a, b) for a, b in zip(labels, same, strict=True))


def test_other_classes_are_refused(tmp_path: Path, photos: Photos) -> None:
    plan = photo_runs.write_plan(tmp_path / "other.plan", ("red", "green", "grey"))
    with pytest.raises(
        ValueError, match=r"shape's classes are not the photos' \('blue' missing; 'grey' besides\)"
    ):
        open_batches(small(), photos, plan)
    plan = photo_runs.write_plan(tmp_path / "large.plan", size=48)
    with pytest.raises(ValueError, match="resolution is 48 x 48, expected 32 x 32, as the photos are"):
        open_batches(small(), photos, plan)
    with pytest.raises(ValueError, match="--plan is missing"):
        open_batches(small(), photos, None)


@pytest.mark.parametrize("row", ROWS)
def test_rows_have_their_images(row: str, folder: Path, photos: Photos) -> None:
    batches = open_batches(small(row), photos, folder / "cgn.plan")
    batch, again = batches(3), batches(3)
    with_heads = row in ("original+cgn", "original+swaps")
    assert batch.counts == ((3, 3) if with_heads else (6, 0))
    assert (batch.counterfactual is not None) == with_heads
    assert batch.real is not None
    assert again.real is not None
    assert torch.equal(batch.real[0], again.real[0])
    assert batch.real[0].shape == (batch.counts[0], 3, 32, 32)
    assert batch.real[0].abs().max() <= 1
    # The object keeps its class' colour, wherever it was moved.
    for image, label in zip(*batch.real, strict=True):
        assert row == "random-erasing" or int(image.amax((1, 2)).argmax()) == 2 - int(label)


@pytest.mark.parametrize("row", ["original+cgn", "original+swaps", "random-erasing"])
def test_processes_share_a_batch(row: str, folder: Path, photos: Photos) -> None:
    config = small(row, batch_size=10)
    whole = open_batches(config, photos, folder / "cgn.plan")(2)
    parts = [open_batches(config, photos, folder / "cgn.plan", rank=k, size=3)(2) for k in range(3)]
    assert whole.real is not None
    torch.testing.assert_close(torch.cat([p.real[0] for p in parts if p.real]), whole.real[0])
    if whole.counterfactual is not None:
        for k in range(3):
            columns = [p.counterfactual[1][k] for p in parts if p.counterfactual]
            assert torch.equal(torch.cat(columns), whole.counterfactual[1][k])
    with pytest.raises(ValueError, match="processes share"):
        open_batches(small(row, batch_size=4), photos, folder / "cgn.plan", size=5)


def test_rows_need_masks(photos: Photos) -> None:
    with pytest.raises(ValueError, match="masks are missing, expected a pack with masks"):
        open_batches(small("mixed-rand"), replace(photos, masks=None), None)
    empty = replace(photos, masks=np.zeros_like(np.asarray(photos.masks)))
    with pytest.raises(ValueError, match=r"the largest object covers 0.00% of its photo"):
        open_batches(small("original+swaps"), empty, None)
    one = np.asarray(photos.masks).copy()
    one[1:] = 0
    with pytest.raises(ValueError, match="1 have an object and background beside it, expected at least 2"):
        open_batches(small("original+swaps"), replace(photos, masks=one), None)


def test_moves_and_erasing() -> None:
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8) / 384
    still = AugmentConfig(flip=0, shift=0)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(move(images, slice(2), 2, still, generator), images)
    assert torch.equal(move(images, slice(2), 2, AugmentConfig(flip=1, shift=0), generator), images.flip(3))
    moved = move(images, slice(2), 2, AugmentConfig(flip=0, shift=0.25), generator)
    rows = (moved[:, 0, :, 0] * 384).long() % 64 // 8
    assert set(rows.flatten().tolist()) <= set(range(8))
    assert not torch.equal(moved, images)
    many = torch.zeros(200, 3, 16, 16)
    erased = erase(many, slice(200), 200, generator)
    share = (erased != 0).any(1).float().mean((1, 2))
    assert 60 < int((share > 0).sum()) < 140
    assert 0.01 < float(share[share > 0].min()) < float(share.max()) < 0.4
    assert not many.any()


def test_long_gradients_are_shortened(folder: Path, photos: Photos) -> None:
    def moved(clip: float) -> float:
        config = override(
            small("original"),
            {
                "model": {"backbone": "resnet18"},
                "optimizer": {"clip": clip, "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0},
            },
        )
        run = Run(config, Inputs(photos, None, None, None, {}))
        before = [p.detach().clone() for p in run.model.parameters()]
        run.model.train()
        run.step(open_batches(config, photos, None)(0))
        steps = [a.detach() - b for a, b in zip(run.model.parameters(), before, strict=True)]
        return float(torch.stack([step.norm() for step in steps]).norm())

    assert moved(0.1) == pytest.approx(0.1, rel=0.02)
    assert moved(0.0) > 0.2


def test_rates_of_the_paper_and_of_small() -> None:
    config = EnsembleConfig()
    rates = [rate(config.optimizer, step, 70, 70) for step in (0, 29, 30, 59, 60, 69)]
    assert rates == pytest.approx([1, 1, 1e-3, 1e-3, 1e-6, 1e-6])
    authors = override(config, load_toml("authors-code", RECIPES))
    assert (authors.optimizer.lr, authors.train.batch_size, authors.real) == (0.001, 64, 32)
    assert [rate(authors.optimizer, s, 45, 45) for s in (14, 15, 30)] == pytest.approx([1, 0.1, 0.01])
    cosine = override(config, load_toml("small", RECIPES)).optimizer
    found = [rate(cosine, step, 100, 1) for step in range(100)]
    assert found[0] < found[5] < max(found)
    assert found[99] < 0.001


def test_every_row_sees_each_photo_equally_often() -> None:
    half = EnsembleConfig()  # whose row is original+cgn
    whole = override(half, {"train": {"row": "original"}})
    assert half.steps(1_281_167) == round(70 * 1_281_167 / 256)
    assert whole.steps(1_281_167) == round(70 * 1_281_167 / 512)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("train", "row", "cgn", "train.row is 'cgn', expected one of original, original"),
        ("train", "batch_size", 1, "train.batch_size is 1, expected >= 2"),
        ("train", "real_share", 0.0, "train.real_share is 0.0, expected photos and others in a batch"),
        ("train", "epochs", 0.0, "train.epochs is 0.0"),
        ("train", "truncation", 2.0, "train.truncation is 2.0"),
        ("optimizer", "lr", -1.0, "optimizer.lr is -1.0"),
        ("optimizer", "schedule", "poly", "optimizer.schedule is 'poly', expected one of steps, cosine"),
        ("augment", "flip", 1.5, "augment.flip is 1.5"),
    ],
)
def test_wrong_settings(section: str, key: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        override(EnsembleConfig(), {section: {key: value}})


def test_test_sets(folder: Path) -> None:
    photos = open_photos(folder / "pack", "val")
    sets = TestSets(photos)
    assert sets.sizes() == dict.fromkeys(SETS, 12)
    assert photos.masks is not None
    inside = np.asarray(photos.masks) == 255
    for name in ("mixed_same", "mixed_rand"):
        (images, labels), *_ = sets.parts(name)
        assert labels.tolist() == np.asarray(photos.labels).tolist()
        for image, photo, mask in zip(images, photos.images, inside, strict=True):
            assert np.array_equal(image[:, mask], photo[:, mask])  # the object stays
            assert not np.array_equal(image[:, ~mask], photo[:, ~mask])  # the background does not
    (images, _), *_ = sets.parts("only_background")
    for image, photo in zip(images, photos.images, strict=True):
        assert image.max() < 91 < photo.max()  # no object is left
    (original, _), *_ = sets.parts("original")
    assert np.array_equal(original, photos.images)


def test_photos_come_once_an_epoch(photos: Photos) -> None:
    source = PhotoImages(photos, 0)
    images, (labels, *_) = source.draw(np.arange(12))
    assert sorted(labels.tolist()) == sorted(np.asarray(photos.labels).tolist())
    assert len({image.numpy().tobytes() for image in images}) == 12
    assert float(scaled(photos.images).min()) >= -1
    assert Batches(small("original"), source, None).counts == (6, 0)
