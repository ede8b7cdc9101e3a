"""`cgnrt audit`: a classifier that is named on the command line."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cgnrt
from cgnrt import Audit, Generator
from cgnrt.cli import main

SOURCE = """
import numpy as np
def constant(images):
    assert images.dtype == np.float32
    return np.zeros(len(images), int)
def fails(images):
    raise ValueError("out of order")
class Model:
    def classify(self, images):
        return constant(images)
model = Model()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module of classifiers."""
    (tmp_path / "own_classifiers.py").write_text(SOURCE)
    (tmp_path / "own_broken.py").write_text("import cgnrt_no_such_package\n")
    monkeypatch.chdir(tmp_path)
    for name in ("own_classifiers", "own_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_the_command(
    telling: Generator, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgnrt._support.terminal._ProgressLines.first_s", 1e9)  # on however slow a machine
    path = list(sys.path)
    words = ["audit", str(telling.plan.path), "own_classifiers:constant", "-n", "50", "--threads", "1"]
    assert main([*words, "-o", "audit.json", "--plot", "audit.png"]) == 0
    captured = capsys.readouterr()
    expected = cgnrt.audit(lambda images: np.zeros(len(images), int), telling, 50)
    assert captured.out == f"{replace(expected, classifier='own_classifiers:constant')}\n"
    assert captured.out.startswith("own_classifiers:constant on telling.plan (")
    assert captured.err == ""
    assert Audit.from_json((here / "audit.json").read_text()) == expected
    assert (here / "audit.png").stat().st_size > 1000
    assert sys.path == path
    assert main([*words, "-o", "audit.json"]) == 1
    assert "the file exists" in capsys.readouterr().err
    assert main([*words, "-o", "audit.json", "--force"]) == 0
    assert main([*words[:2], "own_classifiers:model.classify", *words[3:]]) == 0


def test_a_torch_module_by_its_name(
    telling: Generator, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "own_modules.py").write_text(
        "import torch\nmodel = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Flatten(), torch.nn.Linear(192, 3))\n"
    )
    assert main(["audit", str(telling.plan.path), "own_modules:model", "-n", "20"]) == 0
    model = sys.modules.pop("own_modules").model
    assert model.training
    expected = replace(cgnrt.audit(model, telling, 20), classifier="own_modules:model")
    assert capsys.readouterr().out == f"{expected}\n"


def test_placed_objects(telling: Generator, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", str(telling.plan.path), "own_classifiers:constant", "-n", "20", "-o", "audit.json"]
    assert main([*words, "--place", "dx=-0.5:0.5", "--place", "scale=0.5"]) == 0
    assert ", objects placed by dx=-0.5:0.5,scale=0.5, seed 0" in capsys.readouterr().out
    place = cgnrt.Place(dx=(-0.5, 0.5), scale=0.5)
    expected = cgnrt.audit(lambda images: np.zeros(len(images), int), telling, 20, place=place)
    assert Audit.from_json((here / "audit.json").read_text()) == expected
    assert main([*words, "--force", "--place", "y=1"]) == 1
    assert (
        "sample: place has 'y', expected some of dy, dx, scale, flip. Did you mean 'dy'?"
        in capsys.readouterr().err
    )
    assert (
        main(["audit", "own_classifiers:constant", "--photos", ".", "--masks", ".", "--place", "dx=1"]) == 1
    )
    assert "audit: --place is not supported with --photos. Leave it out." in capsys.readouterr().err


def test_distinct_labels_and_masks(
    telling: Generator, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "own_readers.py").write_text(
        "import torch\nclass Reader(torch.nn.Module):\n    def forward(self, masks):\n"
        "        assert not self.training\n"
        "        return masks[:, 0, 0, :3]\nmodule = Reader()\ndef function(masks):\n    return masks[:, 0, 0, :3]\n"
    )
    words = [
        "audit",
        str(telling.plan.path),
        "own_classifiers:constant",
        "-n",
        "20",
        "--distinct",
        "-o",
        "audit.json",
    ]
    for name in ("module", "function"):
        assert main([*words, "--mask-classifier", f"own_readers:{name}", "--force"]) == 0
        found = Audit.from_json((here / "audit.json").read_text())
        assert found.distinct
        assert found.masks is not None
        assert found.masks.shown.count == 20
        assert "masks that show their label: 100.0 %" in capsys.readouterr().out
    del sys.modules["own_readers"]
    assert main([*words, "--mask-classifier", "own_classifiers:fails", "--force"]) == 1
    assert (
        "audit 'own_classifiers:fails': the classifier's code raised ValueError (above)"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("own_classifiers", [], "expected MODULE:FUNCTION"),
        ("no_such_module:f", [], "module 'no_such_module' is missing"),
        ("own_classifiers.sub:f", [], "module 'own_classifiers.sub' is missing"),
        ("own_classifiers:f", [], "'f' is missing in module 'own_classifiers'"),
        ("own_classifiers:SOURCE", [], "is missing in module"),
        ("own_classifiers:np", [], "classifier is module, expected a callable"),
        ("own_classifiers:fails", [], "the classifier's code raised ValueError (above)"),
        ("own_broken:f", [], "the classifier's code raised ModuleNotFoundError (above)"),
        ("own_classifiers:constant", ["-o", "audit.txt"], "expected a name that ends in .json"),
        ("own_classifiers:constant", ["--plot", "audit.txt"], "expected a name that ends in .png"),
        ("own_classifiers:constant", ["-n", "0"], "n is 0, expected at least 1"),
    ],
)
def test_the_command_refuses(
    telling: Generator,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    more: list[str],
    message: str,
) -> None:
    before = sorted(p.name for p in here.iterdir() if p.suffix)
    assert main(["audit", str(telling.plan.path), name, "-n", "10", *more]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert sorted(p.name for p in here.iterdir() if p.suffix) == before
    if "(above)" in message:
        assert "Traceback" in captured.err
