"""What has a file's name and is not a file is refused at once by training and by the exporter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from special_files import KINDS, at_once, make_special

from cgnrt.errors import CgnrtError
from cgnrt_export.cli import is_plan
from cgnrt_training.checkpoints import load_tensors, load_weights
from cgnrt_training.experiments.plots import read_results
from cgnrt_training.experiments.results import read_json
from cgnrt_training.imagenet.config_json import read_config
from cgnrt_training.mnist.idx import read_idx
from cgnrt_training.runs.folder import stored_settings
from cgnrt_training.settings import load_toml


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.pth", load_tensors),
        ("a.pth", load_weights),
        ("a.json", read_results),
        ("a.json", read_json),
        ("config.json", lambda path: read_config(path.parent)),
        ("a-ubyte", lambda path: read_idx(path, 3)),
        ("config.json", lambda path: stored_settings(path.parent, dict)),
        ("a.toml", lambda path: load_toml(path, "cgnrt_training.mnist")),
    ],
)
def test_readers(kind: str, name: str, read: Callable[[Any], object], tmp_path: Path) -> None:
    path = make_special(kind, tmp_path / name)
    with at_once(), pytest.raises((CgnrtError, ValueError), match=r"unreadable|damaged"):
        read(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_to_export_again(kind: str, tmp_path: Path) -> None:
    with at_once():
        assert not is_plan(make_special(kind, tmp_path / "a.plan"))
