"""The small network that finds objects: its layers, its training, its files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import saliency_nets
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from cgnrt.errors import CheckpointError
from cgnrt_training.checkpoints import load_tensors
from cgnrt_training.checkpoints import save as save_checkpoint
from cgnrt_training.photos.pack import Photos
from cgnrt_training.runs.loop import LossError
from cgnrt_training.saliency import train as training
from cgnrt_training.saliency.augment import augment
from cgnrt_training.saliency.config import AugmentConfig, LossConfig, SaliencyConfig
from cgnrt_training.saliency.files import load_saliency, training_size
from cgnrt_training.saliency.model import SaliencyNet
from cgnrt_training.saliency.scores import measure, overlap
from cgnrt_training.saliency.train import mask_losses, train
from cgnrt_training.settings import override

CPU = torch.device("cpu")
OFF = AugmentConfig(flip=0, scale=0, shift=0, colour=0, blur=0, noise=0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Bit-equal sums want one number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def photos(n: int = 40, size: int = 32, seed: int = 0, fingerprint: str = "train") -> Photos:
    """Bright rectangles before dark noise, in memory."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 120, (n, 3, size, size)).astype(np.uint8)
    masks = np.zeros((n, size, size), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        top, left = random.integers(2, size // 2, 2)
        height, width = random.integers(size // 4, size // 2, 2)
        part = np.s_[top : top + height, left : left + width]
        mask[part] = 255
        image[:, *part] = random.integers(180, 255, (3, 1, 1))
    return Photos(images, np.zeros(n, np.int64), masks, ("one",), size, fingerprint)


def config(**sections: dict[str, object]) -> SaliencyConfig:
    small: dict[str, dict[str, object]] = {
        "train": {"width": 2, "steps": 6, "batch_size": 4, "ema": 0.9},
        "log": {"checkpoint_every": 2, "scalars_every": 1, "sheet_photos": 3},
    }
    for name, values in sections.items():
        small[name] = small.get(name, {}) | values
    return override(SaliencyConfig(), small)


def quiet(output: Path, settings: SaliencyConfig | None = None, given: Any = None, **how: Any) -> Path:
    return train(settings or config(), given or photos(), output, log=io.StringIO(), **how)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (128, 128), (48, 80)])
def test_every_size_of_whole_levels(size: tuple[int, int]) -> None:
    network = SaliencyNet(2).eval()
    image = torch.rand(2, 3, *size) * 2 - 1
    with torch.no_grad():
        mask = network(image)
        assert mask.shape == (2, 1, *size)
        assert 0 < float(mask.min()) <= float(mask.max()) < 1
        # The decoder ends where the encoder began: an object in a corner changes the mask there.
        changed = image.clone()
        changed[:, :, :4, :4] = 1
        difference = (network(changed) - mask).abs()
        assert float(difference[:, :, :4, :4].max()) > 0
    with pytest.raises(ValueError, match="images are 40 x 64, expected multiples of 16"):
        network(torch.zeros(1, 3, 40, 64))


def test_the_default_costs_31_million_multiply_adds_at_64_px() -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        SaliencyNet().eval()(torch.zeros(1, 3, 64, 64))
    assert counter.get_total_flops() / 2 == pytest.approx(31.1e6, rel=0.01)
    assert sum(p.numel() for p in SaliencyNet().parameters()) == 306_057


def test_folding_the_norms_changes_nothing() -> None:
    network = saliency_nets.head(4, folded=False)
    folded = network.without_norms()
    assert not any("norm" in key for key in folded.state_dict())
    image = torch.rand(3, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(folded(image), network(image), rtol=0, atol=1e-5)
        torch.testing.assert_close(folded.without_norms()(image), folded(image), rtol=0, atol=0)


def test_changes_that_are_off_change_nothing() -> None:
    images, masks = torch.rand(4, 3, 16, 24) * 2 - 1, torch.rand(4, 1, 16, 24)
    for found, given in zip(
        augment(images, masks, OFF, torch.Generator().manual_seed(0)), (images, masks), strict=True
    ):
        torch.testing.assert_close(found, given, rtol=0, atol=1e-5)


def test_photo_and_mask_move_alike() -> None:
    masks = torch.rand(16, 1, 24, 24)
    moving = AugmentConfig(colour=0, blur=0, noise=0)
    images, moved = augment(
        (masks * 2 - 1).expand(-1, 3, -1, -1), masks, moving, torch.Generator().manual_seed(1)
    )
    torch.testing.assert_close(images, (moved * 2 - 1).expand(-1, 3, -1, -1), rtol=0, atol=1e-5)
    assert float((moved - masks).abs().mean()) > 0.1
    mirrored, _ = augment(
        masks.expand(-1, 3, -1, -1), masks, replace(OFF, flip=1), torch.Generator().manual_seed(1)
    )
    torch.testing.assert_close(mirrored[:, :1], masks.flip(3), rtol=0, atol=1e-5)


def test_pictures_change_and_stay_pictures() -> None:
    images, masks = torch.rand(64, 3, 16, 16) * 2 - 1, torch.zeros(64, 1, 16, 16)
    for name in ("colour", "blur", "noise"):
        alone = replace(OFF, **{name: getattr(AugmentConfig(), name)})
        found, _ = augment(images, masks, alone, torch.Generator().manual_seed(2))
        assert float(found.abs().max()) <= 1
        touched = ((found - images).abs().flatten(1).max(1).values > 1e-3).float().mean()
        assert 0.1 < float(touched) <= 1, name
        again, _ = augment(images, masks, alone, torch.Generator().manual_seed(2))
        assert torch.equal(found, again)
    flat = torch.full((8, 3, 16, 16), 0.3)
    blurred, _ = augment(flat, masks[:8], replace(OFF, blur=1), torch.Generator().manual_seed(2))
    torch.testing.assert_close(blurred, flat, rtol=0, atol=1e-5)
    sharp, soft = (
        augment(images, masks, replace(OFF, blur=share), torch.Generator().manual_seed(3))[0]
        for share in (0.0, 1.0)
    )
    assert float(soft.std()) < 0.8 * float(sharp.std())


def test_losses_by_hand() -> None:
    logits = torch.tensor([[[[40.0, 40.0, -40.0, -40.0]]]])
    right, half = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    perfect = mask_losses(logits, right, LossConfig())
    assert float(perfect["binary"]) == pytest.approx(0)
    assert float(perfect["overlap"]) == pytest.approx(0)
    found = mask_losses(logits, half, LossConfig(binary=2.0, overlap=3.0))
    assert float(found["binary"]) == pytest.approx(2 * 40 / 4)
    assert float(found["overlap"]) == pytest.approx(3 * (1 - 2 / 3))  # one pixel more in 1 of 2
    assert set(mask_losses(logits, half, LossConfig(overlap=0))) == {"binary"}


def test_scores_by_hand() -> None:
    found = torch.tensor([[[[0.9, 0.6, 0.4, 0.0]]], [[[0.1, 0.0, 0.0, 0.0]]], [[[0.8, 0.0, 0.0, 0.0]]]])
    given = torch.tensor([[[[1.0, 0.0, 0.7, 0.0]]], [[[0.2, 0.0, 0.0, 0.0]]], [[[0.0, 0.0, 0.0, 0.0]]]])
    assert overlap(found, given).tolist() == pytest.approx([1 / 3, 1, 0])

    class Darkness(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return (image[:, :1] < 0).float()

    some = photos(10)
    assert some.masks is not None
    dark = replace(some, images=np.repeat(255 - some.masks[:, None], 3, 1))
    assert vars(measure(Darkness(), dark, np.arange(10), CPU)) == {"iou": 1.0, "mae": 0.0}
    bright = replace(some, images=np.repeat(some.masks[:, None], 3, 1))
    assert vars(measure(Darkness(), bright, np.arange(10), CPU)) == {"iou": 0.0, "mae": 1.0}


def test_a_run_learns_to_find_objects(tmp_path: Path) -> None:
    settings = config(
        train={"steps": 60, "batch_size": 16, "width": 4},
        optimizer={"lr": 0.01},
        log={"checkpoint_every": 60},
    )
    path = quiet(tmp_path / "run", settings)
    assert path == tmp_path / "run" / "saliency.pt"
    lines = [json.loads(line) for line in (tmp_path / "run" / "scalars.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 60
    assert lines[-1]["iou"] > 0.8
    assert lines[-1]["mae"] < 0.1
    assert set(lines[0]) == {"step", "binary", "overlap"}
    with Image.open(tmp_path / "run" / "sheet.png") as picture:
        assert picture.width > 2 * 3 * 32  # with captions on the left
        assert picture.height == 2 * 3 * 32
    assert training_size(load_tensors(path), "f") == 32
    others = photos(20, seed=1)
    assert measure(load_saliency(path), others, np.arange(20), CPU).iou > 0.8
    # As wide as the weights say, and as large a picture as fits.
    with torch.no_grad():
        assert load_saliency(path)(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)


def test_resumed_run_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_tensors(quiet(tmp_path / "whole").with_name("resume.pt"))
    check = training.check_losses

    def stop_at_step_6(losses: Any, step: int, output: Path) -> dict[str, float]:
        if step == 6:
            raise KeyboardInterrupt
        return check(losses, step, output)

    with monkeypatch.context() as patch:
        patch.setattr(training, "check_losses", stop_at_step_6)
        with pytest.raises(KeyboardInterrupt):
            quiet(tmp_path / "parts")
    parts = load_tensors(quiet(tmp_path / "parts", resume=True).with_name("resume.pt"))
    assert parts["step"] == 6
    for part in ("model", "network"):
        for name, tensor in whole[part].items():
            assert torch.equal(tensor, parts[part][name]), name
    scalars = [(tmp_path / name / "scalars.jsonl").read_text() for name in ("whole", "parts")]
    assert scalars[0] == scalars[1]


def test_what_a_resumed_run_refuses(tmp_path: Path) -> None:
    quiet(tmp_path)
    with pytest.raises(ValueError, match="the folder already has a run"):
        quiet(tmp_path)
    with pytest.raises(ValueError, match=r"settings are changed: train\.seed"):
        quiet(tmp_path, config(train={"seed": 1}), resume=True)
    others = photos(fingerprint="others")
    with pytest.raises(ValueError, match="photos are other ones, expected those that the run began with"):
        quiet(tmp_path, given=others, resume=True)
    longer = quiet(tmp_path, config(train={"steps": 8}), resume=True)
    assert load_tensors(longer)["step"] == 8


def test_photos_that_nothing_can_be_learnt_from(tmp_path: Path) -> None:
    small, odd = photos(3), photos(size=40)
    bare = replace(small, masks=None)
    empty = replace(photos(), masks=np.zeros((40, 32, 32), np.uint8))
    for given, message in (
        ({"given": bare}, "masks are missing, expected a pack with masks"),
        ({"judged": bare}, "masks are missing"),
        ({"given": small}, "photos are 3 to train on and 0 to judge by, expected at least 2 and 1"),
        ({"given": empty}, "the largest object covers 0.00% of its photo"),
        ({"given": odd}, "photos are of 40 px, expected a multiple of 16"),
        ({"judged": photos(size=64)}, "photos that judge are of 64 px, expected 32"),
    ):
        with pytest.raises(ValueError, match=message):
            quiet(tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_photos_of_their_own_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watched(network: SaliencyNet, given: Photos, indices: Any, device: torch.device) -> Any:
        seen.append((given.fingerprint, len(indices)))
        return measure(network, given, indices, device)

    monkeypatch.setattr(training, "measure", watched)
    others = photos(20, seed=1, fingerprint="val")
    quiet(tmp_path, config(log={"judged_photos": 7}), judged=others)
    assert seen == [("val", 7), ("val", 7), ("val", 20)]


def test_stops_at_nan_and_keeps_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(logits: torch.Tensor, masks: torch.Tensor, weights: LossConfig) -> dict[str, torch.Tensor]:
        return {"binary": (logits * torch.nan).mean(), "overlap": logits.mean()}

    quiet(tmp_path)
    monkeypatch.setattr(training, "mask_losses", broken)
    with pytest.raises(LossError, match="loss binary is not finite"):
        quiet(tmp_path, config(train={"steps": 8}), resume=True)
    assert load_tensors(tmp_path / "resume.pt")["step"] == 6


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train": {"batch_size": 1}}, r"train\.batch_size is 1, expected >= 2"),
        ({"train": {"steps": 0}}, r"train\.steps is 0, expected > 0"),
        ({"train": {"width": 300}}, r"train\.width is 300, expected in 1\.\.256"),
        ({"train": {"ema": 1}}, r"train\.ema is 1.*, expected in \[0, 1\)"),
        ({"train": {"seed": 2**63}}, r"train\.seed .* expected in 0"),
        ({"augment": {"flip": 1.5}}, r"augment\.flip is 1\.5, expected in 0\.\.1"),
        ({"augment": {"blur_pixels": 9}}, r"augment\.blur_pixels is 9.*, expected in 0\.\.8"),
        ({"optimizer": {"lr": -1}}, r"optimizer\.lr is -1.*, expected > 0"),
        ({"loss": {"binary": 0, "overlap": 0}}, "loss is .*, expected a weight > 0"),
        ({"train": {"stepz": 1}}, r"key is 'train\.stepz'.*Did you mean train\.steps"),
    ],
)
def test_rejects_settings(changed: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        override(SaliencyConfig(), changed)


def test_half_precision_and_folded_files(tmp_path: Path) -> None:
    content = saliency_nets.content(4, folded=False)
    network = saliency_nets.network_in(content)
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    half = {
        k: v.half() if v.is_floating_point() else v for k, v in network.without_norms().state_dict().items()
    }
    for name, model, tolerance in (("whole.pt", content["model"], 1e-5), ("half.pt", half, 0.02)):
        save_checkpoint(content | {"model": model}, tmp_path / name)
        loaded = load_saliency(tmp_path / name)
        assert {p.dtype for p in loaded.parameters()} == {torch.float32}
        with torch.no_grad():
            torch.testing.assert_close(loaded(image), network(image), rtol=0, atol=tolerance)


def test_files_that_are_refused(tmp_path: Path) -> None:
    content = saliency_nets.content(2)
    model = content["model"]
    for changes, message in (
        ({"format": "cgnrt-mnist-gan"}, "format is 'cgnrt-mnist-gan', expected 'cgnrt-saliency'"),
        ({"format_version": 2}, r"format version is 2, expected 1\.\.1"),
        ({"model": None}, "content is NoneType, expected a state dict"),
        ({"model": {k: v for k, v in model.items() if k != "last.bias"}}, "missing keys are 'last.bias'"),
        ({"model": model | {"more": torch.zeros(1)}}, "unknown keys are 'more'"),
        (
            {"model": model | {"first.conv.weight": torch.ones(1, 1, 1, 1).expand(10**9, 3, 3, 3)}},
            r"'first\.conv\.weight' is \(1000000000, 3, 3, 3\), expected \(8, 3, 3, 3\)",
        ),
    ):
        save_checkpoint(content | changes, tmp_path / "saliency.pt")
        with pytest.raises(CheckpointError, match=message):
            load_saliency(tmp_path / "saliency.pt")
    with pytest.raises(CheckpointError, match=r"size is None, expected 16\.\.4096"):
        training_size({}, "f")
