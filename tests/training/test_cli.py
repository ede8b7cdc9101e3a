from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cgnrt_training import cli
from cgnrt_training.mnist.checkpoints import load_cgn

JOBS = [job.__name__.rpartition(".")[2].replace("_", "-") for job in cli.JOBS]
SMALL = [
    "model.channels=4",
    "model.noise_size=4",
    "discriminator.width=8",
    "train.batch_size=8",
    "train.seed=1",
]


def arguments(mnist: Path, output: Path, *more: str) -> list[str]:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    return ["mnist", "--variant", "colored", "--data", str(mnist), "--output", str(output), *settings, *more]


def resume(mnist: Path, output: Path, *more: str) -> list[str]:
    return ["mnist", "--data", str(mnist), "--output", str(output), "--resume", *more]


def test_help_needs_no_torch() -> None:
    """Of the command and of every job, in one process."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from cgnrt_training.cli import main\n"
        f"for command in {[[], *([job] for job in JOBS)]!r}:\n"
        "    try:\n        main([*command, '--help'])\n"
        "    except SystemExit as stop:\n        assert not stop.code, command\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    usages = [line for line in done.stdout.splitlines() if line.startswith("usage: cgnrt-train ")]
    assert [line.split()[2] for line in usages[1:]] == JOBS


def test_missing_torch_is_named(mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main(arguments(mnist, tmp_path / "run")) == 1
    assert "package 'torch' is not installed. Run: pip install 'cgnrt[train]'" in capsys.readouterr().err


def test_train_resume_and_refuse(mnist: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "run"
    assert cli.main(arguments(mnist, output, "--steps", "2", "--threads", "1")) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{output / 'cgn.pt'}\n"
    config = json.loads((output / "config.json").read_text())
    assert config["model"]["channels"] == 4
    assert config["train"] == config["train"] | {"steps": 2, "seed": 1}

    assert cli.main(arguments(mnist, output, "--steps", "2")) == 2
    assert "the folder already has a run. Use --resume, --force" in capsys.readouterr().err

    assert cli.main(resume(mnist, output, "--steps", "3")) == 0
    assert load_cgn(output / "cgn.pt").step == 3
    assert "at step 2" in capsys.readouterr().err

    assert cli.main(resume(mnist, output, "--set", "loss.binary=5")) == 2
    assert "settings are changed: loss.binary (0.1 -> 5.0), expected the run's own" in capsys.readouterr().err

    assert cli.main(resume(mnist, output, "--variant", "wildlife")) == 2
    assert "variant is colored, expected wildlife as asked" in capsys.readouterr().err

    assert cli.main(arguments(mnist, output, "--steps", "1", "--force")) == 0
    assert load_cgn(output / "cgn.pt").step == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "loss.binry=1"], "Did you mean loss.binary"),
        (["--steps", "0"], "train.steps is 0, expected > 0"),
        (["--threads", "0"], "--threads is 0, expected >= 1"),
        (["--config", "fst"], "Did you mean fast"),
    ],
)
def test_usage_errors(mnist: Path, tmp_path: Path, capsys, more: list[str], message: str) -> None:
    assert cli.main(arguments(mnist, tmp_path / "run", *more)) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert not (tmp_path / "run").exists()


def test_argparse_errors(tmp_path: Path, capsys) -> None:
    for words in ([], ["mnist"], ["mnist", "--variant", "x", "--data", "d", "--output", "o"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        assert stop.value.code == 2
    assert cli.main(["mnist", "--data", "d", "--output", str(tmp_path / "run")]) == 2
    assert "--variant is missing, expected it for a new run" in capsys.readouterr().err


def test_missing_data(tmp_path: Path, capsys) -> None:
    assert cli.main(arguments(tmp_path, tmp_path / "run", "--steps", "1")) == 1
    assert "file 'train-images-idx3-ubyte' is missing" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_resume_without_a_run(mnist: Path, tmp_path: Path, capsys) -> None:
    assert cli.main(resume(mnist, tmp_path / "run")) == 1
    assert "config.json is unreadable" in capsys.readouterr().err


def test_resume_with_damaged_settings(mnist: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "config.json").write_text("{")
    assert cli.main(resume(mnist, tmp_path)) == 1
    assert "content is damaged" in capsys.readouterr().err


def test_sigterm_ends_a_run_like_ctrl_c(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    missed = []
    before = signal.signal(signal.SIGTERM, lambda *_: missed.append(True))
    try:
        monkeypatch.setattr(
            "cgnrt_training.mnist.train.train", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)
        )
        assert cli.main(arguments(mnist, tmp_path / "run")) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not missed
    captured = capsys.readouterr()
    assert captured.err == f"cgnrt-train: interrupted. Go on with: --output {tmp_path / 'run'} --resume\n"
    assert captured.out == ""
