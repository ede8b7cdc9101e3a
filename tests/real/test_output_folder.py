"""The folder that `cgnrt real` writes: whenever a run ends, index.csv is true, and the next run goes on."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from cgnrt.cli import main
from cgnrt.errors import CgnrtError
from cgnrt.real.folder import INDEX, UNFINISHED, writing

if TYPE_CHECKING:
    from conftest import Photos

SETTINGS: dict[str, Any] = {"start": 0, "n": 6, "seed": 4, "photos": "abc"}
PARTS = (Path("a.jpg"), Path("b, c.jpg"), Path("d.jpg"))
CLASSES = ("cat", "dog", "cat")


@pytest.fixture
def folders(photos: Photos, tmp_path: Path) -> tuple[Path, Path]:
    pictures, masks = tmp_path / "photos", tmp_path / "masks"
    pictures.mkdir()
    masks.mkdir()
    for k, (image, mask) in enumerate(zip(photos.images, photos.masks, strict=True)):
        Image.fromarray(image).save(pictures / f"{k}.png")
        Image.fromarray((mask[0] * 255).astype(np.uint8)).save(masks / f"{k}.png")
    return pictures, masks


def run(*arguments: object) -> int:
    return main(["real", *map(str, arguments)])


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / INDEX).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def numbers(folder: Path) -> list[int]:
    return [int(row["index"]) for row in rows(folder)]


def pictures_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def shade_of(path: Path) -> int:
    with Image.open(path) as picture:
        return int(np.asarray(picture)[0, 0, 0])


def fill(
    folder: Path, settings: dict[str, Any], count: int = 1000, *, force: bool = False, shade: int = 9
) -> None:
    """A run that ends after `count` pictures."""
    with writing(folder, settings, force=force) as output:
        for number in output.missing[:count]:
            output.add(number, np.full((4, 4, 3), shade, np.uint8), settings["seed"], PARTS, CLASSES)
        if count >= len(output.missing):
            output.finish()


def test_rows_are_there_at_any_moment(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    with writing(out, SETTINGS, force=False) as output:
        assert output.missing == [0, 1, 2, 3, 4, 5]
        assert rows(out) == []
        for number in output.missing:
            output.add(number, np.zeros((4, 4, 3), np.uint8), 4, PARTS, CLASSES)
            assert numbers(out) == list(range(number + 1))
            assert len(pictures_of(out)) == number + 1
        output.flush()
        output.finish()
    assert rows(out)[2] == {
        "file": "000002.png",
        "index": "2",
        "seed": "4",
        "shape": "a.jpg",
        "texture": "b, c.jpg",
        "background": "d.jpg",
        "shape_class": "cat",
        "texture_class": "dog",
        "background_class": "cat",
    }
    assert {path.name for path in out.iterdir()} == {INDEX, *pictures_of(out)}


def test_a_run_goes_on(tmp_path: Path) -> None:
    fill(tmp_path, SETTINGS, 2, shade=1)
    (tmp_path / "000001.png").unlink()  # its row is not kept
    (tmp_path / "000004.png").write_bytes(b"cut")  # a picture without a row: killed in between
    with writing(tmp_path, SETTINGS, force=False) as output:
        assert output.missing == [1, 2, 3, 4, 5]
    fill(tmp_path, SETTINGS, shade=2)
    assert numbers(tmp_path) == [0, 1, 2, 3, 4, 5]
    shades = [shade_of(tmp_path / f"{k:06d}.png") for k in range(6)]
    assert shades == [1, 2, 2, 2, 2, 2]
    assert not (tmp_path / UNFINISHED).exists()


def test_only_the_same_run_goes_on(tmp_path: Path) -> None:
    fill(tmp_path, SETTINGS, 2)
    with (
        pytest.raises(
            CgnrtError, match=r"n is 7, expected 6; seed is 5, expected 4, as in the unfinished run"
        ),
        writing(tmp_path, SETTINGS | {"n": 7, "seed": 5}, force=False),
    ):
        pass
    # With force the other run begins, and the rows of what it does not replace stay.
    fill(tmp_path, SETTINGS | {"start": 1, "n": 2, "seed": 5}, force=True)
    assert [(row["index"], row["seed"]) for row in rows(tmp_path)] == [("0", "4"), ("1", "5"), ("2", "5")]


def test_force_and_start(tmp_path: Path) -> None:
    """Each run adds to the index of a finished folder."""
    fill(tmp_path, SETTINGS | {"n": 3})
    with (
        pytest.raises(CgnrtError, match="the folder has files in it"),
        writing(tmp_path, SETTINGS, force=False),
    ):
        pass
    fill(tmp_path, SETTINGS | {"start": 3, "n": 3}, force=True)
    assert numbers(tmp_path) == [0, 1, 2, 3, 4, 5]
    fill(tmp_path, SETTINGS | {"start": 1, "n": 1, "seed": 8}, force=True)
    assert [row["seed"] for row in rows(tmp_path)] == ["4", "8", "4", "4", "4", "4"]


def test_a_forced_run_that_is_stopped(tmp_path: Path) -> None:
    """No old picture passes for one of the new run, nor the other way round."""
    fill(tmp_path, SETTINGS, shade=1)
    fill(tmp_path, SETTINGS | {"seed": 5, "n": 4}, 1, force=True, shade=2)
    assert [(row["index"], row["seed"]) for row in rows(tmp_path)] == [("4", "4"), ("5", "4"), ("0", "5")]
    fill(tmp_path, SETTINGS | {"seed": 5, "n": 4}, shade=3)
    assert [row["seed"] for row in rows(tmp_path)] == ["5", "5", "5", "5", "4", "4"]
    shades = [shade_of(tmp_path / f"{k:06d}.png") for k in range(6)]
    assert shades == [2, 3, 3, 3, 1, 1]


@pytest.mark.parametrize(
    "tail", ["000009.png,9,4,a.jp", '000009.png,9,4,"a\nb.jpg', "000009.png,9,4,a,b,c\r", '"', "x"]
)
def test_a_row_that_was_cut_short(tmp_path: Path, tail: str) -> None:
    fill(tmp_path, SETTINGS | {"n": 20}, 3)
    with (tmp_path / INDEX).open("a", newline="") as file:
        file.write(tail)
    (tmp_path / "000009.png").write_bytes(b"old")
    with writing(tmp_path, SETTINGS | {"n": 20}, force=False) as output:
        assert output.missing == list(range(3, 20))
    assert numbers(tmp_path) == [0, 1, 2]


def test_names_of_every_kind(tmp_path: Path) -> None:
    """Commas, quotes, line ends, and bytes that are not UTF-8, also after going on."""
    odd = (Path('a,"b".jpg'), Path("two\nlines\r\u2028.jpg"), Path(os.fsdecode(b"caf\xe9.jpg")))
    for _ in range(2):
        with writing(tmp_path, SETTINGS, force=False) as output:
            for number in output.missing[:3]:
                output.add(number, np.zeros((4, 4, 3), np.uint8), 4, odd, CLASSES)
    assert numbers(tmp_path) == [0, 1, 2, 3, 4, 5]
    for row in rows(tmp_path):
        assert (row["shape"], row["texture"], row["background"]) == tuple(map(str, odd))
        assert os.fsencode(row["background"]) == b"caf\xe9.jpg"


def test_an_index_of_something_else(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text("name,label\nx,1\n")
    fill(tmp_path, SETTINGS, force=True)
    assert numbers(tmp_path) == [0, 1, 2, 3, 4, 5]


def test_what_a_killed_run_leaves_is_removed(tmp_path: Path) -> None:
    for name in (
        ".000003.png.12.0a1b2c3d.tmp",
        ".index.csv.12.0a1b2c3d.tmp",
        "..cgnrt-real.json.12.0a1b2c3d.tmp",
    ):
        (tmp_path / name).write_bytes(b"x")
    fill(tmp_path, SETTINGS)
    assert {path.name for path in tmp_path.iterdir()} == {INDEX, *pictures_of(tmp_path)}


def test_two_runs_at_once(tmp_path: Path) -> None:
    with (
        writing(tmp_path, SETTINGS, force=False),
        pytest.raises(CgnrtError, match="the folder is in use by another run"),
        writing(tmp_path, SETTINGS, force=True),
    ):
        pass


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff" * 40])
def test_a_damaged_note(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path, SETTINGS, 1)
    (tmp_path / UNFINISHED).write_bytes(content)
    with (
        pytest.raises(CgnrtError, match=r"\.cgnrt-real\.json is damaged\. Remove it"),
        writing(tmp_path, SETTINGS, force=True),
    ):
        pass


def test_an_index_that_is_a_link(tmp_path: Path) -> None:
    """What it leads to is not written to."""
    precious = tmp_path / "precious"
    precious.write_text("kept")
    out = tmp_path / "out"
    out.mkdir()
    for name in (INDEX, "000000.png"):
        (out / name).symlink_to(precious)
    fill(out, SETTINGS, force=True)
    assert precious.read_text() == "kept"
    assert numbers(out) == [0, 1, 2, 3, 4, 5]


def test_an_interrupt_between_a_picture_and_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cgnrt._support import files

    publish = files.publish

    def interrupted(*arguments: Any, **options: Any) -> None:
        publish(*arguments, **options)
        if len(pictures_of(tmp_path)) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, SETTINGS)
    assert numbers(tmp_path) == [0, 1]
    assert len(pictures_of(tmp_path)) == 2


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is written by halves is mended."""
    with writing(tmp_path, SETTINGS, force=False) as output:
        output.add(0, np.zeros((4, 4, 3), np.uint8), 4, PARTS, CLASSES)
        write, calls = os.write, []

        def half(handle: int, data: bytes) -> int:
            calls.append(data)
            if len(calls) == 2:
                raise OSError(28, "No space left on device")
            return write(handle, data[: len(data) // 2])

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(
            CgnrtError, match=r"No space left on device, expected a writable place\. Run the same command"
        ):
            output.add(1, np.zeros((4, 4, 3), np.uint8), 4, PARTS, CLASSES)
        monkeypatch.undo()
    with writing(tmp_path, SETTINGS, force=False) as output:
        assert output.missing == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_stopped_goes_on(
    stop: signal.Signals, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, masks = folders
    whole, out = tmp_path / "whole", tmp_path / "out"
    options = ["--masks", masks, "-n", 60, "--start", 3, "--seed", 4, "--size", 128]
    assert run(pictures, *options, "-o", whole) == 0
    program = "import sys; from cgnrt.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "real", *map(str, [pictures, *options, "-o", out])]
    for least in (5, 20):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_for_pictures(out, least, process)
        process.send_signal(stop)
        _, told = process.communicate()
        if process.returncode == 0:  # it was faster
            break
        assert "interrupted" in told or stop == signal.SIGKILL
        names = {row["file"] for row in rows(out)}
        there = set(pictures_of(out))
        assert names <= there
        assert len(there - names) <= (stop == signal.SIGKILL)  # the one that it was writing
        assert (out / UNFINISHED).exists()
    capsys.readouterr()
    if (out / UNFINISHED).exists():
        assert run(pictures, *options, "--seed", 5, "-o", out) == 1
        assert "seed is 5, expected 4, as in the unfinished run of this folder." in capsys.readouterr().err
        assert run(pictures, *options, "-o", out) == 0
    assert (out / INDEX).read_bytes() == (whole / INDEX).read_bytes()
    assert pictures_of(out) == pictures_of(whole)
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}


def wait_for_pictures(folder: Path, least: int, process: subprocess.Popen[str]) -> None:
    for _ in range(6000):
        if process.poll() is not None or len(list(folder.glob("*.png"))) >= least:
            return
        time.sleep(0.01)
    raise TimeoutError


def test_other_photos_are_another_run(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, masks = folders
    out = tmp_path / "out"
    options = [pictures, "--masks", masks, "-o", out, "--size", 64]
    assert run(*options) == 0
    # As a stopped run leaves it.
    names = {"start": 0, "n": 5, "seed": 0, "swap": ["texture", "background"], "size": 64, "photos": "others"}
    (out / UNFINISHED).write_text(json.dumps(names | {"stream_version": 1}))
    assert run(*options) == 1
    assert (
        "expected others, as in the unfinished run of this folder. Give the same photos"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("flag", ["--masks", "photos"])
def test_a_photo_whose_name_is_not_utf8(flag: str, folders: tuple[Path, Path], tmp_path: Path) -> None:
    pictures, masks = folders
    odd = os.fsdecode(b"caf\xe9")
    (pictures / "1.png").rename(pictures / f"{odd}.png")
    (masks / "1.png").rename(masks / f"{odd}.png")
    if flag == "--masks":
        masks = masks.rename(tmp_path / odd)
    else:
        pictures = pictures.rename(tmp_path / odd)
    out = tmp_path / "out"
    assert run(pictures, "--masks", masks, "-o", out, "--size", 64) == 0
    assert {row["shape"] for row in rows(out)} == {str(path) for path in pictures.iterdir()}
