"""`cgnrt audit --in9` and `--cue-conflict`: a folder, a classifier by its name."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cgnrt import real
from cgnrt.cli import main

SOURCE = """
import numpy as np
import torch

class Reader(torch.nn.Module):
    # logits of the groups, by the green of a picture: its background, or its texture
    def __init__(self, step, count):
        super().__init__()
        self.step, self.count = step, count

    def forward(self, images):
        groups = (images[:, 1, 0, 0] * 255 / self.step).round().long().clamp(max=self.count - 1)
        return torch.nn.functional.one_hot(groups, self.count).float()

grounds, textures = Reader(20, 9), Reader(15, 16)

def first(images):
    return np.zeros(len(images), int)
"""


@pytest.fixture
def here(in9_folder: Path, cue_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_group_classifiers.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_group_classifiers", raising=False)
    return tmp_path


IN9 = ["audit", "--in9", "bg_challenge", "--size", "32"]
CUES = ["audit", "--cue-conflict", "style-transfer-preprocessed-512", "--size", "32"]


def test_in9(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-o", "in9.json", "--plot", "in9.png", "--batch", "10", "--confidence", "0.9"]
    assert main([*IN9, "own_group_classifiers:grounds", *words]) == 0
    found = real.In9Audit.from_json(Path("in9.json").read_text())
    assert capsys.readouterr().out == f"{found}\n"
    assert (found.background_gap, found.confidence, found.classes) == (0.75, 0.9, 9)
    with Image.open("in9.png") as picture:
        assert picture.format == "PNG"
    assert main([*IN9, "own_group_classifiers:grounds", "--sets", "mixed_rand, original", "-n", "9"]) == 0
    assert "ImageNet-9: 18 pictures of 2 sets" in capsys.readouterr().out


def test_cue_conflict(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["audit", "own_group_classifiers:textures", *CUES[1:], "-o", "cues.json", "--plot", "cues.png"])
        == 0
    )
    found = real.CueConflictAudit.from_json(Path("cues.json").read_text())
    assert capsys.readouterr().out == f"{found}\n"
    assert found.shape_bias.value == 0
    assert found.texture.count == 48
    assert Path("cues.png").exists()
    assert main([*CUES, "own_group_classifiers:first", "--classes", "16"]) == 0
    assert "answers of 16 classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*IN9, "own_group_classifiers:first"], "Pass classes=1000 or classes=9"),
        ([*IN9, "own_group_classifiers:textures"], "number of logits of the classifier is 16, expected 1000"),
        ([*IN9, "own_group_classifiers:grounds", "--sets", "mixed_sane"], "Did you mean 'mixed_same'?"),
        (
            [*IN9, "own_group_classifiers:grounds", "--masks", "m"],
            "--masks is not supported with --in9. Leave it",
        ),
        ([*IN9, "own_group_classifiers:grounds", "--seed", "1"], "--seed is not supported with --in9"),
        (
            [*CUES, "own_group_classifiers:textures", "--sets", "a"],
            "--sets is not supported with --cue-conflict",
        ),
        (
            [*CUES, "own_group_classifiers:textures", "--sheet", "a.png"],
            "--sheet is not supported with --cue-con",
        ),
        ([*CUES, *IN9[1:], "own_group_classifiers:first"], "--in9 is 'bg_challenge' beside --cue-conflict"),
        (
            [*IN9, "x.plan", "own_group_classifiers:first"],
            "plan is 'x.plan' beside --in9, expected one of the two",
        ),
        ([*IN9, "own_group_classifiers:grounds", "--size", "8"], "size is 8, expected at least 32"),
        (
            ["audit", "x.plan", "own_group_classifiers:first", "--classes", "9"],
            "--classes is not supported with a",
        ),
        (
            ["audit", "x.plan", "own_group_classifiers:first", "--size", "64"],
            "--size is not supported with a plan",
        ),
        (["audit", "--in9", "nowhere", "own_group_classifiers:grounds"], "read 'nowhere': folder is missing"),
    ],
)
def test_what_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(words) == 1
    told = capsys.readouterr()
    assert message in told.err
    assert told.out == ""


def test_sets_made_here_are_not_imagenet_9(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    y, x = np.mgrid[:40, :40]
    for k in range(4):
        inside = (y - 20) ** 2 + (x - 15 - k) ** 2 < 64
        for folder, pixels in (("photos", inside * 200 + k), ("masks", inside * 255)):
            file = here / folder / ("cat", "dog")[k % 2] / f"{k}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    made = ["real", "photos", "--masks", "masks", "--size", "40", "--sets", "original", "-o", "sets"]
    assert main(made) == 0
    capsys.readouterr()
    assert main(["audit", "--in9", "sets", "own_group_classifiers:grounds"]) == 1
    assert "read 'sets/original': folder 'val' is missing, expected it with" in capsys.readouterr().err
