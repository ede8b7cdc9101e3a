from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cgnrt import audit
from cgnrt.errors import CgnrtError, CheckpointError
from cgnrt_training.checkpoints import load_tensors
from cgnrt_training.classifier import train as loop
from cgnrt_training.classifier.config import ROWS, ClassifierConfig
from cgnrt_training.classifier.methods import NO_COLOUR, Lntl, Plain, irm_penalty, quantise
from cgnrt_training.classifier.model import Classifier, TwoViews, load_classifier
from cgnrt_training.classifier.sources import Inputs, StepBatch
from cgnrt_training.classifier.train import Run, train
from cgnrt_training.cli import FAILED, OK, USAGE, main
from cgnrt_training.settings import from_dict, from_texts, to_dict

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ClassifierConfig("original", "double-colored", steps=5, batch_size=12, checkpoint_every=2)


@pytest.fixture
def one_thread():
    """Bit-equal sums want one number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def inputs(mnist: Path, textures: Path, demo_plan: Path) -> Inputs:
    return Inputs(mnist, textures, demo_plan)


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "N_HELD_OUT", 16)


@pytest.mark.parametrize("row", [row for row in ROWS if row != "original+gan"])
def test_every_row_trains_and_is_measured(row: str, inputs: Inputs) -> None:
    model, result = train(replace(SMALL, row=row, steps=2), inputs, log=io.StringIO())
    assert not model.training
    for name in ("train", "train_domain", "test", "counterfactual"):
        assert 0 <= result[name] <= 1, name
    assert result["settings"]["row"] == row
    json.dumps(result)


def test_learns_the_cues_of_the_train_domain(inputs: Inputs) -> None:
    _, result = train(replace(SMALL, steps=60, batch_size=20), inputs, log=io.StringIO())
    assert result["train"] > 0.95
    assert result["test"] < 0.6  # the cues are random there


def test_oracle_learns_the_shape(inputs: Inputs) -> None:
    _, result = train(replace(SMALL, row="oracle", steps=120, batch_size=20), inputs, log=io.StringIO())
    assert result["test"] > 0.9


@pytest.mark.parametrize("row", ["original+cgn", "irm-5", "lntl", "colour-jitter"])
def test_resumed_run_equals_uninterrupted_one(
    row: str, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: weights, predictor, optimizer, data, stream, schedule, over an epoch's end."""
    config = replace(SMALL, row=row)
    log = io.StringIO()
    train(config, inputs, tmp_path / "whole", log=log)

    class StoppedError(Exception):
        pass

    def stop_late(run: Run) -> None:
        if run.state.step == 3:  # after the checkpoint at step 2: step 2 is done, lost and done again
            raise StoppedError

    original = Run.set_learning_rate
    monkeypatch.setattr(Run, "set_learning_rate", lambda run: (stop_late(run), original(run)))
    with pytest.raises(StoppedError):
        train(config, inputs, tmp_path / "parts", log=log)
    monkeypatch.setattr(Run, "set_learning_rate", original)
    torch.manual_seed(99)
    train(config, inputs, tmp_path / "parts", resume=True, log=log)
    assert "at step 2" in log.getvalue()
    whole, parts = (load_tensors(tmp_path / name / "resume.pt") for name in ("whole", "parts"))
    for name in ("model", "method"):
        assert list(whole[name]) == list(parts[name])
        for key, tensor in whole[name].items():
            assert torch.equal(tensor, parts[name][key]), key
    moments = [state["optimizer"]["state"] for state in (whole, parts)]
    assert all(torch.equal(moments[0][k]["exp_avg_sq"], moments[1][k]["exp_avg_sq"]) for k in moments[0])


def test_resume_with_other_settings_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    train(SMALL, inputs, tmp_path, log=io.StringIO())
    with pytest.raises(ValueError, match=r"lr \(0.005 -> 0.1\)"):
        train(replace(SMALL, lr=0.1), inputs, tmp_path, resume=True, log=io.StringIO())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("step", "7", "step is '7'"), ("optimizer", {"state": {}}, "optimizer is of another run")],
)
def test_foreign_resume_state_is_refused(
    key: str, value: object, message: str, inputs: Inputs, tmp_path: Path
) -> None:
    config = replace(SMALL, steps=1)
    train(config, inputs, tmp_path, log=io.StringIO())
    torch.save(load_tensors(tmp_path / "resume.pt") | {key: value}, tmp_path / "resume.pt")
    with pytest.raises(CheckpointError, match=message):
        train(config, inputs, tmp_path, resume=True, log=io.StringIO())


def test_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Plain.losses

    def losses(self: Plain, model: Classifier, batch: StepBatch, progress: float) -> dict[str, Tensor]:
        found = original(self, model, batch, progress)
        return {**found, "penalty": found["classification"] * (float("nan") if progress > 0.5 else 0)}

    monkeypatch.setattr(Plain, "losses", losses)
    with pytest.raises(CgnrtError, match="loss penalty is not finite at step 3"):
        train(SMALL, inputs, tmp_path, log=io.StringIO())
    assert load_tensors(tmp_path / "resume.pt")["step"] == 2


def test_saved_classifier_can_be_audited(inputs: Inputs, demo_plan: Path, tmp_path: Path) -> None:
    model, _ = train(replace(SMALL, steps=1), inputs, tmp_path, log=io.StringIO())
    loaded = load_classifier(tmp_path / "classifier.pt")
    images = np.random.default_rng(0).random((3, 3, 32, 32), np.float32)
    np.testing.assert_array_equal(loaded.logits(images), model.logits(images))
    assert audit(loaded.logits, demo_plan, 8).n == 8


def test_foreign_file_is_no_classifier(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="format is missing, expected 'cgnrt-mnist-classifier'"):
        load_classifier(tmp_path / "x.pt")


def test_irm_penalty_is_the_squared_gradient_of_a_factor_on_the_logits() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 10, dtype=torch.float64), torch.randint(10, (7,))
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits * factor, labels), factor)
    torch.testing.assert_close(irm_penalty(logits, labels), gradient.square())


def test_irm_weight_is_0_then_rises_and_divides_the_loss() -> None:
    torch.manual_seed(0)
    run = Run(replace(SMALL, row="irm-2", irm_weight=50.0, irm_start=0.2))
    batch = StepBatch(torch.randn(8, 3, 32, 32), torch.arange(8), (4, 4))
    run.model.eval()
    first, middle, last = (run.method.losses(run.model, batch, p) for p in (0.1, 0.6, 1.0))
    assert first["irm penalty"] == 0
    torch.testing.assert_close(first["classification"], 25 * middle["classification"])
    torch.testing.assert_close(first["classification"], 50 * last["classification"])
    torch.testing.assert_close(middle["irm penalty"], last["irm penalty"])  # weight over itself


def test_lntl_turns_the_colour_gradient_round_for_the_features_alone() -> None:
    torch.manual_seed(0)
    batch = StepBatch(torch.rand(4, 3, 32, 32) * 2 - 1, torch.arange(4), (4,))
    model = Classifier().eval()
    weight = next(model.features.parameters())
    gradients = {}
    for sign in (1.0, 2.0):
        torch.manual_seed(1)
        method = Lntl(replace(SMALL, row="lntl", lntl_weight=sign), 2 * model.width)
        loss = method.losses(model, batch, 0.0)["colour prediction"]
        predictor = method.predictor[2].weight
        gradients[sign] = torch.autograd.grad(loss, [weight, predictor])
    plain = F.cross_entropy(
        method.predictor(model.features(batch.images)).reshape(4, 3, 8, 8, 8).transpose(1, 2),
        quantise(batch.images, 8),
    )
    (straight,) = torch.autograd.grad(plain, [weight])
    torch.testing.assert_close(gradients[1.0][0], -straight)
    torch.testing.assert_close(gradients[2.0][0], -2 * straight)
    torch.testing.assert_close(gradients[2.0][1], gradients[1.0][1])


def test_lntl_entropy_does_not_reach_the_predictor() -> None:
    model = Classifier().eval()
    method = Lntl(replace(SMALL, row="lntl"), 2 * model.width)
    batch = StepBatch(torch.rand(4, 3, 32, 32), torch.arange(4), (4,))
    loss = method.losses(model, batch, 0.0)["entropy"]
    found = torch.autograd.grad(
        loss,
        [next(model.features.parameters()), *method.parameters()],
        allow_unused=True,
    )
    assert found[0] is not None
    assert found[0].abs().sum() > 0
    assert all(gradient is None for gradient in found[1:])


def test_colours_are_quantised_to_eight_levels_and_black_to_none() -> None:
    row = torch.linspace(-1 + 2 / 255, 1, 8).repeat_interleave(4)
    image = row[None, None, None].repeat(1, 3, 32, 1)
    image[:, 1, :, 20:] = -1  # one channel alone
    levels = quantise(image, 8)[0, :, 0].tolist()
    assert levels == [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, *[NO_COLOUR] * 3], [0, 1, 2, 3, 4, 5, 6, 7]]


def test_settings() -> None:
    base = ClassifierConfig("original+cgn", "wildlife")
    assert base.generated_share == 102  # 4 : 1 of 128
    assert replace(base, counterfactuals=50_000).generated_share == 64
    assert ClassifierConfig("cgn-only", "wildlife").generated_share == 128
    assert ClassifierConfig("lntl", "wildlife").generated_share == 0
    changed = from_texts(base, ["lr=1", "reuse=16", "irm_divide=false", "label=texture"])
    assert (changed.lr, changed.reuse, changed.irm_divide, changed.label) == (1.0, 16, False, "texture")
    assert from_dict(ClassifierConfig, json.loads(json.dumps(to_dict(changed)))) == changed
    for setting, message in {
        "leaning=1": "key is 'leaning', expected one of row, variant",
        "lr=fast": "lr is 'fast', expected a number",
        "lr=0": "lr is 0.0, expected > 0",
        "row=orignal": "Did you mean original",
        "per_noise=0": "per_noise is 0, expected a whole number of at least 1",
        "label=digit": "label is 'digit', expected one of shape, texture, background",
    }.items():
        with pytest.raises(ValueError, match=message):
            from_texts(base, [setting])
    with pytest.raises(ValueError, match="reuse is 4, expected 1 beside per_noise"):
        from_texts(base, ["per_noise=2", "reuse=4"])


def test_command(inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run"
    shared = ["classifier", "--data", str(inputs.data), "--plan", str(inputs.plan), "--output", str(output)]
    row = ["--row", "original+cgn", "--variant", "colored"]
    small = ["--steps", "2", "--set", "batch_size=8"]
    assert main([*shared, *row, *small]) == OK
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((output / "result.json").read_text())
    assert result["settings"]["steps"] == 2
    assert main([*shared, *row, *small]) == USAGE
    assert "the folder already has a run" in capsys.readouterr().err
    assert main([*shared, "--resume"]) == OK
    assert {k: v for k, v in json.loads(capsys.readouterr().out).items() if k != "seconds"} == {
        k: v for k, v in result.items() if k != "seconds"
    }
    (output / "config.json").write_text("{")
    assert main([*shared, "--resume"]) == FAILED
    assert "content is damaged" in capsys.readouterr().err
    assert main([*shared, *row, *small, "--force", "--set", "lr=fast"]) == USAGE
    assert main(["classifier", "--data", "x", "--output", "y", *row]) == USAGE
    assert "--plan is missing" in capsys.readouterr().err


def test_a_faint_digit_is_seen_as_well_as_any() -> None:
    digit = torch.zeros(1, 3, 32, 32)
    digit[:, :, 8:24, 14:18] = 1
    plain, faint = TwoViews()(digit), TwoViews()(0.3 + digit * (2 / 255))
    assert torch.equal(plain[:, :3], digit)
    assert (faint[:, :3] - 0.3).abs().max() < 0.01  # the first view keeps colours and contrast
    assert plain[:, 3:].std() > 0.95
    assert faint[:, 3:].std() > 0.4  # of 1: the floor takes the other half
    assert TwoViews()(torch.full((1, 3, 32, 32), 0.3))[:, 3:].abs().max() < 1e-3  # nothing comes of nothing
