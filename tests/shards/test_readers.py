"""Programs that are given the folder of a Parquet data set, not its files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from cgnrt import shards
from cgnrt.shards.formats import FORMATS
from cgnrt.shards.manifest import FORMAT

from .conftest import Make, N, contents
from .test_golden import GOLDEN


@pytest.fixture(scope="module")
def folder(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parquet") / "out"
    make(out, format="parquet", image="png", masks=True)
    return out


def test_arrow(folder: Path) -> None:
    table = pq.read_table(folder)
    assert table["index"].to_pylist() == list(range(N))
    assert pyarrow.dataset.dataset(folder).count_rows() == N
    assert pd.read_parquet(folder)["index"].tolist() == list(range(N))


def test_arrow_with_raw_images(make: Make, tmp_path: Path) -> None:
    make(tmp_path, format="parquet", image="raw")
    table = pq.read_table(tmp_path)
    images = table["image"].combine_chunks().to_numpy_ndarray()
    assert images.shape == (N, 32, 32, 3)


READ = """
import sys
import datasets
for given in ({"path": sys.argv[1]}, {"path": "parquet", "data_dir": sys.argv[1]}):
    found = datasets.load_dataset(**given, split="train", cache_dir=sys.argv[2])
    print(found["index"][:] == list(range(len(found))), len(found), found.features["texture_name"].dtype)
"""


def test_hugging_face(folder: Path, tmp_path: Path) -> None:
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(folder), str(tmp_path / "cache")],
        capture_output=True, text=True, check=False, timeout=300, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"True {N} string\n" * 2


def test_what_has_no_part_in_it_has_a_name_that_is_passed_over(folder: Path) -> None:
    others = [name for name in contents(folder) if not name.endswith(".parquet")]
    assert others == [".manifest.json"]
    assert shards.verify(folder, deep=True) == []


def test_a_folder_of_an_earlier_version(make: Make, folder: Path, tmp_path: Path) -> None:
    """Its manifest keeps its name while nothing is written, and gets the new one when a shard is made again."""
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    (old / ".manifest.json").rename(old / "manifest.json")
    assert shards.verify(old, deep=True) == []
    options = {"format": "parquet", "image": "png", "masks": True, "note": print}
    make(old, **options)
    assert "manifest.json" in contents(old)
    (old / "shard-000001.parquet").unlink()
    assert shards.verify(old) == ["shard-000001.parquet: cannot be read (No such file or directory)"]
    make(old, **options)
    assert contents(old) == contents(folder)
    with pytest.raises(Exception, match="Parquet"):
        pq.read_table(GOLDEN / "parquet")  # what they were


def test_force_leaves_what_is_not_a_manifest_of_ours(make: Make, tmp_path: Path) -> None:
    make(tmp_path, format="parquet")
    notes = {"format": "notes"}
    (tmp_path / "manifest.json").write_text(json.dumps(notes))
    make(tmp_path, format="parquet", seed=6, force=True)
    assert json.loads((tmp_path / "manifest.json").read_text()) == notes
    assert shards.Manifest.read(tmp_path).header["samples"]["seed"] == 6


def test_every_format_has_a_manifest_that_is_found(make: Make, tmp_path: Path) -> None:
    for name, format in FORMATS.items():
        make(tmp_path / name, format=name, n=1)
        content = json.loads((tmp_path / name / format.manifest).read_text())
        assert content["format"] == FORMAT
