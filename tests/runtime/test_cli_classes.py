"""Classes on the command line: the name where the plan has it, else an index, and how to force either."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from cgnrt import Generator, shards
from cgnrt.cli import main
from cgnrt.cli.arguments import label_of, labels_in
from cgnrt.cli.sheet import _ends
from cgnrt.plan import write_plan

# Names that look like other things than names: numbers, one more than their index, and what forces a meaning.
NAMES = [*map(str, range(1, 11)), "07", "-1", "index:2", "name:2", "1,2", "a=b", " x ", "٣"]


@pytest.fixture(scope="module")
def numbered(make_golden: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_golden, "CLASSES", dict.fromkeys(make_golden.CLASSES, NAMES))
        manifest, members = make_golden.make_plan()
    path = tmp_path_factory.mktemp("plans") / "numbered.plan"
    write_plan(path, manifest, members)
    return path


@pytest.mark.parametrize(
    ("text", "label"),
    [
        *((name, name) for name in NAMES),
        ("0", 0),
        ("11", 11),
        ("007", 7),
        ("-2", -2),
        ("index:3", 3),
        ("index:007", 7),
        ("name:3", "3"),
        ("name:index:2", "index:2"),
        ("name:name:2", "name:2"),
        ("name:", ""),
        ("zebra", "zebra"),
        ("index:zebra", "index:zebra"),
        ("1_0", "1_0"),
        ("3.0", "3.0"),
        ("٤", "٤"),
        ("", ""),
    ],
)
def test_a_text_is_a_name_where_the_plan_has_it(text: str, label: int | str) -> None:
    assert label_of(text, NAMES) == label


def test_lists_of_classes() -> None:
    assert labels_in("1,2,3", NAMES) == ["1", "2", "3"]
    assert labels_in("1,2", NAMES) == ["1,2"]
    assert labels_in("name:1,name:3", NAMES) == ["1", "3"]
    assert labels_in("index:1, 0 ,12", NAMES) == [1, 0, 12]
    assert labels_in(" x ,1", NAMES) == [" x ", "1"]


def labels_of(plan: Path, folder: Path, *options: str) -> np.ndarray:
    target = folder / "x.npz"
    assert main(["sample", str(plan), "-n", "40", "-o", str(target), "--force", *options]) == 0
    with np.load(target) as found:
        labels: np.ndarray = found["labels_texture"]
    return labels


@pytest.mark.parametrize(
    ("text", "index"),
    [("3", 2), ("10", 9), ("07", 10), ("7", 6), ("0", 0), ("11", 11), ("index:3", 3), ("name:3", 2)],
)
def test_do(numbered: Path, tmp_path: Path, text: str, index: int) -> None:
    assert set(labels_of(numbered, tmp_path, "--do", f"texture={text}").tolist()) == {index}


def test_classes(numbered: Path, tmp_path: Path) -> None:
    assert set(labels_of(numbered, tmp_path, "--classes", "texture=1,2,3").tolist()) == {0, 1, 2}
    assert set(labels_of(numbered, tmp_path, "--classes", "texture=index:1,07,0").tolist()) == {0, 1, 10}
    assert set(labels_of(numbered, tmp_path, "--classes", "texture=1,2").tolist()) == {14}


def test_generate(numbered: Path, tmp_path: Path) -> None:
    command = ["generate", str(numbered), "-n", "20", "-o", str(tmp_path / "out"), "--format", "npz"]
    options = ["--processes", "1", "--do", "texture=3", "--classes", "shape=1,2,3"]
    assert main([*command, *options]) == 0
    samples = shards.Manifest.read(tmp_path / "out").header["samples"]
    assert samples["do"] == {"texture": 2}
    assert samples["classes"] == {"shape": [0, 1, 2]}


def test_sheets(numbered: Path, tmp_path: Path) -> None:
    def drawn(*options: str) -> np.ndarray:
        target = tmp_path / "sheet.png"
        command = ["sheet", str(numbered), "-o", str(target), "--force", "--tile", "16", *options]
        assert main(command) == 0
        with Image.open(target) as picture:
            return np.asarray(picture)

    for by_name, by_index in (
        (("--do", "texture=5"), ("--do", "texture=index:4")),
        (("--classes", "texture=5"), ("--classes", "texture=index:4")),
        (("--kind", "mechanisms", "--show", "5,10"), ("--kind", "mechanisms", "--show", "index:4,index:9")),
        (
            ("--kind", "interpolation", "--path", "texture=5,10"),
            ("--kind", "interpolation", "--path", "texture=index:4,index:9"),
        ),
        (
            ("--kind", "interpolation", "--path", "5,10"),
            ("--kind", "interpolation", "--path", "index:4,name:10"),
        ),
    ):
        np.testing.assert_array_equal(drawn(*by_name), drawn(*by_index))


def test_a_path_of_a_class_with_an_equals_sign() -> None:
    classes = dict.fromkeys(("shape", "texture", "background"), NAMES)
    found = _ends(argparse.Namespace(path=["a=b,3", "texture=a=b,index:3"]), classes)
    assert found == {"shape": ["a=b", "3"], "background": ["a=b", "3"], "texture": ["a=b", 3]}


def test_what_no_class_is_called(numbered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample", str(numbered), "-n", "1", "-o", str(tmp_path / "x.npz")]
    for text, message in (
        ("18", r"do['texture'] is 18, expected 0..17"),
        ("index:18", r"do['texture'] is 18, expected 0..17"),
        ("name:11", r"do['texture'] is '11', expected one of"),
        ("index:x", r"do['texture'] is 'index:x', expected one of"),
    ):
        assert main([*command, "--do", f"texture={text}"]) == 1
        assert message in capsys.readouterr().err


def test_in_python_an_int_is_an_index_and_a_str_a_name(numbered: Path) -> None:
    gen = Generator(numbered)
    assert gen(texture=[3, "3", 7, "07"], seed=0).labels.texture.tolist() == [3, 2, 7, 10]


def test_help_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sample", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "index:3 is always an index, name:3 always a name" in text


def test_json_of_a_data_set_has_indices(numbered: Path, tmp_path: Path) -> None:
    shards.generate(numbered, 4, tmp_path / "out", format="npz", do={"texture": "3"}, processes=1)
    (manifest,) = (tmp_path / "out").glob("*.json")
    assert json.loads(manifest.read_text())["samples"]["do"] == {"texture": 2}
