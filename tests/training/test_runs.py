"""What training loops share: named state, the run's folder, and a kill at any moment."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cgnrt.errors import CheckpointError
from cgnrt_training import checkpoints
from cgnrt_training.checkpoints import load_tensors
from cgnrt_training.runs import folder as folders
from cgnrt_training.runs.folder import RunFolder, check_folder, stored_settings
from cgnrt_training.runs.loop import progress_bar
from cgnrt_training.runs.pictures import Sheet, save_png
from cgnrt_training.runs.state import Gradients, State, random_parts
from cgnrt_training.settings import to_dict

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Rates:
    network: float = 0.1


@dataclass(frozen=True)
class Settings:
    """Of a run that accumulates gradients over `micro` micro-steps."""

    name: str
    steps: int = 5
    micro: int = 3
    rates: Rates = Rates()


class KilledError(Exception):
    pass


def never(point: str) -> None:
    pass


def train(path: Path, settings: Settings, kill: Callable[[str], None] = never, **how: bool) -> nn.Module:
    """A loop with a checkpoint after every micro-step; `kill` is told every point at which it may die."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(network.parameters(), settings.rates.network)
    state = State(
        {
            "model": network,
            "training": {"optimizer": optimizer, "gradients": Gradients(network)},
            "critic": None,
            **random_parts(CPU),
        },
        {"micro_step": 0, "total": torch.zeros(2)},
    )
    folder = RunFolder.open(path, settings, **{"resume": False, "force": False, **how})
    folder.restore(state, io.StringIO())
    while state.step < settings.steps:
        kill("before")
        loss = network(torch.randn(8, 4)).square().mean()
        loss.backward()
        state.values["total"] += loss.detach()
        state.values["micro_step"] += 1
        if state.values["micro_step"] == settings.micro:
            optimizer.step()
            optimizer.zero_grad()
            state.step += 1
            state.values["micro_step"] = 0
            folder.add_scalars(state.step, {"loss": loss.item()})
        kill("between")
        folder.save(state, {"format": "test"}, "model.pt")
    return network


@pytest.fixture
def settings() -> Settings:
    return Settings("a")


def same(one: Path, other: Path) -> None:
    for name in ("resume.pt", "model.pt"):
        a, b = (torch.load(path / name, weights_only=True) for path in (one, other))
        assert str(a) == str(b)
        assert all(torch.equal(x, b["model"][key]) for key, x in a["model"].items())
    for name in ("scalars.jsonl", "config.json"):
        assert (one / name).read_text() == (other / name).read_text()


@pytest.mark.parametrize("moment", range(0, 30, 4))
def test_killed_anywhere_and_resumed_it_ends_alike(settings: Settings, tmp_path: Path, moment: int) -> None:
    """In the middle of an accumulation too: gradients, random numbers, sums and optimizer are all taken up."""
    train(tmp_path / "whole", settings)
    points = []

    def kill(point: str) -> None:
        points.append(point)
        if len(points) == moment + 1:
            raise KilledError

    with pytest.raises(KilledError):
        train(tmp_path / "parts", settings, kill)
    with (tmp_path / "parts" / "scalars.jsonl").open("a") as file:
        file.write('{"step": 99, "lo')  # the line that was being written
    (tmp_path / "parts" / "samples").mkdir()
    for name in (".resume.pt.77.0123abcd.tmp", "samples/.step-1.png.77.0123abcd.tmp", ".mine.tmp"):
        (tmp_path / "parts" / name).write_bytes(b"half")
    train(tmp_path / "parts", settings, resume=True)
    same(tmp_path / "whole", tmp_path / "parts")
    assert sorted(path.name for path in (tmp_path / "parts").rglob("*")) == [
        *(".mine.tmp", "config.json", "model.pt", "resume.pt", "samples", "scalars.jsonl")
    ]


@pytest.mark.parametrize("failing", ["resume.pt", "model.pt"])
def test_killed_between_its_two_files(
    settings: Settings, tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "whole", settings)
    save, calls = checkpoints.save, []

    def dies(content: dict, path: Path) -> None:
        calls.append(path.name)
        if calls.count(failing) == 15:  # the last one of the run
            raise KilledError
        save(content, path)

    monkeypatch.setattr(checkpoints, "save", dies)
    with pytest.raises(KilledError):
        train(tmp_path / "parts", settings)
    monkeypatch.setattr(checkpoints, "save", save)
    train(tmp_path / "parts", settings, resume=True)
    same(tmp_path / "whole", tmp_path / "parts")


def test_a_run_anew_does_not_go_on_from_the_old_one(settings: Settings, tmp_path: Path) -> None:
    other = replace(settings, rates=Rates(0.3))
    train(tmp_path / "whole", other)
    train(tmp_path / "run", settings)
    samples = tmp_path / "run" / "samples"
    samples.mkdir()
    for name in ("step-000003.png", "mine.png"):
        (samples / name).write_bytes(b"old")

    def kill(point: str) -> None:
        raise KilledError

    with pytest.raises(KilledError):  # before its first checkpoint
        train(tmp_path / "run", other, kill, force=True)
    train(tmp_path / "run", other, resume=True)
    same(tmp_path / "whole", tmp_path / "run")
    assert [path.name for path in samples.iterdir()] == ["mine.png"]


def test_resume_of_a_finished_run_does_nothing(settings: Settings, tmp_path: Path) -> None:
    train(tmp_path, settings)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    train(tmp_path, settings, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_folders_that_are_refused(settings: Settings, tmp_path: Path) -> None:
    train(tmp_path, settings)
    with pytest.raises(ValueError, match=r"the folder already has a run. Use --resume, --force"):
        train(tmp_path, settings)
    with pytest.raises(
        ValueError, match=r"settings are changed: micro \(3 -> 4\), rates.network \(0.1 -> 0.2\)"
    ):
        train(tmp_path, replace(settings, micro=4, rates=Rates(0.2)), resume=True)
    longer = replace(settings, steps=9)
    check_folder(tmp_path, longer, resume=True, force=False)  # a run may be made longer
    allowed = ("rates.", "micro")
    check_folder(tmp_path, replace(settings, rates=Rates(0.2)), resume=True, force=False, may_change=allowed)
    with pytest.raises(CheckpointError, match=r"config.json is unreadable .No such file"):
        train(tmp_path / "none", settings, resume=True)
    for content, message in (
        ("{", "content is damaged"),
        ("[]", "expected a table with name"),
        ('{"name": "a", "stepz": 1}', "key is 'stepz', expected one of .*Did you mean steps"),
        ('{"name": 5}', "name is 5, expected a text"),
    ):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=message):
            train(tmp_path, settings, resume=True)
    # A setting that came later than the run has its default.
    (tmp_path / "config.json").write_text('{"name": "a"}')
    assert stored_settings(tmp_path, Settings) == settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: 5, "step, micro_step, total, model, training, critic, rng is missing"),
        (
            lambda s: {k: v for k, v in s.items() if k != "training"},
            "training is missing, expected the state",
        ),
        (lambda s: s | {"step": True}, "step is True, expected a whole number >= 0"),
        (lambda s: s | {"step": -1}, "step is -1, expected a whole number >= 0"),
        (lambda s: s | {"micro_step": 1.0}, "micro_step is 1.0, expected a value of type int"),
        (
            lambda s: s | {"total": torch.zeros(3)},
            r"total is \(3,\) torch.float32, expected \(2,\) torch.float32",
        ),
        (lambda s: s | {"total": 0.0}, "total is 0.0, expected a value of type Tensor"),
        (lambda s: s | {"model": {}}, "missing keys are '0.weight'"),
        (lambda s: s | {"training": {"optimizer": 1}}, "expected entries optimizer, gradients"),
        (lambda s: s | {"rng": None}, "rng is of another run"),
        (lambda s: changed(s, "gradients", {"0.weight": torch.zeros(2)}), r"gradient of 0.weight is \(2,\)"),
        (lambda s: changed(s, "gradients", {"9": torch.zeros(2)}), "training.gradients is of another run"),
        (lambda s: changed(s, "optimizer", {}), "training.optimizer is of another run"),
        (
            lambda s: changed(s, "optimizer", {"state": 3, "param_groups": []}),
            "training.optimizer is of another",
        ),
        (
            lambda s: moment(s, torch.zeros(3)),
            r"exp_avg of parameter 0 is \(3,\), expected \(4, 4\)",
        ),
    ],
)
def test_a_foreign_state_is_refused_by_the_name_of_its_entry(
    change: Callable[[dict], object], message: str, settings: Settings, tmp_path: Path
) -> None:
    train(tmp_path, settings)
    path = tmp_path / "resume.pt"
    torch.save(change(load_tensors(path)), path)
    with pytest.raises(CheckpointError, match=message):
        train(tmp_path, replace(settings, steps=9), resume=True)


def changed(state: dict, part: str, content: object) -> dict:
    return state | {"training": state["training"] | {part: content}}


def moment(state: dict, content: Tensor) -> dict:
    optimizer = state["training"]["optimizer"]
    moments = optimizer["state"] | {0: optimizer["state"][0] | {"exp_avg": content}}
    return changed(state, "optimizer", optimizer | {"state": moments})


def test_the_settings_and_the_light_file(settings: Settings, tmp_path: Path) -> None:
    train(tmp_path, settings)
    assert json.loads((tmp_path / "config.json").read_text()) == to_dict(settings)
    assert set(load_tensors(tmp_path / "model.pt")) == {"format", "step", "model"}
    assert set(load_tensors(tmp_path / "resume.pt")) == {
        *("format", "step", "micro_step", "total", "model", "training", "critic", "rng")
    }
    steps = [json.loads(line)["step"] for line in (tmp_path / "scalars.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5]


def test_a_full_disk_keeps_the_last_checkpoint(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, settings)
    before = (tmp_path / "scalars.jsonl").read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Exception, match="No space left on device"):
        folders.write_text(tmp_path / "scalars.jsonl", "x")
    assert (tmp_path / "scalars.jsonl").read_text() == before
    assert load_tensors(tmp_path / "resume.pt")["step"] == 5
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("stream", ["none", "closed", "file"])
def test_no_bar_where_stderr_is_no_terminal(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = {"none": None, "closed": io.StringIO(), "file": io.StringIO()}[stream]
    if stream == "closed":
        file.close()
    monkeypatch.setattr(sys, "stderr", file)
    with progress_bar(3, 1, "test") as bar:
        bar.update()
        bar.set_postfix(loss=1.0)
    monkeypatch.undo()
    assert stream != "file" or file.getvalue() == ""


def test_captions_are_beside_the_pictures(tmp_path: Path) -> None:
    blocks = [torch.full((3, 64, 32), level) for level in (0.0, 0.6)]
    sheet = Sheet(blocks, side=["mask", "composite"], head=["cat", "a name that is far too long"], gap=4)
    plain = Sheet(blocks, gap=4)
    assert plain.picture.shape == (3, 64, 68)
    drawn, bare = sheet.drawn(2), plain.drawn(2)
    assert bare.shape == (128, 136, 3)
    np.testing.assert_array_equal(drawn[-128:, -136:], bare)
    np.testing.assert_array_equal(bare[:, 64:72], 255)  # the gap
    left, above = drawn[-128:, :-136], drawn[:-128, -136:]
    for half in (left[:64], left[64:], above[:, :64], above[:, 72:]):
        assert half.min() < 100  # every caption is there
    np.testing.assert_array_equal(left[:, -6:], 255)  # and none touches a picture
    np.testing.assert_array_equal(above[:, 64:72], 255)
    save_png(sheet, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), drawn)
