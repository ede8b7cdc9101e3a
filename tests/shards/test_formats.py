"""Data sets as their readers find them: webdataset, pyarrow, NumPy."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import tarfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from cgnrt import Generator, shards
from cgnrt.batch import Batch
from cgnrt.shards.formats import FORMATS, Format, ShardContent, Storage, StoredBatch

from .conftest import SHARD_SIZE, Make, N, contents


def expected(pixels: Generator, **options: Any) -> Batch:
    return pixels.sample(N, seed=5, **options)


def samples(folder: Path, *, decode: str | None = None) -> list[dict[str, Any]]:
    """What WebDataset reads."""
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files to the garbage collector
        pipeline = webdataset.WebDataset(urls, shardshuffle=False)
        found = list(pipeline if decode is None else pipeline.decode(decode))
        del pipeline
        gc.collect()
    return found


def decoded(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def test_webdataset_reads_every_sample(whole: Path, pixels: Generator) -> None:
    found = samples(whole)
    batch = expected(pixels)
    assert [s["__key__"] for s in found] == [f"{k:012d}" for k in range(N)]
    np.testing.assert_array_equal([decoded(s["webp"]) for s in found], batch.images)
    rows = [json.loads(s["json"]) for s in found]
    for mechanism, labels in batch.labels._asdict().items():
        assert [row[mechanism] for row in rows] == labels.tolist()
        names = pixels.classes[mechanism]
        assert [row[f"{mechanism}_name"] for row in rows] == [names[label] for label in labels]
    assert [(row["index"], row["seed"]) for row in rows] == [(k, 5) for k in range(N)]


def test_webdataset_decodes_without_being_told_how(whole: Path, pixels: Generator) -> None:
    found = samples(whole, decode="rgb8")
    np.testing.assert_array_equal([s["webp"] for s in found], expected(pixels).images)
    assert [s["json"]["index"] for s in found] == list(range(N))


@pytest.mark.parametrize("image", ["png", "raw", "jpeg"])
def test_webdataset_with_masks(make: Make, pixels: Generator, tmp_path: Path, image: str) -> None:
    make(tmp_path, image=image, masks=True)
    batch = expected(pixels, parts=True)
    found = samples(tmp_path)
    raw = image == "raw"
    extension = {"png": "png", "raw": "npy", "jpeg": "jpg"}[image]
    read = (lambda content: np.load(io.BytesIO(content), allow_pickle=False)) if raw else decoded
    images = np.stack([read(s[extension]) for s in found]).astype(int)
    # JPEG of strong edges at 32 px.
    assert np.abs(images - batch.images).mean() <= (4 if image == "jpeg" else 0)
    masks = np.stack([read(s["mask.npy" if raw else "mask.png"]) for s in found])
    np.testing.assert_array_equal(masks, np.rint(batch.mask[:, 0] * 255).astype(np.uint8))
    assert shards.verify(tmp_path, deep=True) == []


def test_the_tar_is_plain(whole: Path) -> None:
    path = whole / "shard-000004.tar"
    with tarfile.open(path, "r:") as archive:
        members = archive.getmembers()
    assert len(members) == 2 * (N - 4 * SHARD_SIZE)
    assert {(m.mtime, m.uid, m.gid, m.uname, m.mode, m.type) for m in members} == {
        (0, 0, 0, "", 0o644, tarfile.REGTYPE)
    }
    assert path.stat().st_size % 512 == 0


@pytest.mark.parametrize("image", ["webp", "raw"])
def test_parquet(make: Make, pixels: Generator, tmp_path: Path, image: str) -> None:
    make(tmp_path, format="parquet", image=image, masks=True, start=7)
    batch = expected(pixels, start=7, parts=True)
    table = pq.read_table(sorted(tmp_path.glob("*.parquet")))
    assert table.column("index").to_pylist() == list(range(7, 7 + N))
    assert set(table.column("seed").to_pylist()) == {5}
    for mechanism, labels in batch.labels._asdict().items():
        assert table.column(mechanism).to_pylist() == labels.tolist()
        names = [pixels.classes[mechanism][label] for label in labels]
        assert table.column(f"{mechanism}_name").to_pylist() == names
    found = {}
    for name in ("image", "mask"):
        chunks = table.column(name).chunks
        if image == "raw":
            found[name] = np.concatenate([chunk.to_numpy_ndarray() for chunk in chunks])
        else:
            found[name] = np.stack([decoded(value) for chunk in chunks for value in chunk.to_pylist()])
    np.testing.assert_array_equal(found["image"], batch.images)
    np.testing.assert_array_equal(found["mask"], np.rint(batch.mask[:, 0] * 255).astype(np.uint8))
    assert shards.verify(tmp_path, deep=True) == []


def test_npz(make: Make, pixels: Generator, tmp_path: Path) -> None:
    make(tmp_path, format="npz", masks=True)
    batch = expected(pixels, parts=True)
    files = [np.load(path, allow_pickle=False) for path in sorted(tmp_path.glob("*.npz"))]
    joined = {name: np.concatenate([file[name] for file in files]) for name in files[0].files}
    for file in files:
        file.close()
    np.testing.assert_array_equal(joined["images"], batch.images)
    np.testing.assert_array_equal(joined["indices"], batch.indices)
    np.testing.assert_array_equal(joined["masks"], np.rint(batch.mask[:, 0] * 255).astype(np.uint8))
    assert set(joined["seed"].tolist()) == {5}
    for mechanism, labels in batch.labels._asdict().items():
        np.testing.assert_array_equal(joined[f"labels_{mechanism}"], labels)
        assert joined[f"classes_{mechanism}"][:10].tolist() == list(pixels.classes[mechanism])
    assert shards.verify(tmp_path, deep=True) == []


@pytest.mark.parametrize(
    "options",
    [
        {"do": {"texture": 3}, "classes": {"shape": [1, 2]}},
        {"pool": (5, 6, 7)},
        {"pool": 9, "refresh": 3},
        {"pool": 1, "refresh": 1},
        {"per_noise": 10, "start": 3},
        {"labels": "shared"},
    ],
    ids=str,
)
def test_sampling_options(make: Make, pixels: Generator, tmp_path: Path, options: dict[str, Any]) -> None:
    manifest = make(tmp_path, image="raw", **options)
    batch = expected(pixels, **options)
    found = samples(tmp_path)
    images = [np.load(io.BytesIO(s["npy"]), allow_pickle=False) for s in found]
    np.testing.assert_array_equal(images, batch.images)
    assert [json.loads(s["json"])["shape"] for s in found] == batch.labels.shape.tolist()
    assert manifest.header["samples"]["start"] == options.get("start", 0)


def test_the_manifest_says_what_it_is(whole: Path, pixels: Generator) -> None:
    content = json.loads((whole / "manifest.json").read_text())
    assert content["plan"] == {
        "name": "double-colored.plan",
        "sha256": pixels.plan.digest,
        "resolution": [32, 32],
    }
    assert content["engine"] == {
        "backend": pixels.backend,
        "device": "cpu",
        "precision": pixels.precision,
        "threads": 1,
    }
    assert content["samples"]["n"] == N
    assert content["samples"]["seed"] == 5
    assert content["made_with"][0]["cgnrt"]
    assert [s["count"] for s in content["shards"]] == [16, 16, 16, 16, 6]
    assert [s["first"] for s in content["shards"]] == [0, 16, 32, 48, 64]
    for shard in content["shards"]:
        raw = (whole / shard["name"]).read_bytes()
        assert (len(raw), hashlib.sha256(raw).hexdigest()) == (shard["size_bytes"], shard["sha256"])
    assert set(contents(whole)) == {"manifest.json", *(shard["name"] for shard in content["shards"])}


class Lines(Format):
    """A format of a module elsewhere: JSON with the raw picture in hexadecimal digits."""

    name, suffix, images, description = "lines", ".lines2", ("raw",), "lines of text"

    def write(self, path: Path, content: ShardContent, batches: Iterable[StoredBatch]) -> None:
        with path.open("w") as file:
            for batch in batches:
                for row, image in zip(batch.rows(content), batch.images, strict=True):
                    file.write(json.dumps(row | {"picture": image.tobytes().hex()}) + "\n")

    def read(self, path: Path, storage: Storage) -> Iterator[dict[str, Any]]:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            yield row | {"picture": np.frombuffer(bytes.fromhex(row["picture"]), np.uint8).reshape(32, 32, 3)}


def test_a_format_needs_nothing_but_its_line_in_the_registry(
    make: Make, pixels: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "lines", Lines())
    manifest = make(tmp_path, format="lines")
    assert manifest.storage.image == "raw"
    assert shards.verify(tmp_path, deep=True) == []
    whole = contents(tmp_path)
    assert sorted(whole) == ["manifest.json", *(f"shard-{k:06d}.lines2" for k in range(5))]
    found = [
        row["picture"]
        for k in range(5)
        for row in Lines().read(tmp_path / f"shard-{k:06d}.lines2", manifest.storage)
    ]
    np.testing.assert_array_equal(found, expected(pixels).images)
    (tmp_path / "shard-000003.lines2").unlink()
    make(tmp_path, format="lines", note=print)
    assert contents(tmp_path) == whole
    with pytest.raises(ValueError, match="image is 'png', expected raw for format lines"):
        make(tmp_path, format="lines", image="png")


@pytest.mark.parametrize("format", ["webdataset", "parquet", "npz"])
def test_of_nothing(make: Make, tmp_path: Path, format: str) -> None:
    manifest = make(tmp_path, n=0, format=format)
    assert manifest.shards == ()
    assert list(contents(tmp_path)) == [FORMATS[format].manifest]
    assert shards.verify(tmp_path) == []


@pytest.mark.parametrize("format", ["webdataset", "parquet", "npz"])
def test_the_same_bytes_from_any_number_of_processes(make: Make, tmp_path: Path, format: str) -> None:
    for processes in (1, 3):
        make(tmp_path / str(processes), format=format, processes=processes, masks=True)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def test_a_renewing_pool_does_not_know_the_shard_before(make: Make, tmp_path: Path) -> None:
    """By an engine whose last bits depend on what it computes together."""
    options: dict[str, Any] = {"pool": 8, "refresh": 3, "backend": "openvino", "image": "raw"}
    make(tmp_path / "a", **options)
    make(tmp_path / "b", **options)
    (tmp_path / "b" / "shard-000002.tar").unlink()
    make(tmp_path / "b", **options, note=print)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
