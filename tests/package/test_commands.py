"""What all commands do alike: help for every argument, hints for misspelt words, the extra that a command lacks."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cgnrt.cli
import cgnrt_export.cli
import cgnrt_training.cli
from cgnrt._support.extras import EXTRAS, missing_dependency
from cgnrt._support.suggest import did_you_mean

ROOT = Path(__file__).resolve().parents[2]
PLAN = str(ROOT / "plans" / "colored.plan")
PARSERS = (cgnrt.cli._parser, cgnrt_training.cli._parser, cgnrt_export.cli._parser)


def all_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from all_parsers(command)


@pytest.mark.parametrize("make", PARSERS)
def test_every_argument_has_help(make: Callable[[], argparse.ArgumentParser]) -> None:
    found = list(all_parsers(make()))
    without = [
        f"{parser.prog}: {'/'.join(action.option_strings) or action.dest}"
        for parser in found
        for action in parser._actions
        if not action.help and not isinstance(action, argparse._SubParsersAction)
    ]
    assert without == []
    for parser in found:
        parser.format_help()  # which a stray % in a text breaks


@pytest.mark.parametrize(
    ("main", "words", "usage", "hint"),
    [
        (cgnrt.cli.main, "sample x.plan -n 2 -o x.npz --pools 3", "cgnrt sample", "'--pool'?"),
        (cgnrt.cli.main, "sample x.plan -n 2 --outptu=x.npz", "cgnrt sample", "'--output'?"),
        (cgnrt.cli.main, "smaple x.plan", "cgnrt", "'sample'?"),
        (cgnrt.cli.main, "sheet x.plan -o x.png --kind mechanism", "cgnrt sheet", "'mechanisms'?"),
        (
            cgnrt_training.cli.main,
            "table2 --data d --output o --repeat 3 --seeds 1",
            "cgnrt-train table2",
            "",
        ),
        (cgnrt_training.cli.main, "mnsit --data d", "cgnrt-train", "'mnist'?"),
        (cgnrt_export.cli.main, "x.pth -o x.plan --precison fp16", "cgnrt-export", "'--precision'?"),
        (cgnrt_export.cli.main, "x.pth -o x.plan --precision fp61", "cgnrt-export", "'fp16'?"),
    ],
)
def test_misspelt_words_get_a_hint(
    capsys: pytest.CaptureFixture[str], main: Callable[[list[str]], int], words: str, usage: str, hint: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"usage: {usage} [")
    assert not hint or f"Did you mean {hint}" in error


def test_unknown_options_are_named_beside_missing_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cgnrt.cli.main(["sample", "x.plan", "--zebra", "-o", "x.npz"])
    error = "error: unrecognized arguments: --zebra; the following arguments are required: -n\n"
    assert error in capsys.readouterr().err


def test_words_that_are_close_to_nothing_get_no_hint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cgnrt.cli.main(["sample", "x.plan", "-n", "2", "-o", "x.npz", "--zebra"])
    assert "error: unrecognized arguments: --zebra\n" in capsys.readouterr().err
    assert did_you_mean("zebra", ["lime"]) == ""
    assert did_you_mean("Lmie" * 10**5, ["lime"]) == ""


@pytest.mark.parametrize("name", ["FP16", "fp61", "pf16"])
def test_the_closest_name_is_suggested(name: str) -> None:
    assert did_you_mean(name, ["fp32", "fp16"]) == " Did you mean 'fp16'?"


@pytest.mark.parametrize(
    ("main", "words", "module", "extra"),
    [
        (cgnrt.cli.main, f"serve {PLAN} --no-grpc", "prometheus_client", "serve"),
        (cgnrt.cli.main, f"sample {PLAN} -n 1 -o OUT --backend torch", "torch", "torch"),
        (cgnrt.cli.main, f"generate {PLAN} -n 1 -o OUT --format parquet", "pyarrow", "parquet"),
        (cgnrt.cli.main, f"audit {PLAN} a:b --plot OUT.png", "matplotlib", "plot"),
        (cgnrt_training.cli.main, "gan --data OUT --variant colored --output OUT", "torch", "train"),
    ],
)
def test_a_command_names_the_extra_to_install(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    main: Callable[[list[str]], int],
    words: str,
    module: str,
    extra: str,
) -> None:
    for name in [name for name in sys.modules if name.startswith("cgnrt.serve")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    out = str(tmp_path / "out.npz")
    assert main([word.replace("OUT", out) for word in words.split()]) == 1
    error = capsys.readouterr().err
    assert f"Run: pip install 'cgnrt[{extra}]'" in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_the_export_names_its_extra(tmp_path: Path) -> None:
    """In a process of its own: in this one, the modules that need the package may be there already."""
    script = (
        "import sys; sys.modules['onnxscript'] = None; from cgnrt_export.cli import main; sys.exit(main())"
    )
    words = ["model.pth", "-o", "model.plan"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Run: pip install 'cgnrt[export]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("main", [cgnrt.cli.main, cgnrt_training.cli.main, cgnrt_export.cli.main])
@pytest.mark.parametrize("module", ["grpc", "torch.nn", "tensorboard.compat"])
def test_any_package_that_is_missing_on_the_way_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    main: Callable[[list[str]], int],
    module: str,
) -> None:
    def missing(*arguments: object) -> None:
        raise ModuleNotFoundError(f"No module named '{module}'", name=module)

    monkeypatch.setattr("cgnrt.cli.inspect._run", missing)
    monkeypatch.setattr("cgnrt_training.cli.fetch.check", missing)
    monkeypatch.setattr("cgnrt_export.cli.is_plan", missing)
    command = {cgnrt.cli.main: ["inspect", "x"], cgnrt_training.cli.main: ["fetch", "x"]}
    assert main(command.get(main, ["x", "-o", "y"])) == 1
    assert re.search(r"package '\S+' is not installed\. Run: pip install 'cgnrt\[", capsys.readouterr().err)


def test_a_module_that_no_extra_installs_is_an_error_of_its_own() -> None:
    error = ModuleNotFoundError("No module named 'cgnrt._core'", name="cgnrt._core")
    with pytest.raises(ModuleNotFoundError) as caught:
        missing_dependency("sample", error)
    assert caught.value is error


def test_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installs = {
        extra: {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}
        for extra, requirements in project.items()
    }
    for package, extras in EXTRAS.values():
        assert all(package in installs[extra] for extra in extras), package
