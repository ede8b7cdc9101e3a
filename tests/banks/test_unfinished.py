"""The folder of a run that is not finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt.banks.unfinished import Unfinished, folder_of, unfinished
from cgnrt.errors import CgnrtError

SHAPES = {"shape": (1, 2, 2), "texture": (3, 2, 2)}


def opened(target: Path, force: bool = False, **settings: Any) -> Any:
    return unfinished(target, {"seed": 0, **settings}, SHAPES, force=force)


def add(run: Unfinished, value: int, n: int = 2) -> None:
    run.add({name: np.full((n, *shape), value, np.uint8) for name, shape in SHAPES.items()}, [value])


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    target = tmp_path / "a.plan"
    with opened(target) as run:
        add(run, 1)
        add(run, 2, 0)
    with opened(target) as run:
        assert run.rows == {"shape": 2, "texture": 2}
        assert run.notes == [[1], [2]]
        add(run, 3)
        run.flush()
        assert run.pictures("texture")[:, 0, 0, 0].tolist() == [1, 1, 3, 3]


def test_a_run_at_a_time(tmp_path: Path) -> None:
    with (
        opened(tmp_path / "a.plan"),
        pytest.raises(CgnrtError, match="the folder is in use by another run"),
        opened(tmp_path / "a.plan"),
    ):
        pass


def test_files_of_something_else_are_kept(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a.plan")
    folder.mkdir()
    (folder / "mine.txt").write_text("kept")
    with (
        pytest.raises(CgnrtError, match="files of something else in it, expected an empty one"),
        opened(tmp_path / "a.plan"),
    ):
        pass
    with opened(tmp_path / "a.plan", force=True) as run:
        add(run, 1)
        run.flush()
        with run.writing_plan(tmp_path / "a.plan"):
            pass
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_pictures_that_are_gone_are_not_trusted(tmp_path: Path) -> None:
    with opened(tmp_path / "a.plan") as run:
        add(run, 1)
    (folder_of(tmp_path / "a.plan") / "texture.pictures").write_bytes(b"short")
    with (
        pytest.raises(CgnrtError, match=r"there are fewer pictures than journal.jsonl says. Pass --force"),
        opened(tmp_path / "a.plan"),
    ):
        pass
    with opened(tmp_path / "a.plan", force=True) as run:
        assert run.rows == {"shape": 0, "texture": 0}


@pytest.mark.parametrize("content", [b"", b"{}\n", b"[1]\n", b"no JSON\n"])
def test_a_journal_of_another_form_is_not_one(tmp_path: Path, content: bytes) -> None:
    folder = folder_of(tmp_path / "a.plan")
    folder.mkdir()
    (folder / "journal.jsonl").write_bytes(content)
    with (
        pytest.raises(CgnrtError, match="files of something else"),
        opened(tmp_path / "a.plan"),
    ):
        pass


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"x" * 100)
    folder = folder_of(tmp_path / "a.plan")
    folder.mkdir()
    (folder / "shape.pictures").symlink_to(mine)
    with (
        pytest.raises(CgnrtError, match="is a symbolic link, expected a file"),
        opened(tmp_path / "a.plan", force=True),
    ):
        pass
    assert mine.read_bytes() == b"x" * 100
