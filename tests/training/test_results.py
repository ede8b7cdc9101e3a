from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cgnrt.errors import CgnrtError
from cgnrt_training import cli
from cgnrt_training.experiments import paper, plots
from cgnrt_training.experiments.results import merge, publish
from cgnrt_training.experiments.results_page import page
from cgnrt_training.experiments.table3_4 import plots as plots_table3_4


def rate(value: float | None) -> dict[str, Any]:
    return {"value": value, "low": 0.0, "high": 1.0, "count": 0, "n": 1000}


def row(train: float, test: float, audit: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"train": [train, 0.001], "test": [test, 0.004]}
    if audit:
        kinds = {"shape": rate(0.901), "texture": rate(0.1), "background": rate(None)}
        found["audit"] = {"follows": kinds, "changes": kinds}
    return found


def run(experiment: str, results: Any, **changed: Any) -> dict[str, Any]:
    machine = {"cpu": "A CPU", "cores": 2, "matrix_extensions": ["amx_bf16"]}
    record = {
        "experiment": experiment,
        "results": results,
        "settings": {"steps": 1200, "plan.colored": "0123456789abcdef0123"},
        "command": f"cgnrt-train {experiment} --data MNIST",
        "seeds": [0, 1, 2],
        "wall_s": 3725.0,
        "machine": machine,
        "versions": {"cgnrt": "0.1.0"},
        "commit": "abc1234",
    }
    return record | changed


TABLE2 = {
    "colored": {
        "original": row(0.99, 0.359),
        "irm-2": row(0.99, 0.5),
        "lntl": row(0.99, 0.82),
        "original+cgn": row(0.998, 0.9612, audit=True),
        "colour-jitter": row(0.99, 0.98),
        "oracle": row(0.99, 0.985),
    }
}
POINTS = {
    value: {"test": [0.9, 0.01], "counterfactual": [0.91, 0.01], "train": [0.99, 0], "seconds": [12.3, 1]}
    for value in ("1", "16")
}
FIG7 = {"variant": "double-colored", "fixed": {"reuse": 1}, "axes": {"reuse": POINTS, "per_noise": POINTS}}
TABLE5 = {
    "variant": "double-colored",
    "accuracy": {
        name: {"0.9": [0.95, 0.001], "0.95": [0.95, 0.001], "1": [0.96, 0.001]}
        for name in ("shape", "texture", "background")
    },
    "spread": {"shape": 0.001, "texture": 0.06, "background": 0.08},
    "causal": "shape",
}
AXIS = {
    "kl": 3.1,
    "active": True,
    "colour": 1.0,
    "digit": 0.9,
    "both": 0.9,
    "colour_alone": 0.1,
    "digit_alone": 0,
}
FIG6 = {
    "2": {
        "axes": [AXIS, {"kl": 0.01, "active": False}],
        "images": 200,
        "agreement": 0.9,
        "agreement_of_data": 0.95,
    }
}
TABLE1 = {
    "none": {
        "accuracy": 0.654,
        "inception_score": 2.783,
        "mu_mask": 0.24,
        "mu_mask_spread": 0.1,
        "entropy": 0.11,
    },
    "cgan": {
        "accuracy": 0.64,
        "inception_score": 2.94,
        "mu_mask": None,
        "mu_mask_spread": None,
        "entropy": None,
    },
}
SETS = {"original": [0.9, 0.01], "mixed_same": [0.8, 0], "mixed_rand": [0.7, 0], "only_background": [0.4, 0]}
TABLE4 = {
    "pretrained": {
        "original": SETS | {"bg_gap": [0.1, 0]},
        "original+cgn": SETS | {"original": [0.91, 0], "bg_gap": [0.05, 0]},
        "original+cgn/texture": SETS | {"bg_gap": [0.2, 0]},
    }
}
FOLLOWS = {f"follows_{name}": [0.3, 0] for name in ("shape", "texture", "background")}
TABLE3 = {
    "pretrained": {
        row: {"original": [0.9, 0], "shape_bias": [0.5, 0], **FOLLOWS}
        for row in ("original", "original+cgn/shape")
    }
}
ALL = {
    "table2": TABLE2,
    "fig7": FIG7,
    "table5": TABLE5,
    "fig6": FIG6,
    "table1": TABLE1,
    "table3": TABLE3,
    "table4": TABLE4,
}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    paths = []
    for name, results in ALL.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(run(name, results)))
        paths.append(path)
    for name in ("fig6", "table1"):  # the experiment's own picture
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    return paths


def test_committed_page_is_what_its_json_gives(root: Path) -> None:
    path = root / "docs" / "results.json"
    content = json.loads(path.read_text())
    assert (root / "docs" / "results.md").read_text() == page(content)
    assert set(content.get("plots", [])) == {p.stem for p in (root / "docs" / "results").glob("*.png")}


def test_numbers_stand_beside_the_papers(runs: list[Path], tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    assert publish(runs, docs) == docs / "results.md"
    text = (docs / "results.md").read_text()
    content = json.loads((docs / "results.json").read_text())
    assert content["table2"]["colored"]["original+cgn"]["test"] == [0.9612, 0.004]
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    cells = [cell.strip() for cell in text.split("### Audit")[0].splitlines()[-1].split("|")]
    assert cells  # the section ends with a line
    first = next(line for line in text.splitlines() if line.startswith("| Original + CGN"))
    assert [cell.strip() for cell in first.split("|")[1:-1]] == [
        *("Original + CGN", "99.8 ± 0.1", "99.7", "**96.1 ± 0.4**", "95.1", "+1.0"),
    ]
    flat = " ".join(text.split())
    assert "The oracle is 2.4 points above Original + CGN." in flat
    assert "colour jitter, is 1.9 points above Original + CGN." in flat
    assert "Lower than in the paper: IRM, 2 environments by 9.8 points." in flat
    assert "(as in the paper)" in flat
    assert "one IRM figure for this variant" in flat
    assert "| Original + CGN | 90.1" in flat  # the audit; a rate of nothing stays empty
    assert "    cgnrt-train table2 --data MNIST" in text.splitlines()
    assert "seeds 0, 1, 2; 1 h 2 min in all on A CPU, 2 cores (matrix extensions: amx_bf16)" in flat
    assert "plan.colored `0123456789ab`" in flat
    assert "95.00 ± 0.10 (85.05 ± 0.12)" in lines["90 %"]
    assert "Read as causal, by the smallest spread: **shape**." in flat
    assert "1 latents that the VAE does not use are left out" in flat
    assert all(
        len(line) <= 120 for line in text.splitlines() if not line.startswith(("|", "!", "- ", "    "))
    )
    for name in ALL:
        assert f"](results/{name}.png)" in text
        assert 0 < (docs / "results" / f"{name}.png").stat().st_size < 150_000


def test_table_1_and_settings_in_sections(tmp_path: Path) -> None:
    content = {"table1": TABLE1, "plots": ["table1"]}
    content |= {
        "runs": {"table1": [run("table1", TABLE1) | {"settings": {"loss": {"l1": 100.0}, "samples": 9}}]}
    }
    text = page(content)
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")
    ]
    assert rows[2] == ["all losses", "65 %", "2.78", "130.2", "", "0.24 ± 0.10", "0.3 ± 0.2", "", "0.110"]
    assert rows[3] == ["the cGAN (upper bound)", "64 %", "2.94", "202.9", "", "", "", "", ""]
    assert "](results/table1.png)" in text
    assert "Settings: loss.l1 100.0, samples 9." in text


def test_tables_3_and_4_say_what_became_of_the_gap() -> None:
    text = " ".join(page({"table3": TABLE3, "table4": TABLE4}).split())
    assert "| ... shape head | 50.0 (54.82) |" in text
    content = merge(merge({}, run("table4", TABLE4)), run("table4", {"scratch": TABLE4["pretrained"]}))
    assert list(content["table4"]) == ["pretrained", "scratch"]
    assert [record["covers"] for record in content["runs"]["table4"]] == [["pretrained"], ["scratch"]]
    again = merge(content, run("table4", TABLE4, commit="later"))
    assert [record["commit"] for record in again["runs"]["table4"]] == ["abc1234", "later"]


def test_what_is_missing_is_left_out() -> None:
    text = page({"table2": TABLE2})
    assert "## Table 2" in text
    assert "## Fig. 7" not in text
    assert ".png" not in text
    assert page({}).startswith("# Results\n")


def test_notes_survive_and_are_printed(runs: list[Path], tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    notes = {"table2": ["Why LNTL is lower: it is.", "And more."], "general": ["On all of it."]}
    (docs / "results.json").write_text(json.dumps({"notes": notes}))
    publish(runs[:1], docs)
    publish([], docs)
    text = (docs / "results.md").read_text()
    assert text.index("On all of it.") < text.index("## Table 2") < text.index("Why LNTL is lower: it is.")
    assert json.loads((docs / "results.json").read_text())["notes"] == notes


def test_later_runs_replace_rows_and_keep_the_records_that_stand() -> None:
    first = run("table2", TABLE2, commit="first")
    rows = {"original": row(1, 0.4), "lntl": row(1, 0.5)}
    second = run("table2", {"colored": rows}, commit="second")
    third = run("table2", {"wildlife": {"original": row(1, 0.1)}}, commit="third")
    before = deepcopy(first)
    content = merge(merge(merge({}, first), second), third)
    assert first == before
    assert content["table2"]["colored"]["original"]["test"][0] == 0.4
    assert content["table2"]["colored"]["oracle"]["test"][0] == 0.985
    assert [record["commit"] for record in content["runs"]["table2"]] == ["first", "second", "third"]
    assert "colored/lntl" not in content["runs"]["table2"][0]["covers"]
    assert "It gave wildlife/original." in " ".join(page(content).split())
    again = merge(content, run("table2", {"colored": TABLE2["colored"]}, commit="fourth"))
    assert [record["commit"] for record in again["runs"]["table2"]] == ["third", "fourth"]

    content = merge(merge({}, run("fig7", FIG7)), run("fig7", FIG7, commit="later"))
    assert [record["commit"] for record in content["runs"]["fig7"]] == ["later"]
    content = merge(merge({}, run("fig6", FIG6)), run("fig6", {"10": FIG6["2"]}))
    assert list(content["fig6"]) == ["2", "10"]
    assert len(content["runs"]["fig6"]) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (run("table9", {}), "experiment is 'table9', expected one of table2, fig7"),
        ({"experiment": "fig7", "results": FIG7}, "fig7 has no settings, command"),
        ([], "content is not an object"),
        ("{", "content is not JSON"),
    ],
)
def test_rejects_what_is_no_run_and_writes_nothing(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(CgnrtError, match=message):
        publish([path], tmp_path / "docs")
    with pytest.raises(CgnrtError, match="file is unreadable"):
        publish([tmp_path / "none.json"], tmp_path / "docs")
    assert not (tmp_path / "docs").exists()


def test_command(runs: list[Path], tmp_path: Path, capsys) -> None:
    docs = tmp_path / "docs"
    assert cli.main(["results", str(runs[2]), "--output", str(docs)]) == 0
    assert capsys.readouterr().out == f"{docs / 'results.md'}\n"
    assert cli.main(["results", str(tmp_path / "none.json"), "--output", str(docs)]) == 1
    assert "file is unreadable" in capsys.readouterr().err


def test_plots_of_files(runs: list[Path], tmp_path: Path) -> None:
    for name, path in zip(ALL, runs, strict=True):
        if name not in ("fig6", "table1", "table3", "table4"):  # they have no plot of a file
            target = tmp_path / f"{name}-drawn.png"
            getattr(plots, name)(path, target)
            first = target.read_bytes()
            getattr(plots, name)(path, target)
            assert target.read_bytes() == first  # the same figure, the same bytes
            with Image.open(target) as picture:
                assert min(picture.size) > 200
    for draw, results in ((plots_table3_4.draw_table3, TABLE3), (plots_table3_4.draw_table4, TABLE4)):
        drawn = [tmp_path / f"{draw.__name__}-{k}.png" for k in range(2)]
        for target in drawn:
            draw(results, target)
        assert drawn[0].read_bytes() == drawn[1].read_bytes()
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(CgnrtError, match="content has no results"):
        plots.table2(tmp_path / "bad.json", tmp_path / "bad.png")


def test_the_papers_one_irm_figure_stands_beside_both() -> None:
    assert paper.table2("colored", "irm-2") == paper.table2("colored", "irm-5") == (99.6, 59.8)
    assert paper.table2("wildlife", "irm-2") == (99.9, 11.3)
    assert paper.table2("colored", "oracle") is None
