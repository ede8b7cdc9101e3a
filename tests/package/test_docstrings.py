"""What docstrings tell a user to type: Python blocks run, commands have the options that they name."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pytest
import torch
from many_classes import imagenet_sized
from page_commands import unknown_options
from page_inputs import bright_objects, write_photos

import cgnrt
from cgnrt import real

ROOT = pages.ROOT
PACKAGES = ("python/cgnrt", "training/cgnrt_training", "export/cgnrt_export")


def docstrings() -> Iterator[tuple[str, str]]:
    """Name and text of every docstring of the packages."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to((ROOT / package).parent).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
                    text := ast.get_docstring(node)
                ):
                    name = [
                        module.removesuffix(".__init__"),
                        *([] if isinstance(node, ast.Module) else [node.name]),
                    ]
                    yield ".".join(name), f"{text}\n"


def a_cgn(folder: Path) -> dict[str, Any]:
    (folder / "cgn.plan").symlink_to(ROOT / "plans/double-colored.plan")
    return {}


def options(folder: Path) -> dict[str, Any]:
    return {"generator": cgnrt.Generator(imagenet_sized(ROOT, folder / "cgn.plan"))}


def pictures(folder: Path) -> dict[str, Any]:
    """The folder `photos/`, the same size of photos in memory, and a plan that finds objects."""
    write_photos(folder, ("cat", "dog"), per_class=2)
    (folder / "images").rename(folder / "photos")
    bright_objects(folder / "u2netp.plan")
    y, x = np.mgrid[:64, :64]
    masks = np.stack([(y - 32) ** 2 + (x - 24 - 4 * k) ** 2 < 14**2 for k in range(4)])
    photos = np.where(masks[..., None], 220, 30).astype(np.uint8) + np.zeros(3, np.uint8)
    return {**a_cgn(folder), "photos": photos, "masks": masks, "labels": [0, 0, 1, 1], "step": 0}


def an_ensemble(folder: Path) -> dict[str, Any]:
    (folder / "cgn.plan").symlink_to(ROOT / "plans/imagenette64.plan")
    with cgnrt.Generator(folder / "cgn.plan") as generator:
        batch = generator.sample(4, seed=0).torch()
    layers = torch.nn.Conv2d(3, 512, 3, 2), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    network = torch.nn.Sequential(*layers)
    return {"my_network": network, "photos": batch.images, "labels": batch.labels.shape, "batch": batch}


# What a docstring's block takes for given, and what is made small in it.
GIVEN: dict[str, tuple[Callable[[Path], dict[str, Any]], dict[str, str]]] = {
    "cgnrt": (a_cgn, {}),
    "cgnrt.banks": (pictures, {"10_000": "40"}),
    "cgnrt.real": (pictures, {}),
    "cgnrt.real.swap.Exchange": (pictures, {"n=256": "n=4"}),
    "cgnrt.request.options.SampleOptions": (options, {"10_000": "128"}),
    "cgnrt.shards": (a_cgn, {"1_000_000": "64"}),
    "cgnrt_training.ensemble.model.Ensemble": (an_ensemble, {'"cgn.plan")': '"cgn.plan", 4)'}),
}
NOT_RUN = {"cgnrt_export": "shows the form of the call: docs/names.md has the whole of it"}
BLOCKS = [
    (name, block.text)
    for name, text in docstrings()
    for block in pages.blocks(text)
    if pages.looks_like_python(block.text) and name not in NOT_RUN
]


def test_all_of_them_are_known() -> None:
    assert sorted(name for name, _ in BLOCKS) == sorted(GIVEN)


@pytest.mark.parametrize(("name", "text"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_python_blocks_run(name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given, small = GIVEN[name]
    for told, replaced in small.items():
        assert told in text
        text = text.replace(told, replaced)
    module = name if name in sys.modules else name.rpartition(".")[0]
    exec(text, {**vars(importlib.import_module(module)), "cgnrt": cgnrt, "real": real, **given(tmp_path)})


def test_commands_have_the_options_that_they_name() -> None:
    found = [
        (name, span)
        for name, text in docstrings()
        for span in pages.spans(text)
        if re.match(r"cgnrt(-train|-export)? ", span)
    ]
    assert found
    assert [
        f"{name}: {span}: {wrong}" for name, span in found for wrong in unknown_options(span.split())
    ] == []
