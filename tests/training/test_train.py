from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from cgnrt.errors import CheckpointError
from cgnrt_training.checkpoints import load_tensors
from cgnrt_training.features.squeezenet import SqueezeNetFeatures
from cgnrt_training.mnist import losses
from cgnrt_training.mnist import train as loop
from cgnrt_training.mnist.checkpoints import load_cgn
from cgnrt_training.mnist.config import RECIPES, Config, reference
from cgnrt_training.mnist.data import VariantMnist
from cgnrt_training.mnist.train import train
from cgnrt_training.runs.loop import LossError
from cgnrt_training.settings import load_toml, override, to_dict

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def one_thread():
    """Bit-equal sums want one number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(variant: str = "double-colored", **train_settings: object) -> Config:
    settings = {"steps": 6, "batch_size": 8, "ema": 0.9} | train_settings
    return override(
        reference(variant),
        {
            "model": {"channels": 4, "noise_size": 4},
            "discriminator": {"width": 8},
            "loss": {"perceptual": [0.1, 0, 0, 0]},
            "train": settings,
            "log": {"scalars_every": 1, "samples_every": 3, "checkpoint_every": 3},
        },
    )


@pytest.fixture
def data(mnist: Path) -> VariantMnist:
    return VariantMnist("double-colored", mnist)


@pytest.fixture
def squeezenet(tmp_path: Path) -> Path:
    torch.save(SqueezeNetFeatures().state_dict(), tmp_path / "squeezenet.pth")
    return tmp_path / "squeezenet.pth"


def test_leaves_a_run_folder(data: VariantMnist, tmp_path: Path, squeezenet: Path) -> None:
    output = tmp_path / "run"
    log = io.StringIO()
    config = tiny(texture_reuse=2)
    path = train(config, data, output, perceptual_weights=squeezenet, log=log)
    assert path == output / "cgn.pt"
    checkpoint = load_cgn(path)
    assert checkpoint.step == 6
    assert checkpoint.variant == "double-colored"
    assert checkpoint.class_names == data.class_names
    assert checkpoint.config == to_dict(config)
    assert "MNIST" in (checkpoint.training_data or "")
    assert sorted(p.name for p in (output / "samples").iterdir()) == ["step-000003.png", "step-000006.png"]
    with Image.open(output / "samples" / "step-000006.png") as picture:
        assert picture.width > 640  # with captions
        assert picture.height > 1280
    scalars = [json.loads(line) for line in (output / "scalars.jsonl").read_text().splitlines()]
    assert [row["step"] for row in scalars] == [1, 2, 3, 4, 5, 6]
    assert {"adversarial", "binary", "perceptual", "d_real", "d_fake", "mean_mask"} <= set(scalars[0])
    assert any((output / "tensorboard").iterdir())
    assert not [p for p in output.rglob("*") if "partial" in p.name]
    assert log.getvalue() == ""


@pytest.mark.parametrize(
    ("variant", "recipe"), [("double-colored", None), ("double-colored", "fast"), ("wildlife", None)]
)
def test_resumed_run_equals_uninterrupted_one(
    variant: str,
    recipe: str | None,
    mnist: Path,
    textures: Path,
    squeezenet: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bit for bit: dropout, noise, data order over an epoch's end, optimizers, averaged weights, schedule."""
    source = VariantMnist(variant, mnist, textures=textures if variant == "wildlife" else None)
    config = override(tiny(variant), {"optimizer": {"final_lr": 0.1}})
    if recipe is not None:
        rest = {"train": {"steps": 6, "batch_size": 8, "teach_from": 2}, "discriminator": {"width": 8}}
        config = override(override(config, load_toml(recipe, RECIPES)), rest)
    log = io.StringIO()
    weights = None if recipe else squeezenet  # building that network draws random numbers, too
    train(config, source, tmp_path / "whole", perceptual_weights=weights, log=log)

    class StoppedError(Exception):
        pass

    def stop_late(run: loop.Run) -> None:
        if run.state.step == 4:  # after the checkpoint at step 3: step 4 is done, lost and done again
            raise StoppedError

    original = loop.Run.set_learning_rates
    monkeypatch.setattr(loop.Run, "set_learning_rates", lambda run: (stop_late(run), original(run)))
    with pytest.raises(StoppedError):
        train(config, source, tmp_path / "parts", perceptual_weights=weights, log=log)
    monkeypatch.setattr(loop.Run, "set_learning_rates", original)
    torch.manual_seed(99)
    train(config, source, tmp_path / "parts", perceptual_weights=weights, resume=True, log=log)

    assert "at step 3" in log.getvalue()
    whole, parts = (load_tensors(tmp_path / name / "resume.pt") for name in ("whole", "parts"))
    assert_equal(whole, parts)
    assert (tmp_path / "whole/scalars.jsonl").read_text() == (tmp_path / "parts/scalars.jsonl").read_text()


def assert_equal(a: object, b: object, where: str = "") -> None:
    if isinstance(a, dict):
        assert isinstance(b, dict)
        assert list(a) == list(b), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple)
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{k}]")
    elif isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def test_longer_run_goes_on(data: VariantMnist, tmp_path: Path) -> None:
    log = io.StringIO()
    train(tiny(steps=2), data, tmp_path / "run", log=log)
    train(tiny(steps=4), data, tmp_path / "run", resume=True, log=log)
    assert load_cgn(tmp_path / "run" / "cgn.pt").step == 4


def test_without_weights_the_perceptual_loss_is_off_and_says_so(data: VariantMnist, tmp_path: Path) -> None:
    log = io.StringIO()
    train(tiny(steps=1), data, tmp_path / "run", log=log)
    assert "perceptual loss: off" in log.getvalue()


def test_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    data: VariantMnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def entropy(mask: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return mask.mean() * (float("nan") if len(calls) == 5 else 1)

    monkeypatch.setattr(losses, "binary_entropy", entropy)
    with pytest.raises(LossError, match="loss binary is not finite at step 4"):
        train(tiny(), data, tmp_path / "run", log=io.StringIO())
    assert load_cgn(tmp_path / "run" / "cgn.pt").step == 3


def test_collapsed_masks_are_reported(
    data: VariantMnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "COLLAPSED", (0.99, 1.0))
    log = io.StringIO()
    train(tiny(steps=1), data, tmp_path / "run", log=log)
    assert "the masks have collapsed" in log.getvalue()


def test_average_is_what_is_saved(data: VariantMnist, tmp_path: Path) -> None:
    train(tiny(ema=0.0), data, tmp_path / "plain", log=io.StringIO())
    state = load_tensors(tmp_path / "plain" / "resume.pt")
    assert_equal(state["model"], state["cgn"])
    train(tiny(), data, tmp_path / "average", log=io.StringIO())
    state = load_tensors(tmp_path / "average" / "resume.pt")
    assert not torch.equal(state["model"]["f_shape.0.weight"], state["cgn"]["f_shape.0.weight"])


def test_resume_from_a_foreign_file(data: VariantMnist, tmp_path: Path) -> None:
    train(tiny(steps=1), data, tmp_path, log=io.StringIO())
    torch.save({"step": 3}, tmp_path / "resume.pt")
    with pytest.raises(
        CheckpointError, match=r"model, cgn, .*optimizer_d, rng is missing, expected the state"
    ):
        train(tiny(), data, tmp_path, resume=True, log=io.StringIO())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("step", "7", "step is '7'"),
        ("step", True, "step is True"),
        ("optimizer_g", {"state": {}}, "optimizer_g is of another run"),
        ("rng", torch.zeros(3), "rng is of another run"),
    ],
)
def test_foreign_resume_state_is_refused(
    data: VariantMnist, tmp_path: Path, key: str, value: object, message: str
) -> None:
    path = train(tiny(steps=1), data, tmp_path / "run", log=io.StringIO()).with_name("resume.pt")
    state = load_tensors(path)
    assert isinstance(state, dict)
    torch.save(state | {key: value}, path)
    with pytest.raises(CheckpointError, match=message):
        train(tiny(steps=2), data, tmp_path / "run", resume=True, log=io.StringIO())
