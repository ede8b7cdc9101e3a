"""Nothing that files, plans and engines are called or say reaches a terminal as an escape sequence."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from cgnrt import Plan, shards
from cgnrt._support import terminal
from cgnrt._support.terminal import CommandParser, say_traceback, steady_progress
from cgnrt.backends.onnxruntime.session import open_session
from cgnrt.cli import main
from cgnrt.errors import BackendError, CgnrtError, one_line, printable, show

# Clears the screen, turns the direction of writing around, and has no width.
STEERING = "\x1b[2J\x9b31m\u202e\u200b\u2066\r\x08\udcff"
ESCAPED = r"\x1b[2J\x9b31m\u202e\u200b\u2066\r\x08\udcff"


@pytest.mark.parametrize("text", ["", "plain", "café 猫 🐘", "two\nlines\tand a tab", r"a\x1b"])
def test_plain_text_stays(text: str) -> None:
    assert printable(text) == text


def test_what_steers_a_terminal_is_escaped() -> None:
    assert printable(f"a{STEERING}b") == f"a{ESCAPED}b"
    assert printable("a\nb", keep="") == r"a\nb"
    assert one_line(ValueError("Node: 'x\x1b[2J\n OK'\n\nfailed\t")) == r"Node: 'x\x1b[2J OK' failed"
    assert STEERING not in show(STEERING)


def test_progress_in_a_log_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    with steady_progress("audit", 1000, "images") as progress:
        for seconds in (4, 2, 3, 300, 1, 10, 10):  # since the update before
            now[0] += seconds
            progress.update(100)
    assert capsys.readouterr().err.splitlines() == [
        "audit: 200 of 1,000 images, about 24 s left",
        "audit: 400 of 1,000 images, about 7.7 min left",
    ]
    with steady_progress("audit", 1000, "images", shown=False) as progress:
        now[0] += 100
        progress.update(100)
    with steady_progress("audit", 100, "images") as progress:
        now[0] += 100
        progress.update(100)  # that was all
    assert capsys.readouterr().err == ""


def test_errors_are_printable_whatever_they_quote() -> None:
    error = CgnrtError(f"load 'a{STEERING}.plan'\nand a line")
    assert str(error) == f"load 'a{ESCAPED}.plan'\nand a line"


@pytest.fixture
def named(golden_plan: Path, tmp_path: Path) -> Path:
    """The golden plan under a hostile name, in a folder of such a name."""
    folder = tmp_path / f"folder{STEERING}"
    folder.mkdir()
    return Path(shutil.copy(golden_plan, folder / f"cgn{STEERING}.plan"))


def outputs(arguments: list[str], capfd: pytest.CaptureFixture[str], status: int = 0) -> str:
    """What a command prints, which has no character that steers."""
    assert main(arguments) == status
    found = "".join(capfd.readouterr())
    assert printable(found) == found
    return found


@pytest.mark.parametrize("options", [[], ["--json"], ["--classes"]], ids=["text", "json", "classes"])
def test_inspect(named: Path, options: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    outputs(["inspect", str(named), *options], capfd)


def test_commands_that_say_where_they_wrote(named: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target = str(named.parent / f"out{STEERING}")
    for arguments in (
        ["sample", str(named), "-n", "1", "-o", f"{target}.npz"],
        ["sheet", str(named), "-n", "1", "-o", f"{target}.png"],
        ["generate", str(named), "-n", "2", "-o", target, "--processes", "1"],
    ):
        assert ESCAPED in outputs(arguments, capfd)
    (Path(target) / f"other{STEERING}\nproblems found: 0.tar").touch()
    found = outputs(["verify", target], capfd, status=1)
    assert rf"other{ESCAPED}\nproblems found: 0.tar: not in the manifest" in found


def test_files_that_are_missing(named: Path, capfd: pytest.CaptureFixture[str]) -> None:
    missing = str(named) + "x"
    for arguments in (
        ["inspect", missing],
        ["verify", missing],
        ["bench", missing],
        ["real", missing, "--masks", missing, "-o", missing],
        ["serve", missing],
        ["serve", str(named), "--token-file", missing],
        ["audit", missing, "os:getcwd"],
    ):
        assert ESCAPED in outputs(arguments, capfd, status=1), arguments


def test_arguments_that_are_wrong(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", "a.plan", f"b{STEERING}.plan"])
    assert rf"unrecognized arguments: b{ESCAPED}.plan" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        CommandParser(prog="x").parse_args([STEERING])
    assert printable(found := capfd.readouterr().err) == found


def test_tracebacks_of_a_classifier(capfd: pytest.CaptureFixture[str]) -> None:
    say_traceback(ValueError(STEERING))
    assert ESCAPED in capfd.readouterr().err


def test_notes_of_a_data_set(golden_plan: Path, tmp_path: Path) -> None:
    folder = tmp_path / f"out{STEERING}"
    shards.generate(golden_plan, 2, folder, processes=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shards.generate(golden_plan, 2, folder, processes=1)
    for warning in caught:
        assert printable(str(warning.message)) == str(warning.message)


def test_messages_of_engines(golden_plan: Path) -> None:
    """ONNX Runtime quotes the names of nodes and values."""
    node = helper.make_node("Cast", ["noise"], ["y"], name=f"node{STEERING[:-1]}", to=99)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("noise", "y")]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    with Plan.open(golden_plan) as plan, pytest.raises(BackendError) as caught:
        open_session(
            plan.mechanisms["shape"], [("CPUExecutionProvider", {})], graph=model.SerializeToString()
        )
    text = str(caught.value)
    assert r"\x1b[2J" in text
    assert printable(text, keep="") == text
