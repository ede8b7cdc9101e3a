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
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(root / "bench")):
            del sys.modules[name]
