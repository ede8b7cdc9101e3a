"""Modules of `bench/`, imported and forgotten."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def module(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """A module of `bench/` by name; they leave no trace, for their names are short."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(root / "bench")
    yield importlib.import_module
    for name in set(sys.modules) - before:
        spec = getattr(sys.modules[name], "__spec__", None)
        places = () if spec is None else (spec.origin, *(spec.submodule_search_locations or ()))
        if any(Path(place).is_relative_to(root / "bench") for place in places if place):
            del sys.modules[name]
