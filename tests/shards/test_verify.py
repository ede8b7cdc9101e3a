"""What `verify` finds, one test a finding."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from special_files import KINDS, at_once, make_special

from cgnrt import shards
from cgnrt.cli import main
from cgnrt.errors import CgnrtError, printable
from cgnrt.shards.journal import JOURNAL
from cgnrt.shards.maker import checksum
from cgnrt.shards.manifest import find_manifest

from .conftest import Make

SHARD = "shard-000001.tar"


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A data set to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "out"))


def sign(folder: Path, name: str = SHARD) -> None:
    """Make the manifest agree with a shard that was changed."""

    def change(content: dict[str, Any]) -> None:
        for shard in content["shards"]:
            if shard["name"] == name:
                shard["size_bytes"], shard["sha256"] = checksum(folder / name)

    edit(folder, change)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = find_manifest(folder)
    assert path is not None
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def rewrite(path: Path, change: Callable[[list[tuple[str, bytes]]], object]) -> None:
    """A tar with other members."""
    with tarfile.open(path) as archive:
        members = [(m.name, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]
    change(members)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_a_good_one(folder: Path) -> None:
    seen: list[int] = []
    assert shards.verify(folder, deep=True, progress=seen.append) == []
    assert seen == [16, 16, 16, 16, 6]


def test_a_changed_byte(folder: Path) -> None:
    raw = bytearray((folder / SHARD).read_bytes())
    raw[700] ^= 1
    (folder / SHARD).write_bytes(raw)
    (found,) = shards.verify(folder)
    assert found.startswith(f"{SHARD}: SHA-256 is ")


def test_a_cut_shard(folder: Path) -> None:
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-512])
    (found,) = shards.verify(folder)
    assert found.startswith(f"{SHARD}: size is ")


def test_a_missing_shard(folder: Path) -> None:
    (folder / SHARD).unlink()
    assert shards.verify(folder) == [f"{SHARD}: cannot be read (No such file or directory)"]


def test_a_shard_too_many(folder: Path) -> None:
    shutil.copy(folder / SHARD, folder / "shard-000005.tar")
    assert shards.verify(folder) == ["shard-000005.tar: not in the manifest, but a loader may read it"]


def test_a_shard_less_in_the_manifest(folder: Path) -> None:
    edit(folder, lambda content: content["shards"].pop(1))
    assert shards.verify(folder) == [
        "the manifest has 4 shards, expected 5 in order",
        "shard-000002.tar: samples are 32..47, expected 16..31",
        "shard-000003.tar: samples are 48..63, expected 32..47",
        "shard-000004.tar: samples are 64..69, expected 48..63",
        f"{SHARD}: not in the manifest, but a loader may read it",
    ]


def test_exchanged_shards(folder: Path) -> None:
    (folder / "other").write_bytes((folder / "shard-000002.tar").read_bytes())
    (folder / "other").replace(folder / SHARD)
    sign(folder)
    assert shards.verify(folder) == [f"{SHARD}: sample 0: index is 32, expected 16"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": 17}, "member '000000000017.json' does not belong to the picture before it"),
        ({"seed": 6}, "sample 1: seed is 6, expected 5"),
        ({"shape": 10}, "sample 1: shape is 10, expected 0..9"),
        ({"texture_name": "mauve"}, "sample 1: texture_name is 'mauve', expected "),
    ],
)
def test_a_changed_label(folder: Path, change: dict[str, Any], message: str) -> None:
    def spoil(members: list[tuple[str, bytes]]) -> None:
        name, content = members[3]
        row = json.loads(content) | change
        if "index" in change:
            row["index"] += 1
        members[3] = (name, json.dumps(row).encode())

    rewrite(folder / SHARD, spoil)
    sign(folder)
    (found,) = shards.verify(folder)
    assert found.startswith(f"{SHARD}: {message}")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda members: members.pop(), "the last sample has no json"),
        (lambda members: members.__delitem__(slice(-2, None)), "samples are 15, expected 16"),
        (lambda members: members.pop(0), "does not belong to the picture before it"),
        (lambda members: members.__setitem__(1, ("000000000016.json", b"{")), "Expecting property name"),
    ],
)
def test_changed_members(folder: Path, spoil: Callable[[list[Any]], object], message: str) -> None:
    rewrite(folder / SHARD, spoil)
    sign(folder)
    (found,) = shards.verify(folder)
    assert message in found


def test_no_tar_at_all(folder: Path) -> None:
    (folder / SHARD).write_bytes(b"hello" * 300)
    sign(folder)
    (found,) = shards.verify(folder)
    assert found.startswith(f"{SHARD}: not a WebDataset shard")


@pytest.mark.parametrize("content", [b"RIFF", b""])
def test_a_picture_that_is_none_is_found_by_deep_alone(folder: Path, content: bytes) -> None:
    rewrite(folder / SHARD, lambda members: members.__setitem__(2, (members[2][0], content)))
    sign(folder)
    assert shards.verify(folder) == []
    (found,) = shards.verify(folder, deep=True)
    assert found.startswith(f"{SHARD}: sample 1: picture: not webp")


def test_a_picture_of_another_size(folder: Path) -> None:
    from PIL import Image

    target = io.BytesIO()
    Image.new("RGB", (8, 4)).save(target, "WEBP")
    rewrite(folder / SHARD, lambda members: members.__setitem__(2, (members[2][0], target.getvalue())))
    sign(folder)
    assert shards.verify(folder, deep=True) == [
        f"{SHARD}: sample 1: picture is uint8 (4, 8, 3), expected uint8 (32, 32, 3)"
    ]


@pytest.mark.parametrize("format", ["parquet", "npz"])
def test_the_other_formats(make: Make, tmp_path: Path, format: str) -> None:
    make(tmp_path, format=format)
    first, second = sorted(tmp_path.glob("shard-*"))[:2]
    second.write_bytes(first.read_bytes())
    sign(tmp_path, second.name)
    assert shards.verify(tmp_path) == [f"{second.name}: sample 0: index is 0, expected 16"]
    if format == "parquet":
        pq.write_table(pq.read_table(first).drop_columns(["seed"]), second)
    else:
        np.savez(second, images=np.zeros(3))
    sign(tmp_path, second.name)
    (found,) = shards.verify(tmp_path)
    assert found.startswith(
        f"{second.name}: {'sample 0: index' if format == 'parquet' else 'not a NumPy shard'}"
    )
    second.write_bytes(b"PK hello")
    sign(tmp_path, second.name)
    (found,) = shards.verify(tmp_path)
    assert found.startswith(f"{second.name}: not a {'Parquet' if format == 'parquet' else 'NumPy'} shard")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["shards"][0].update(name="../x.tar"), r"shards\[0\] is '../x.tar', expected the name"),
        (lambda c: c["shards"][0].update(count="16"), r"shards\[0\] is not a record, expected an object"),
        (lambda c: c["storage"].update(format="zip"), "storage.format is zip, expected one of"),
        (lambda c: c["storage"].update(shard_size=0), "too small"),
        (lambda c: c["samples"].pop("seed"), "samples.seed is None, expected int"),
        (lambda c: c.pop("classes"), "classes is missing"),
        (lambda c: c.pop("shards"), "shards is missing"),
        (lambda c: c.update(shards={}), "shards is not a list"),
    ],
)
def test_a_damaged_manifest(folder: Path, change: Callable[[Any], object], message: str) -> None:
    edit(folder, change)
    with pytest.raises(CgnrtError, match=message):
        shards.verify(folder)


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder), "--deep"]) == 0
    assert capsys.readouterr().out == f"{folder}: 70 samples in 5 shards, as the manifest says\n"
    (folder / SHARD).unlink()
    assert main(["verify", str(folder)]) == 1
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err == (
        f"cgnrt verify: verify '{folder}': problems found: 1\n"
        f"  {SHARD}: cannot be read (No such file or directory)\n"
    )
    assert main(["verify", str(folder / "nowhere")]) == 1
    assert "file is missing, expected the manifest of a data set" in capsys.readouterr().err


@pytest.mark.parametrize("size", [1, 10])
def test_more_samples_than_could_be_counted(folder: Path, size: int) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["samples"]["n"] = 10**12
    content["storage"]["shard_size"] = size
    path.write_text(json.dumps(content))
    with at_once():
        problems = shards.verify(folder)
    count = len(content["shards"])
    assert f"the manifest has {count} shards, expected {10**12 // size} in order" in problems
    head = {key: value for key, value in content.items() if key not in ("made_with", "shards")}
    (folder / JOURNAL).write_text(json.dumps(head) + "\n")
    with at_once():
        (problem,) = shards.verify(folder)
    assert problem.startswith("the run is not finished")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["manifest.json", JOURNAL])
def test_a_manifest_that_is_no_file(folder: Path, kind: str, name: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    make_special(kind, path)
    with at_once(), pytest.raises(CgnrtError, match="file is unreadable"):
        shards.verify(folder)


def test_values_of_a_manifest_do_not_steer_the_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["classes"]["shape"] = [f"\x1b[2J{name}" for name in content["classes"]["shape"]]
    path.write_text(json.dumps(content))
    assert main(["verify", str(folder)]) == 1
    found = "".join(capsys.readouterr())
    assert r"\x1b[2J" in found
    assert printable(found) == found


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("storage", "image", "gif", "storage.image is 'gif', expected one of webp, png, jpeg, raw"),
        ("storage", "image", "", "storage.image is '', expected one of"),
        ("storage", "cut", 0, "storage.cut or samples.start is too small"),
        ("samples", "start", -1, "storage.cut or samples.start is too small"),
        ("plan", "resolution", [32], r"plan.resolution is \[32\], expected two sizes"),
        ("plan", "resolution", [32, "x"], "plan.resolution is .*, expected two sizes"),
        ("plan", "resolution", [0, 32], "plan.resolution is .*, expected two sizes"),
        ("classes", "texture", [], r"classes.texture is \[\], expected a list of names"),
        ("classes", "texture", [1, 2], "classes.texture is .*, expected a list of names"),
        ("classes", "more", 5, "classes.more is 5, expected a list of names"),
        (None, "made_with", ["x"], "made_with is not objects"),
    ],
)
def test_values_that_nothing_writes(
    make: Make, folder: Path, part: str | None, name: str, value: Any, message: str
) -> None:
    edit(folder, lambda content: (content if part is None else content[part]).update({name: value}))
    with pytest.raises(CgnrtError, match=message):
        shards.verify(folder, deep=True)
    with pytest.raises(CgnrtError, match=message):
        make(folder)
