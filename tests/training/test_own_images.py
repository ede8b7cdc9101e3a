"""From a folder of photos to a CGN with one command: what is done once, skipped, taken from files, refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cgnrt_export import read_checkpoint
from cgnrt_training import cli
from cgnrt_training.checkpoints import load_tensors
from cgnrt_training.features.efficientnet_lite import EfficientNetLite
from cgnrt_training.own_images import stages
from cgnrt_training.own_images.config import EFFORT, RECIPES, Config, resolve
from cgnrt_training.settings import recipes

STAGES = ("photos", "saliency", "cgan", "cgn")
TINY = """
size = 32
saliency.train = {width = 4, steps = 2, batch_size = 2}
saliency.log = {sheet_photos = 1}
cgan.generator = {width = 4, z_dim = 8}
cgan.features = {size = 32}
cgan.discriminator = {channels = 8}
cgan.probe = {samples = 4, steps = 1}
cgan.train = {images = 4, batch = 2}
cgan.log = {sheet_samples = 1, calibrate_samples = 4}
cgn.patches = {resolution = 32, patch = 5, grid = 2, top = 20}
cgn.train = {updates = 1, pseudo_batch = 2, micro_batch = 2}
cgn.log = {sheet_samples = 1, samples_every = 1}
"""

Run = Callable[..., int]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two classes with masks, features of random weights, and the settings of an effort."""
    folder = tmp_path_factory.mktemp("given")
    random = np.random.default_rng(0)
    for name, shade in (("cat", 60), ("dog", 180)):
        for number in range(6):
            pixels = random.integers(0, 60, (32, 32, 3)) + shade
            mask = np.zeros((32, 32), np.uint8)
            mask[8:24, 2 * number : 2 * number + 16] = 255
            pixels[mask > 0] = 240 - shade
            for kind, array in (("images", pixels.astype(np.uint8)), ("masks", mask)):
                (folder / kind / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(folder / kind / name / f"{number}.png")
    torch.manual_seed(0)
    torch.save(EfficientNetLite().state_dict(), folder / "features.pth")
    (folder / "tiny.toml").write_text(TINY)
    return folder


@pytest.fixture(scope="module")
def run(given: Path) -> Run:
    """The command, on these."""

    def command(output: Path, *more: object, masks: bool = True) -> int:
        words = ["natural", "--images", given / "images", "--features", given / "features.pth"]
        words += ["--masks", given / "masks"] * masks
        words += ["--effort", given / "tiny.toml", "--threads", 1, "--output", output]
        return cli.main([str(word) for word in (*words, *more)])

    return command


@pytest.fixture(scope="module")
def finished(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    output = tmp_path_factory.mktemp("own") / "run"
    assert run(output) == 0
    return output


def times(output: Path) -> dict[str, int]:
    return {
        str(path.relative_to(output)): path.stat().st_mtime_ns
        for stage in STAGES
        for path in (output / stage).glob("*.[pn][tp]*")
    }


def test_from_photos_to_a_cgn(finished: Path) -> None:
    assert (finished / "cgn.pt").read_bytes() == (finished / "cgn" / "cgn.pt").read_bytes()
    checkpoint = read_checkpoint(finished / "cgn.pt", resolution=32)
    assert checkpoint.mechanisms["shape"].classes == ("cat", "dog")
    assert checkpoint.training_data == "12 photos of 2 classes"
    assert [source["name"] for source in checkpoint.sources] == [
        "cgn.pt",
        "cgan.pt",
        "saliency.pt",
        "features.pth",
    ]
    assert set(times(finished)) >= {
        "photos/train.images.npy",
        "saliency/saliency.pt",
        "cgan/cgan.pt",
        "cgn/resume.pt",
    }


def test_finished_stages_are_not_done_again(
    finished: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = times(finished)
    assert run(finished) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{finished / 'cgn.pt'}\n"
    assert times(finished) == before
    for number, stage in enumerate(STAGES, 1):
        assert f"stage {number} of 4, {stage}: " in captured.err
        assert f"\nstage {stage}: " in captured.err
    assert f"next: cgnrt-export {finished / 'cgn.pt'} -o cgn.plan" in captured.err


def test_a_stopped_run_goes_on_in_the_stage_where_it_was(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    train = stages.train_cgn

    def stopped(*arguments: Any, **options: Any) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "train_cgn", stopped)
    assert run(output) == 1
    assert "interrupted. Start the same command again to go on." in capsys.readouterr().err
    assert not (output / "cgn.pt").exists()
    before = times(output)
    (output / "cgn").mkdir()
    (output / "cgn" / "config.json").write_text(
        "{}"
    )  # as a kill leaves a run that has not seen its files yet
    monkeypatch.setattr(stages, "train_cgn", train)
    assert run(output) == 0
    assert before.items() <= times(output).items()
    assert load_tensors(output / "cgn.pt")["step"] == 1


def test_files_in_place_of_stages(
    finished: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    files = ["--cgan", finished / "cgan" / "cgan.pt", "--student", finished / "saliency" / "saliency.pt"]
    assert run(output, *files, masks=False) == 0
    assert "stage 2 of 2, cgn: " in capsys.readouterr().err
    assert sorted(path.name for path in output.iterdir()) == ["cgn", "cgn.pt", "photos"]
    checkpoint = read_checkpoint(output / "cgn.pt")
    assert checkpoint.training_data == "no pictures: what cgan.pt draws"
    assert checkpoint.mechanisms["background"].classes == ("cat", "dog")
    assert run(tmp_path / "found", *files[:2]) == 0
    said = read_checkpoint(tmp_path / "found" / "cgn.pt").training_data
    assert said == "no pictures: what cgan.pt draws, in which it finds objects as in 12 photos of 2 classes"
    text = "holiday photos, not to be passed on"
    assert run(tmp_path / "another", *files, "--training-data", text, masks=False) == 0
    assert read_checkpoint(tmp_path / "another" / "cgn.pt").training_data == text


def test_what_is_refused_before_any_work(
    finished: Path, given: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    cgan = finished / "cgan" / "cgan.pt"
    for words, masks, status, message in (
        ([], False, 1, "masks are missing, expected --saliency PLAN or --masks FOLDER"),
        (["--effort", "fulll"], True, 2, "expected a TOML file or one of the recipes full, short, try"),
        (["--set", "size=48"], True, 2, "size is 48, expected one of 32, 64, 128"),
        (["--set", "cgan.train.image=1"], True, 2, "Did you mean cgan.train.images"),
        (["--cgan", cgan, "--set", "size=64"], True, 1, "resolution is 32, expected 64"),
        (["--cgan", given / "features.pth"], True, 1, "expected a BigGAN-deep"),
        (["--student", cgan], True, 1, "expected a U2-Net"),
        (["--features", cgan], True, 1, "expected an EfficientNet-Lite"),
    ):
        assert run(output, *words, masks=masks) == status, words
        assert message in capsys.readouterr().err
        assert not output.exists()


def test_a_run_of_other_settings_or_photos_is_refused(
    finished: Path, given: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(finished, "--set", "cgan.train.batch=4") == 1
    assert "settings are changed: train.batch (2 -> 4)" in capsys.readouterr().err
    photo = given / "images" / "cat" / "0.png"
    time = photo.stat().st_mtime_ns
    photo.touch()
    assert run(finished) == 1
    assert "fingerprint of the pack differ" in capsys.readouterr().err
    os.utime(photo, ns=(time, time))


def test_efforts() -> None:
    assert EFFORT in recipes(RECIPES)
    images = [resolve(effort).cgan.train.images for effort in ("try", "short", "full")]
    assert images == sorted(images)
    config = resolve("try", ["cgan.train.images=64", "size=32", "cgn.loss.background=7"])
    assert (config.cgan.train.images, config.size, config.cgn.loss.background) == (64, 32, 7)
    assert config.cgn.train.micro_batch > Config().cgn.train.micro_batch  # of the recipe for small pictures
