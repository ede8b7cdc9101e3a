"""The interpreters that wheels are made with are found by name and by path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pythons import find_python

TAG = f"cp{sys.version_info.major}{sys.version_info.minor}"


def test_a_name_on_the_path_and_a_path_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that starts another interpreter, such as one of pyenv, gives the path of that."""
    script = tmp_path / "python3.99"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_python("python3.99") == (Path(sys.executable), TAG)
    assert find_python(str(script)) == (Path(sys.executable), TAG)


def test_what_is_missing_or_does_not_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python3.99").write_text("#!/bin/sh\necho 'no such version' >&2\nexit 127\n")
    (tmp_path / "python3.99").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(
        SystemExit, match=r"'python3\.98' is missing: No such file or directory\. Name one on the PATH"
    ):
        find_python("python3.98")
    with pytest.raises(SystemExit, match=r"'python3\.99' does not run:\nno such version"):
        find_python("python3.99")
