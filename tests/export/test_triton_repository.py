"""Model repositories for Triton: what is in them, and that they appear whole or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from triton_standin import loaded, read_config

import cgnrt
from cgnrt.errors import CgnrtError, PlanError
from cgnrt.serve.service import Service
from cgnrt_export import cli
from cgnrt_export.cli import main
from cgnrt_export.triton_repository import write_triton_model

COMMAND = [sys.executable, "-W", "error", "-m", "cgnrt_export.cli"]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


MODEL = ["1", "1/cgn.plan", "1/model.py", "config.pbtxt"]


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where only the runtime is installed."""
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.usefixtures("no_torch")
def test_a_plan_becomes_a_model(
    golden_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository, name = tmp_path / "models", golden_plan.stem
    assert main([str(golden_plan), "--triton-repository", str(repository)]) == 0
    assert capsys.readouterr().out == f"wrote {repository / name}, a model of Triton's Python backend\n"
    assert files(repository) == [name, *(f"{name}/{file}" for file in MODEL)]
    assert (repository / name / "1" / "cgn.plan").read_bytes() == golden_plan.read_bytes()
    config = read_config(repository / name)
    assert (config.name, config.backend, config.max_batch_size) == (name, "python", 0)
    assert not config.model_transaction_policy.decoupled


def test_the_configuration_is_the_servers(golden_plan: Path, tmp_path: Path) -> None:
    """Name, type, shape and need of every input and output are those of `cgnrt serve`."""
    config = read_config(write_triton_model(golden_plan, tmp_path, "v2"))
    service = Service(cgnrt.Generator(golden_plan, dtype="uint8", layout="NHWC"), "v2")
    expected = service.config("v2")
    asyncio.run(service.close())
    types = config.input[0].DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number

    def fields(entry: object) -> dict[str, object]:
        return {"name": entry.name, "data_type": types[entry.data_type].name, "dims": list(entry.dims)}  # type: ignore[attr-defined]

    assert [fields(e) | {"optional": e.optional} for e in config.input] == expected["input"]
    assert [fields(e) for e in config.output] == expected["output"]


def test_name_and_stream(golden_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        str(golden_plan),
        "--triton-repository",
        str(tmp_path),
        "--name",
        "cgn-stream.1",
        "--decoupled",
    ]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"triton_model": str(tmp_path / "cgn-stream.1")}
    config = read_config(tmp_path / "cgn-stream.1")
    assert config.name == "cgn-stream.1"
    assert config.model_transaction_policy.decoupled


def test_a_checkpoint_becomes_a_plan_and_a_model(
    authors_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, repository = tmp_path / "own.plan", tmp_path / "models"
    arguments = [str(authors_checkpoint), "-o", str(plan), "--precision", "fp32"]
    assert main([*arguments, "--triton-repository", str(repository)]) == 0
    out = capsys.readouterr().out
    assert out.endswith(
        f"wrote {plan}, {plan.stat().st_size:,} bytes\nwrote {repository / 'own'}, a model of Triton's Python backend\n"
    )
    assert (repository / "own/1/cgn.plan").read_bytes() == plan.read_bytes()
    with loaded(repository / "own"):
        pass


def test_a_model_that_exists_stays(golden_plan: Path, demo_plan: Path, tmp_path: Path) -> None:
    folder = write_triton_model(golden_plan, tmp_path, "cgn")
    (folder / "2").mkdir()
    (folder / "2" / "model.py").write_text("theirs")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(CgnrtError, match=r"write '.*cgn': the folder is not empty, .* --force"):
        write_triton_model(demo_plan, tmp_path, "cgn")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    write_triton_model(demo_plan, tmp_path, "cgn", force=True)
    assert (folder / "1" / "cgn.plan").read_bytes() == demo_plan.read_bytes()
    assert list(read_config(folder).output[0].dims) == [-1, 32, 32, 3]
    assert (folder / "2" / "model.py").read_text() == "theirs"
    assert files(tmp_path) == ["cgn", *(f"cgn/{name}" for name in sorted([*MODEL, "2", "2/model.py"]))]


def test_an_empty_folder_is_taken(golden_plan: Path, tmp_path: Path) -> None:
    (tmp_path / "cgn").mkdir()
    write_triton_model(golden_plan, tmp_path, "cgn")
    assert files(tmp_path / "cgn") == MODEL


def test_no_folder_is_there_before_it_is_whole(
    golden_plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton tries to load every folder in a repository, hidden ones too; copying a plan takes seconds."""
    copy = shutil.copyfile

    def look(source: Path, target: Path) -> object:
        done = copy(source, target)
        assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
        return done

    monkeypatch.setattr(shutil, "copyfile", look)
    write_triton_model(golden_plan, tmp_path, "cgn")


@pytest.mark.parametrize("force", [False, True])
def test_a_full_disk_leaves_nothing(
    golden_plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    def fill(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", fill)
    with pytest.raises(
        CgnrtError, match=r"write '.*cgn': No space left on device, expected a writable place"
    ):
        write_triton_model(golden_plan, tmp_path, "cgn", force=force)
    assert files(tmp_path) == []


def test_a_failure_at_the_end_leaves_nothing(
    golden_plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == tmp_path / "cgn":
            raise OSError(39, "Directory not empty")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(CgnrtError, match="Directory not empty"):
        write_triton_model(golden_plan, tmp_path, "cgn")
    assert files(tmp_path) == []


def test_termination_leaves_nothing(
    golden_plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(shutil, "copyfile", stop)
    assert main([str(golden_plan), "--triton-repository", str(tmp_path)]) == 1
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", ".hidden", 'a"b', "é", "a b", "x" * 101])
def test_a_name_that_is_none(golden_plan: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"model name is .*, expected letters, digits, .* Pass --name"):
        write_triton_model(golden_plan, tmp_path, name)
    assert files(tmp_path) == []


def test_what_is_no_plan_of_a_cgn(golden_saliency_plan: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="kind is 'saliency', expected 'cgn'"):
        write_triton_model(golden_saliency_plan, tmp_path, "cgn")
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name", "a"], "--name is given, expected it with --triton-repository alone"),
        (["--decoupled"], "--decoupled is given, expected it with --triton-repository alone"),
        (["--triton-repository", "models"], "-o is given, but the plan is served as it is"),
        (["--triton-repository", "models", "--name", "a/b"], "model name is 'a/b'"),
        (
            ["--triton-repository", "models", "--resolution", "32"],
            "--resolution is given, expected it for checkpoints",
        ),
    ],
)
def test_options_that_do_not_fit(
    golden_plan: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main([str(golden_plan), "-o", "new.plan", *options]) == 1
    assert message in capsys.readouterr().err


def test_a_checkpoint_needs_a_plan_to_write(
    authors_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(authors_checkpoint), "--triton-repository", str(tmp_path)]) == 1
    assert "-o is missing, expected the plan to write" in capsys.readouterr().err


def test_the_place_is_asked_for_before_the_work(
    authors_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("theirs")
    said: list[str] = []
    monkeypatch.setattr(cli, "_say", said.append)
    plan = tmp_path / "own.plan"
    assert main([str(authors_checkpoint), "-o", str(plan), "--triton-repository", str(tmp_path)]) == 1
    assert "the folder is not empty" in capsys.readouterr().err
    assert not plan.exists()
    assert said == []


def test_usage_without_an_output(golden_plan: Path) -> None:
    done = subprocess.run([*COMMAND, golden_plan], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the following arguments are required: -o/--output" in done.stderr
