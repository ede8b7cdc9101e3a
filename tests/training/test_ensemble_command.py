"""`cgnrt-train ensemble` and `table3-4`, from folders of photos to their results."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import photo_runs
import pytest
import torch

from cgnrt.errors import CheckpointError
from cgnrt_training import cli
from cgnrt_training.checkpoints import load_tensors
from cgnrt_training.checkpoints import save as save_checkpoint
from cgnrt_training.ensemble.backbones import new_backbone
from cgnrt_training.ensemble.files import load_ensemble
from cgnrt_training.ensemble.model import Ensemble
from cgnrt_training.experiments.table3_4.measures import shape_bias
from cgnrt_training.experiments.table3_4.summary import against_base, columns, summary
from cgnrt_training.experiments.table3_4.text import parts

SETS = ["train.batch_size=4", "log.checkpoint_every=2", "log.scalars_every=1", "optimizer.lr=0.01"]
SMALL = [word for text in SETS for word in ("--set", text)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, their masks, a plan, and weights of a ResNet-18."""
    path = tmp_path_factory.mktemp("ensemble")
    photo_runs.write_photos(path)
    photo_runs.write_plan(path / "cgn.plan")
    torch.manual_seed(0)
    torch.save(new_backbone("resnet18").state_dict(), path / "resnet18.pth")
    return path


def words(folder: Path, output: Path, *more: str) -> list[str]:
    given = ["--images", str(folder / "images"), "--plan", str(folder / "cgn.plan")]
    backbone = ["--backbone", str(folder / "resnet18.pth")]
    return ["ensemble", *given, *backbone, "--output", str(output), "--threads", "1", *SMALL, *more]


def test_the_command_trains_and_goes_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert cli.main(words(folder, whole, "--epochs", "0.7")) == 0  # 4 steps of 2 photos
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["steps"] == 4
    assert set(result["accuracy"]) == {
        *("mean", "mean-logits", "shape+texture", "shape", "texture", "background")
    }
    assert "step 4: real" in captured.err
    assert "accuracy mean" in captured.err
    files = {path.name for path in whole.iterdir()}
    assert files >= {"ensemble.pt", "resume.pt", "result.json", "config.json", "sources.json", "tensorboard"}
    lines = [json.loads(line) for line in (whole / "scalars.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert {"real", "shape", "texture", "background"} <= set(lines[0])
    # Killed in the middle of four steps, after the checkpoint of the second.
    assert cli.main(words(folder, parts, "--epochs", "0.7")) == 0
    state = load_tensors(parts / "resume.pt")
    assert cli.main(["ensemble", "--output", str(parts), "--resume", "--threads", "1"]) == 0  # nothing to do
    assert cli.main(["ensemble", "--output", str(parts), "--resume", "--threads", "1", "--epochs", "1"]) == 0
    assert load_tensors(parts / "resume.pt")["step"] == 6
    assert state["step"] == 4
    capsys.readouterr()
    assert cli.main(["ensemble", "--output", str(parts), "--resume", "--set", "train.reuse=3"]) == 2
    assert "settings are changed: train.reuse" in capsys.readouterr().err


def test_a_killed_run_gives_the_same_bits(folder: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    code = (
        "import sys; from cgnrt_training import cli; from cgnrt_training.ensemble import train as t; import os;"
        "step = t.Run.step\n"
        "def killed(self, batch):\n"
        "    if self.state.step == 3: os._exit(9)\n"
        "    return step(self, batch)\n"
        "t.Run.step = killed\n"
        "cli.main(sys.argv[1:])"
    )
    assert cli.main(words(folder, whole, "--epochs", "0.7")) == 0
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    asked = words(folder, parts, "--epochs", "0.7")
    done = subprocess.run(
        [sys.executable, "-c", code, *asked], env=environment, check=False, capture_output=True
    )
    assert done.returncode == 9, done.stderr
    assert load_tensors(parts / "resume.pt")["step"] == 2
    assert cli.main(["ensemble", "--output", str(parts), "--resume", "--threads", "1"]) == 0
    expected, found = load_ensemble(whole / "ensemble.pt").model, load_ensemble(parts / "ensemble.pt").model
    for (name, a), b in zip(expected.state_dict().items(), found.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_processes_of_a_torchrun_give_the_same(folder: Path, tmp_path: Path) -> None:
    assert cli.main(words(folder, tmp_path / "one", "--epochs", "0.7")) == 0
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--no-python",
    ]
    run = "import sys; from cgnrt_training import cli; sys.exit(cli.main(sys.argv[1:]))"
    asked = [*command, sys.executable, "-c", run, *words(folder, tmp_path / "two", "--epochs", "0.7")]
    done = subprocess.run(asked, env=dict(os.environ, OMP_NUM_THREADS="1"), check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    one, two = (load_ensemble(tmp_path / name / "ensemble.pt").model for name in ("one", "two"))
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=name)
    a, b = ((tmp_path / name / "scalars.jsonl").read_text().splitlines()[0] for name in ("one", "two"))
    assert json.loads(a)["shape"] == pytest.approx(json.loads(b)["shape"], abs=1e-4)


def test_a_trained_file_is_loaded(folder: Path, tmp_path: Path) -> None:
    assert cli.main(words(folder, tmp_path / "run", "--epochs", "0.2", "--row", "original")) == 0
    path = tmp_path / "run" / "ensemble.pt"
    loaded = load_ensemble(path)
    assert isinstance(loaded.model, Ensemble)
    assert (loaded.classes, loaded.size, loaded.model.names) == (("blue", "green", "red"), 32, ("label",))
    assert not loaded.model.training
    assert loaded.config.model.backbone == "resnet18"
    content = load_tensors(path)
    for changed, message in (
        ({"classes": None}, "classes, size or step are missing or damaged"),
        ({"step": None}, "classes, size or step are missing or damaged"),
        ({"format_version": 2}, r"format version is 2, expected 1\.\.1"),
        ({"config": {"train": {"row": 5}}}, "settings are damaged"),
        ({"config": content["config"] | {"model": {"backbone": "vgg"}}}, "settings are damaged .*vgg"),
        ({"model": {}}, "missing keys are"),
    ):
        save_checkpoint(content | changed, tmp_path / "damaged.pt")
        with pytest.raises(CheckpointError, match=message):
            load_ensemble(tmp_path / "damaged.pt")


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (
            ["--backbone", "resnet50"],
            2,
            "--weights is missing, expected a file of resnet50's weights, or --scratch",
        ),
        (
            ["--backbone", "vgg16"],
            2,
            "--backbone is 'vgg16', expected a file of weights or one of efficientnet_lite0",
        ),
        (["--scratch"], 2, "--backbone is a file, expected no --weights and no --scratch with it"),
        (["--backbone", "resnet18", "--weights", "W", "--scratch"], 2, "--weights and --scratch are given"),
        (
            ["--backbone", "resnet50", "--weights", "W"],
            1,
            "content is resnet18, expected weights of resnet50",
        ),
        (
            ["--row", "mixed-rand"],
            2,
            "masks are missing, expected --masks FOLDER or --saliency PLAN for row mixed-rand",
        ),
        (["--size", "48"], 1, "--plan draws pictures of 32 x 32, expected squares of --size 48"),
        (["--set", "model.backbones=1"], 2, "key is 'model.backbones'"),
        (["--config", "large"], 2, "expected a TOML file or one of the recipes authors-code, small"),
    ],
)
def test_wrong_commands(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, message: str
) -> None:
    asked = [str(folder / "resnet18.pth") if word == "W" else word for word in more]
    assert cli.main(words(folder, tmp_path / "run", *asked)) == code
    assert message in capsys.readouterr().err


def test_missing_inputs(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["ensemble", "--backbone", str(folder / "resnet18.pth"), "--output", str(tmp_path / "run")]
    assert cli.main([*base, "--images", str(folder / "images")]) == 2
    assert "--plan is missing, expected a CGN's plan for row original+cgn" in capsys.readouterr().err
    assert cli.main([*base, "--plan", str(folder / "cgn.plan")]) == 2
    assert "--images is missing, expected it for a new run" in capsys.readouterr().err


def test_an_empty_class_and_a_loss_that_is_no_number(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo_runs.write_photos(tmp_path / "photos")
    for path in (tmp_path / "photos" / "images" / "train" / "green").iterdir():
        path.unlink()
    command = words(tmp_path / "photos", tmp_path / "run")
    command[command.index("--plan") + 1] = str(folder / "cgn.plan")
    command[command.index("--backbone") + 1] = str(folder / "resnet18.pth")
    assert cli.main(command) == 1
    assert "number of photos of class 'green' has 0, expected at least 2" in capsys.readouterr().err
    assert cli.main(words(folder, tmp_path / "nan", "--set", "optimizer.lr=1e30")) == 1
    error = capsys.readouterr().err
    assert "loss real, shape, texture, background is not finite at step" in error


def table_words(folder: Path, output: Path, *more: str) -> list[str]:
    fixed = ("--epochs", "0.2", "--masks", str(folder / "masks"), "--audit", "8", "--places", "6")
    return ["table3-4", *words(folder, output, *fixed, *more)[1:]]


def test_tables_3_and_4(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "tables"
    assert cli.main(table_words(folder, output, "--seeds", "2", "--rows", "original,original+cgn")) == 0
    assert capsys.readouterr().out == f"{output / 'table4.json'}\n"
    record = json.loads((output / "table4.json").read_text())
    rows = record["results"]["pretrained"]
    heads = ("", "/mean-logits", "/shape+texture", "/shape", "/texture", "/background")
    assert set(rows) == {"original", *(f"original+cgn{head}" for head in heads)}
    for found in rows.values():
        assert found["bg_gap"][0] == pytest.approx(found["mixed_same"][0] - found["mixed_rand"][0], abs=1e-5)
    assert "resnet18.pth" not in record["command"]
    assert record["seeds"] == [0, 1]
    measures = record["settings"]["measures"]
    assert measures["audit"]["samples"] == 8
    assert measures["places"]["n"] == 6
    audited = json.loads((output / "table3.json").read_text())["results"]["pretrained"]
    heads = ("", "/shape+texture", "/shape", "/texture", "/background")
    assert set(audited) == {"original", *(f"original+cgn{head}" for head in heads)}
    assert 0 <= audited["original+cgn/shape"]["shape_bias"][0] <= 1
    text = (output / "table4.md").read_text()
    assert "(7.3)" in text
    assert "| Original + CGN: mean of all heads" in text
    for name in ("table3", "table4"):
        assert (output / f"{name}.png").stat().st_size > 1000
    loaded = load_ensemble(output / "cells" / "original+cgn.1.pt")
    assert loaded.config.train.seed == 1
    # Again: nothing is done twice, another row is added.
    before = (output / "cells" / "original.0.json").stat().st_mtime_ns
    assert cli.main(table_words(folder, output, "--seeds", "1", "--rows", "original,mixed-rand")) == 0
    assert (output / "cells" / "original.0.json").stat().st_mtime_ns == before
    assert cli.main(table_words(folder, output, "--seeds", "1", "--set", "augment.flip=0")) == 1
    assert "settings are changed: augment" in capsys.readouterr().err


def test_cells_are_measured_apart_from_training(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "tables"
    command = table_words(folder, output, "--seeds", "1", "--rows", "original")
    assert cli.main(command) == 0
    cell, weights = (output / "cells" / f"original.0.{kind}" for kind in ("json", "pt"))
    first, trained = json.loads(cell.read_text()), weights.stat().st_mtime_ns
    assert set(first["measures"]) == {"sets", "audit", "places"}
    # One measure is missing: it alone is done.
    del first["measures"]["places"]
    first["measures"]["audit"]["answers"]["mean"]["shape_bias"] = 0.125
    cell.write_text(json.dumps(first))
    capsys.readouterr()
    assert cli.main(command) == 0
    error = capsys.readouterr().err
    assert "original.0: measuring places" in error
    assert "measuring sets" not in error
    assert "measuring audit" not in error
    second = json.loads(cell.read_text())
    assert second["measures"]["places"]["settings"]["n"] == 6
    assert second["steps"] == first["steps"]
    table = json.loads((output / "table3.json").read_text())["results"]["pretrained"]
    assert table["original"]["shape_bias"] == [0.125, 0.0]
    # Other settings of a measure: it is done again, and nothing else is.
    assert cli.main([*command, "--audit", "9"]) == 0
    error = capsys.readouterr().err
    assert "measuring audit" in error
    assert "measuring places" not in error
    assert json.loads(cell.read_text())["measures"]["audit"]["settings"]["samples"] == 9
    # One that is not asked for stays in the cell, and out of the table.
    assert cli.main([*command, "--audit", "0", "--places", "0"]) == 0
    assert "measuring" not in capsys.readouterr().err
    assert json.loads((output / "table3.json").read_text())["results"] == {"pretrained": {}}
    assert set(json.loads(cell.read_text())["measures"]) == {"sets", "audit", "places"}
    assert weights.stat().st_mtime_ns == trained
    # Weights without a record are measured; a record without weights is not that of the next ones.
    cell.unlink()
    assert cli.main(command) == 0
    assert weights.stat().st_mtime_ns == trained
    stored = json.loads(cell.read_text())
    stored["measures"]["audit"]["answers"]["mean"]["shape_bias"] = 0.125
    cell.write_text(json.dumps(stored))
    weights.unlink()
    assert cli.main(command) == 0
    assert json.loads(cell.read_text())["measures"]["audit"]["answers"]["mean"]["shape_bias"] != 0.125


def test_a_trained_ensemble_is_a_cell(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, output = tmp_path / "run", tmp_path / "tables"
    assert cli.main(words(folder, run, "--epochs", "0.2", "--row", "original")) == 0
    (output / "cells").mkdir(parents=True)
    shutil.copy(run / "ensemble.pt", output / "cells" / "original.0.pt")
    capsys.readouterr()
    rows = ("--seeds", "1", "--rows", "original", "--audit", "0", "--places", "0")
    assert cli.main(table_words(folder, output, *rows)) == 0
    error = capsys.readouterr().err
    assert "original.0: measuring sets" in error
    assert "more steps" not in error  # nothing was trained
    assert "train_s" not in json.loads((output / "cells" / "original.0.json").read_text())


def test_cells_that_are_not_this_commands(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "tables"
    command = table_words(
        folder, output, "--seeds", "1", "--rows", "original", "--audit", "0", "--places", "0"
    )
    assert cli.main(command) == 0
    cells = output / "cells"
    shutil.copy(cells / "original.0.pt", cells / "original.1.pt")
    assert cli.main([*command, "--seeds", "2"]) == 1
    assert "original.1.pt': settings are changed: train.seed (0 -> 1), expected those of this command" in (
        capsys.readouterr().err
    )
    content = load_tensors(cells / "original.0.pt")
    save_checkpoint(content | {"classes": ["a", "b", "c"]}, cells / "original.0.pt")
    (cells / "original.0.json").unlink()
    assert cli.main(command) == 1
    assert "original.0.pt': settings are changed: classes, expected" in capsys.readouterr().err
    save_checkpoint(content | {"step": 0}, cells / "original.0.pt")
    assert cli.main(command) == 1
    assert "original.0.pt': number of steps is 0, expected 1. Train to the end" in capsys.readouterr().err
    (cells / "original.0.json").write_text(json.dumps({"measures": {"sets": 5}}))
    assert cli.main(command) == 1
    assert "original.0.json': measures are damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seeds", "0"], "--seeds is 0, expected >= 1"),
        (["--audit", "-1"], "--audit is -1, expected >= 0"),
        (["--places", "-1"], "--places is -1, expected >= 0"),
        (["--rows", "oracle"], "--rows is 'oracle', expected one of original"),
        (["--set", "train.seed=4"], "--set is 'train.seed=4', expected a setting that all rows share"),
        ([], "masks are missing, expected --masks FOLDER or --saliency PLAN"),
    ],
)
def test_wrong_tables(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    command = words(folder, tmp_path / "tables", *more)
    command[0] = "table3-4"
    assert cli.main(command) == 2
    assert message in capsys.readouterr().err


def test_tables_need_photos_to_test_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, masks = photo_runs.write_photos(tmp_path / "photos", splits=("train",))
    command = words(folder, tmp_path / "tables", "--masks", str(masks))
    command[command.index("--images") + 1] = str(images)
    command[0] = "table3-4"
    assert cli.main(command) == 1
    assert "val/ is missing in --images, expected photos to test on" in capsys.readouterr().err


def test_shape_bias_and_summary() -> None:
    assert shape_bias(30, 10) == 0.75
    assert shape_bias(0, 0) == 0.5
    cells = [
        {"mean": {"original": 0.5, "centre_bias": 0.5}, "shape": {"original": 0.25}},
        {"mean": {"original": 0.7}, "shape": {"original": 0.25}},
    ]
    found = summary({"original+cgn": cells})
    # Of two seeds one has no centre bias.
    assert found["original+cgn"] == {"original": pytest.approx([0.6, 0.141421])}
    assert found["original+cgn/shape"]["original"] == [0.25, 0.0]


def test_rows_against_original_of_the_same_seed() -> None:
    def cell(gap: float, accuracy: float, shape: float) -> dict[str, dict[str, float]]:
        return {
            "mean": {
                "bg_gap": gap,
                "original": accuracy,
                "only_background": 0.3,
                "shape_bias": shape,
                "follows_background": 2 * shape,
            },
            "mean-logits": {"bg_gap": gap, "original": accuracy, "only_background": 0.5},
        }

    by_row = {
        "original": [{"mean": cell(0.2, 0.9, 0.25)["mean"]}, {"mean": cell(0.4, 0.8, 0.5)["mean"]}],
        "original+cgn": [cell(0.1, 0.8, 0.5), cell(0.1, 0.8, 0.5)],
    }
    found = summary(against_base(by_row))
    assert set(found["original"]) == set(by_row["original"][0]["mean"])
    ours = found["original+cgn"]
    assert ours["bg_gap_over_original"] == pytest.approx([0.375, 0.176777])  # of 1/2 and 1/4
    assert ours["original_minus_original"] == pytest.approx([-0.05, 0.070711])
    assert ours["shape_bias_minus_original"] == pytest.approx([0.125, 0.176777])
    assert ours["texture_bias_minus_original"] == pytest.approx([-0.125, 0.176777])
    assert ours["follows_background_minus_original"] == pytest.approx([0.25, 0.353553])
    assert found["original+cgn/mean-logits"]["only_background_minus_original"] == pytest.approx([0.2, 0.0])
    assert set(columns("table3", ours)) == {
        *("original", "shape_bias", "shape_bias_minus_original", "texture_bias_minus_original"),
        *("follows_background", "follows_background_minus_original"),
    }
    assert "bg_gap_over_original" in columns("table4", ours)
    assert columns("table3", found["original+cgn/mean-logits"]) == {}
    # Without a gap, or without Original, there is nothing to compare with.
    by_row["original"][1]["mean"]["bg_gap"] = 0.0
    assert "bg_gap_over_original" not in summary(against_base(by_row))["original+cgn"]
    del by_row["original"]
    assert against_base(by_row) == by_row
    text = "\n\n".join(parts("table4", {"pretrained": found}))
    (line,) = (line for line in text.splitlines() if "| 0.38 ± 0.18 (0.45)" in line)
    assert "| -5.0 ± 7.1 (-1.4)" in line


def test_the_papers_numbers_stand_beside_pretrained_rows_alone() -> None:
    four = {"original": [0.9, 0.01], "mixed_same": [0.8, 0.0], "mixed_rand": [0.7, 0.0], "bg_gap": [0.1, 0.0]}
    four |= {"only_background": [0.3, 0.0]}
    text = "\n\n".join(parts("table4", {"pretrained": {"original": four}, "scratch": {"original": four}}))
    first, second = (block.splitlines()[2] for block in text.split("\n\n")[1:])
    assert [cell.strip() for cell in first.split("|")[1:-1]] == [
        *("Original", "90.0 ± 1.0 (95.6)", "80.0 (86.2)", "70.0 (78.9)", "10.0 (7.3)", "30.0")
    ]
    assert "(" not in second
    placed = four | {"centre_bias": [0.25, 0.0], "size_bias_0.25": [0.5, 0.02]}
    text = "\n\n".join(parts("table4", {"scratch": {"original": placed}}))
    assert "centre), with objects at a third of their size" in text
    (line,) = (line for line in text.splitlines() if "| 50.0 ± 2.0 |" in line)
    assert "| 25.0 " in line
    three = {"original": [0.9, 0.0], "shape_bias": [0.5, 0.0], "follows_shape": [0.2, 0.0]}
    three |= {"shape_bias_minus_original": [0.3, 0.01], "texture_bias_minus_original": [-0.3, 0.01]}
    text = "\n\n".join(parts("table3", {"pretrained": {"original+cgn/shape": three}}))
    assert "50.0 (54.82)" in text
    assert "+30.0 ± 1.0 (33.43)" in text
    assert "-30.0 ± 1.0 (-33.43)" in text
