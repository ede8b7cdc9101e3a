"""Table 1 on a small cGAN: what is measured, what is gone on with."""

from __future__ import annotations

import json
import math
from pathlib import Path

import natural_nets
import numpy as np
import pytest
import torch
from PIL import Image

from cgnrt_training import cli
from cgnrt_training.experiments.table1_text import table
from cgnrt_training.features.efficientnet_lite import EfficientNetLite
from cgnrt_training.natural.model import NaturalCGN
from cgnrt_training.natural.scores import measure
from cgnrt_training.scoring.judge import inception_score

HOW = ["--samples", "4", "--steps", "1", "--set", "train.pseudo_batch=1", "--set", "log.sheet_samples=1"]
HOW += ["--set", "patches.resolution=32", "--set", "patches.patch=5"]


def test_inception_score_by_its_definition() -> None:
    certain = torch.eye(5)[torch.arange(10) % 5]
    assert inception_score(certain) == pytest.approx(5)
    assert inception_score(torch.full((10, 5), 0.2)) == pytest.approx(1)
    assert inception_score(certain[:1].expand(10, 5)) == pytest.approx(1)
    torch.manual_seed(0)
    p = torch.rand(7, 4).softmax(1).double().numpy()
    mean = p.mean(0)
    divergence = [sum(x * math.log(x / m) for x, m in zip(row, mean, strict=True)) for row in p]
    assert inception_score(torch.from_numpy(p)) == pytest.approx(math.exp(np.mean(divergence)))


def test_masks_are_measured_by_class() -> None:
    networks = natural_nets.networks()
    cgn = NaturalCGN.of_teacher(networks.teacher, networks.saliency)
    how = {"samples": 10, "seed": 0, "truncation": 1.0}
    scores = measure(cgn, networks.teacher, None, **how)  # type: ignore[arg-type]
    again = measure(cgn, networks.teacher, None, batch=3, **how)  # type: ignore[arg-type]
    assert scores.inception_score is None
    assert scores.mu_mask == pytest.approx(again.mu_mask, rel=1e-6)
    assert scores.mu_mask_spread == pytest.approx(again.mu_mask_spread, rel=1e-5)
    assert scores.entropy is not None
    assert 0 < scores.entropy < 1
    assert measure(None, networks.teacher, None, **how).to_dict()["mu_mask"] is None  # type: ignore[arg-type]


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = tmp_path / "files"
    sizes = ["--resolution", "32", "--channel-width", "4", "--classes", "3"]
    assert cli.main(["imagenet-random", "--files", *sizes, "-o", str(files)]) == 0
    torch.manual_seed(0)
    torch.save(EfficientNetLite().state_dict(), tmp_path / "lite.pth")
    output = tmp_path / "table"
    config = json.loads((files / "biggan" / "config.json").read_text())
    config["class_names"] = [
        "tench",
        "gas_pump",
        "golf ball",
    ]  # ImageNet has them, so the judge looks for them alone
    (files / "biggan" / "config.json").write_text(json.dumps(config))
    named = {"biggan": "biggan", "u2net": "u2net.pth", "vgg": "vgg16_bn.pth"}
    command = ["table1", "--output", str(output), "--classifier", str(tmp_path / "lite.pth"), *HOW]
    command += [word for option, name in named.items() for word in (f"--{option}", str(files / name))]
    assert cli.main([*command, "--rows", "none,shape"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(output / "table1.json")
    record = json.loads((output / "table1.json").read_text())
    assert set(record["results"]) == {"none", "shape", "cgan"}
    for row, found in record["results"].items():
        assert 1 <= found["inception_score"] <= 3
        assert found["accuracy"] in (0, 0.25, 0.5, 0.75, 1)
        assert (found["mu_mask"] is None) == (row == "cgan")
    assert "lite.pth" not in record["command"]
    lines = (output / "table1.md").read_text().splitlines()
    assert lines[2].startswith("| all losses ")
    assert "| 130.2 |" in lines[2]
    assert "| 0.3 ± 0.2 |" in lines[2]
    assert lines[-1].startswith("| the cGAN (upper bound)")
    with Image.open(output / "table1.png") as picture:
        assert picture.width == 2 * 3 * 32
        assert picture.height > 2 * 6 * 32  # with captions above
    config = json.loads((output / "cells" / "shape" / "config.json").read_text())
    assert (config["loss"]["binary"], config["loss"]["mask"], config["loss"]["l1"]) == (0, 0, 100)
    # Again: nothing is done twice, a further row is added.
    before = (output / "cells" / "none.json").stat().st_mtime_ns
    assert cli.main([*command, "--rows", "none,reconstruction"]) == 0
    assert "2 of 3 cells are done" in capsys.readouterr().err
    assert (output / "cells" / "none.json").stat().st_mtime_ns == before
    assert cli.main([*command, "--seed", "3"]) == 1
    assert "settings are changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "mask"], "--rows is 'mask', expected one of none, shape, texture"),
        (["--samples", "0"], "--samples is 0, expected >= 1"),
        ([], "--biggan is missing"),
    ],
)
def test_wrong_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert cli.main(["table1", "--output", str(tmp_path / "t"), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_table_without_scores() -> None:
    results: dict[str, dict[str, float | None]] = {
        "shape": {"inception_score": None, "mu_mask": 0.25, "mu_mask_spread": 0.1, "entropy": 0.5}
    }
    (line,) = table(results).splitlines()[2:]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "without shape",
        "",
        "",
        "85.9",
        "109.7",
        "0.25 ± 0.10",
        "0.2 ± 0.2",
        "0.26",
        "0.500",
    ]
    results["shape"] |= {"accuracy": 0.756, "inception_score": 3.456}
    (line,) = table(results).splitlines()[2:]
    assert [cell.strip() for cell in line.strip("|").split("|")][1:3] == ["76 %", "3.46"]
