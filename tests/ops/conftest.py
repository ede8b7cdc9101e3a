"""What the tests of the ops share: every implementation, and references in plain NumPy."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from compose_cases import CASES, ComposeCase

from cgnrt import _core

HERE = Path(__file__).parent
IMPLEMENTATIONS: list[str] = ["reference", *_core.build_info()["cpu"]["isas"]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES, ids=[case["name"] for case in CASES])
    if "implementation" in metafunc.fixturenames:
        metafunc.parametrize("implementation", IMPLEMENTATIONS)


@pytest.fixture
def compose_case(case: dict[str, Any]) -> ComposeCase:
    return ComposeCase(case)


@pytest.fixture(scope="session")
def noise_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("noise_reference", HERE / "noise_reference.py")
    if spec is None or spec.loader is None:
        raise RuntimeError("noise_reference.py is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
