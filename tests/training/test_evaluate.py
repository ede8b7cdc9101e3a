"""`cgnrt-train evaluate`: counterfactuals of plans whose answers are known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import photo_runs
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgnrt import Generator
from cgnrt.errors import CheckpointError
from cgnrt_training import cli
from cgnrt_training.checkpoints import save
from cgnrt_training.classifier.config import ClassifierConfig
from cgnrt_training.classifier.model import Classifier, save_classifier
from cgnrt_training.classifier.reader import Reader
from cgnrt_training.ensemble.backbones import new_backbone
from cgnrt_training.ensemble.config import EnsembleConfig
from cgnrt_training.ensemble.files import about, build
from cgnrt_training.experiments.digits import evaluate_digits, unrolled
from cgnrt_training.experiments.evaluate import evaluate, load_predictors, minimality
from cgnrt_training.experiments.results import merge
from cgnrt_training.experiments.results_page import page
from cgnrt_training.features.efficientnet_lite import EfficientNetLite
from cgnrt_training.features.squeezenet import SqueezeNetFeatures
from cgnrt_training.mnist.data import VariantMnist
from cgnrt_training.settings import override, to_dict

COLOURS = np.array([photo_runs.CLASSES[name] for name in ("red", "green", "blue")], np.float32)


def texture_of(images: Tensor) -> NDArray[np.int64]:
    """Exact for `photo_runs.write_plan`, as are the next two: the colour of a place that each mask covers."""
    return _nearest(images[:, :, 6, 8], COLOURS)


def background_of(images: Tensor) -> NDArray[np.int64]:
    return _nearest(images[:, :, 0, 0], np.floor(COLOURS / 2))


def shape_of(images: Tensor) -> NDArray[np.int64]:
    rows = (images[:, :, :, 8] - images[:, :, :1, 8]).abs().sum(1).gt(1e-3).sum(1)
    return ((rows - 10) // 4).numpy()


def _nearest(pixels: Tensor, colours: NDArray[np.float32]) -> NDArray[np.int64]:
    found = (pixels.numpy()[:, None] + 1) * 127.5 - colours
    return np.abs(found).sum(2).argmin(1)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photo_runs.write_plan(tmp_path_factory.mktemp("plan") / "cgn.plan")


def test_a_plan_that_does_as_it_is_told(plan: Path) -> None:
    torch.manual_seed(0)
    predictors = {"shape": shape_of, "texture": texture_of, "background": background_of}
    with Generator(plan, device="cpu") as generator:
        found = evaluate(generator, predictors, EfficientNetLite(), samples=60)
        always = {name: lambda images: np.zeros(len(images), np.int64) for name in predictors}
        blind = evaluate(generator, always, EfficientNetLite(), samples=60)
    assert found["before"] == {"shape": 1.0, "texture": 1.0, "background": 1.0}
    for replaced in predictors:
        assert found["effectiveness"][replaced] == {"shape": 1.0, "texture": 1.0, "background": 1.0}
        assert 0 < found["minimality"][replaced] < 1
        assert 0.1 < blind["effectiveness"][replaced][replaced] < 0.6
    assert found["composition"] == 0


def test_minimality_by_its_definition() -> None:
    images = np.array([[0.0], [1.0], [2.0], [10.0]], np.float32)
    labels = np.array([0, 0, 1, 1])
    # Of image 0: the counterfactual is at 2; one of two images with label 1 is as near; none with label 0 is as far.
    one = minimality(images[:1], labels[:1], np.array([[2.0]], np.float32), np.array([1]))
    assert math.isnan(one)  # no others
    moved, new = np.array([[2.0], [1.5], [2.0], [10.0]], np.float32), np.array([1, 1, 0, 0])
    p, q = np.array([0.5, 0.0, 0.0, 0.0]), np.array([0.0, 1.0, 1.0, 1.0])
    expected = np.log(0.8 * np.exp(p) + 0.2 * np.exp(q)).mean()
    assert minimality(images, labels, moved, new) == pytest.approx(expected)


def write_ensemble(
    path: Path, classes: tuple[str, ...] = ("blue", "green", "red"), row: str = "original+swaps"
) -> Path:
    torch.manual_seed(0)
    config = override(EnsembleConfig(), {"model": {"backbone": "resnet18"}, "train": {"row": row}})
    model = build(config, new_backbone("resnet18"), len(classes))
    save({**about(config, classes, 32, {}), "step": 1, "model": model.state_dict()}, path)
    return path


def test_the_command(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(EfficientNetLite().state_dict(), tmp_path / "lite.pth")
    how = ["--features", str(tmp_path / "lite.pth"), "--samples", "6", "--threads", "1"]
    ensemble = write_ensemble(tmp_path / "ensemble.pt")
    assert cli.main(["evaluate", str(plan), "--predictors", str(ensemble), *how]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"samples", "before", "effectiveness", "minimality", "composition"}
    # The same, kept for the page of results.
    command = ["evaluate", str(plan), "--predictors", str(ensemble), *how, "--output", str(tmp_path / "kept")]
    monkeypatch.setattr("sys.argv", ["cgnrt-train", *command])
    assert cli.main(command) == 0
    assert json.loads(capsys.readouterr().out) == found
    record = json.loads((tmp_path / "kept" / "evaluate.json").read_text())
    assert record["results"] == {"cgn": found}
    assert record["settings"].keys() == {"samples", "seed", "plan", "features", "predictor.0"}
    folder = plan.parent.name
    assert record["command"] == (
        f"cgnrt-train evaluate {folder}/cgn.plan --predictors PREDICTOR --features FEATURES --samples 6 --threads 1 "
        "--output OUTPUT"
    )
    content = merge({}, record)
    assert content["runs"]["evaluate"][0]["covers"] == ["cgn"]
    text = page(content)
    assert "| cgn  | nothing " in text
    assert "the largest difference of a pixel is 0." in " ".join(text.split())
    # A head that always says the photos' class 2, "red", says the plan's class 0.
    with Generator(plan, device="cpu") as generator:
        content = torch.load(ensemble, weights_only=True)
        content["model"]["heads.shape.weight"].zero_()
        content["model"]["heads.shape.bias"].copy_(torch.tensor([0.0, 0.0, 9.0]))
        save(content, ensemble)
        answer = load_predictors([ensemble], generator)["shape"]
        assert answer(torch.zeros(2, 3, 32, 32)).tolist() == [0, 0]


def test_digits_take_three_files(demo_plan: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "classifier.pt"
    save_classifier(Classifier(), to_dict(ClassifierConfig("oracle", "colored")), path)
    with Generator(demo_plan, device="cpu") as generator:
        predictors = load_predictors([path] * 3, generator)
        answers = predictors["texture"](torch.zeros(2, 3, 32, 32))
        assert answers.shape == (2,)
        with pytest.raises(ValueError, match=r"--predictors are 1 files, expected one ensemble.pt or three"):
            load_predictors([path], generator)


def test_wrong_predictors(plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(*words: object, code: int = 1) -> str:
        assert cli.main(["evaluate", str(plan), *map(str, words), "--threads", "1"]) == code
        return capsys.readouterr().err

    one = write_ensemble(tmp_path / "one.pt", row="original")
    assert "has one head, expected three" in error("--predictors", one)
    other = write_ensemble(tmp_path / "other.pt", ("cat", "green", "red"))
    assert "'cat' missing; 'blue' besides" in error("--predictors", other)
    three = write_ensemble(tmp_path / "three.pt")
    assert "--predictors are 2 files" in error("--predictors", three, three)
    assert "--samples is 1, expected >= 2" in error("--predictors", three, "--samples", 1, code=2)
    assert "--seed is -1, expected 0" in error("--predictors", three, "--seed", -1, code=2)
    digits = tmp_path / "classifier.pt"
    save_classifier(Classifier(), to_dict(ClassifierConfig("oracle", "colored")), digits)
    assert "shape has 3 classes, expected 10" in error("--predictors", digits, digits, digits)
    with Generator(plan, device="cpu") as generator, pytest.raises(CheckpointError, match="unreadable"):
        load_predictors([tmp_path / "missing.pt"], generator)


def test_mechanisms_of_digits(
    demo_plan: Path,
    mnist: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cgnrt_training.experiments.digits.PATCHES", 4)
    monkeypatch.setattr("cgnrt_training.classifier.reader.STEPS", 2)
    torch.save(SqueezeNetFeatures().state_dict(), tmp_path / "squeezenet.pth")
    how = ["evaluate", str(demo_plan), "--data", str(mnist), "--samples", "8", "--threads", "1"]
    assert cli.main([*how, "--variant", "double-colored"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"seams", "coverage", "features", "masks"}
    assert found["features"] == "pixels"
    for name in ("seams", "coverage"):
        assert {key: len(values) for key, values in found[name].items()} == {"texture": 10, "background": 10}
    assert len(found["masks"]["by_class"]) == 10
    features = ["--patch-features", str(tmp_path / "squeezenet.pth")]
    assert cli.main([*how, "--variant", "double-colored", *features]) == 0
    assert json.loads(capsys.readouterr().out)["features"] == "SqueezeNet 1.1"
    for words, message in (
        (how, "--data is given and --variant is missing, expected both or none"),
        (
            [*how[:2], "--output", "x", "--data", "y", "--variant", "colored"],
            "--predictors is missing, expected both",
        ),
        (how[:2], "--predictors and --data are missing, expected one of them"),
    ):
        assert cli.main(words) == 2
        assert message in capsys.readouterr().err


def test_unrolled_parts_are_the_mechanisms_own(demo_plan: Path) -> None:
    """The same noise and labels, without the texture shuffle: rolled, they are the sample's parts."""
    with Generator(demo_plan, device="cpu") as generator:
        drawn = unrolled(generator, 3, 6, seed=1)
        sample = generator.sample(6, seed=1, do={"shape": 3, "texture": 3, "background": 3}, parts=True)
        for k, name in enumerate(("foreground", "background")):
            for picture, expected, (dy, dx) in zip(
                drawn[k + 1], getattr(sample, name), sample.noise.rolls[:, k], strict=True
            ):
                np.testing.assert_allclose(picture.roll((int(dy), int(dx)), (1, 2)), expected, atol=1e-5)


def test_a_plan_of_other_classes_has_no_digits(plan: Path, mnist: Path) -> None:
    with (
        Generator(plan, device="cpu") as generator,
        pytest.raises(ValueError, match=r"has 3 classes, expected 10"),
    ):
        evaluate_digits(generator, VariantMnist("colored", mnist), Reader())
