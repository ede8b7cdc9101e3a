"""The `cgnrt-export` command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cgnrt import Plan
from cgnrt_export import cli
from cgnrt_export.cli import main


def test_a_checkpoint_becomes_a_plan(
    authors_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "cgn.plan"
    assert (
        main([str(authors_checkpoint), "-o", str(plan), "--precision", "fp32", "--json", "--seed", "3"]) == 0
    )
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert result["plan"] == str(plan)
    assert result["size"] == plan.stat().st_size
    assert result["report"]["seed"] == 3
    with Plan.open(plan) as opened:
        assert opened.manifest.precision == "fp32"
        assert opened.manifest.parity == result["report"]
    assert "note: the checkpoint does not name its classes" in err
    assert "parity: fp32 by openvino" in err
    assert "arning" not in err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_termination_leaves_nothing(
    authors_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    signum: signal.Signals,
) -> None:
    def stop(message: str) -> None:
        if message.startswith("parity") or signum == signal.SIGINT:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(cli, "_say", stop)
    before = signal.getsignal(signal.SIGTERM)
    assert main([str(authors_checkpoint), "-o", str(tmp_path / "cgn.plan")]) == 1
    assert capsys.readouterr().err == "cgnrt-export: interrupted; nothing was written\n"
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == before


def test_help_without_torch() -> None:
    script = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "from cgnrt_export.cli import main\n"
        "main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--precision" in done.stdout


@pytest.mark.parametrize("package", ["torch", "onnxscript"])
def test_without_a_package_it_says_what_to_install(tmp_path: Path, package: str) -> None:
    script = (
        "import importlib.abc, sys\n"
        "class Gone(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {package!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Gone())\n"
        "from cgnrt_export.cli import main\n"
        f"sys.exit(main(['ckp.pth', '-o', {str(tmp_path / 'cgn.plan')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr
        == f"cgnrt-export: export: package '{package}' is not installed. Run: pip install 'cgnrt[export]'\n"
    )


def test_a_name_of_the_package_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import cgnrt, cgnrt_export\n"
        "try:\n    cgnrt_export.export_plan\n"
        "except cgnrt.MissingDependencyError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "export: package 'torch' is not installed. Run: pip install 'cgnrt[export]'\n"


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["ckp.pth"], ["ckp.pth", "-o", "cgn.plan", "--precision", "int8"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
    assert "usage: cgnrt-export" in capsys.readouterr().err


def test_failures_are_one_line(
    authors_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "cgn.plan"
    assert main([str(tmp_path / "none.pth"), "-o", str(plan)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"cgnrt-export: load '{tmp_path / 'none.pth'}': ")
    plan.write_bytes(b"precious")
    assert main([str(authors_checkpoint), "-o", str(plan)]) == 1
    assert "the file exists" in capsys.readouterr().err.splitlines()[-1]
    assert plan.read_bytes() == b"precious"
