from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from cgnrt import Generator

# Chunks of different sizes take different kernels in the engines: fp32 sums in another order.
ENGINE_TOLERANCE = 2e-5


class EnginePlan(NamedTuple):
    """An engine and a plan that it runs; `tolerance` between two of its runs, split into other batches."""

    backend: str
    plan: Path
    tolerance: float


@pytest.fixture(scope="session")
def gen(golden_plan: Path) -> Generator:
    return Generator(golden_plan)


@pytest.fixture(params=["openvino", "onnxruntime"])
def backend(request: pytest.FixtureRequest) -> str:
    """The engine libraries, which run every plan."""
    return str(request.param)


@pytest.fixture(params=["native", "openvino", "onnxruntime"])
def engine_plan(request: pytest.FixtureRequest, golden_plan: Path, demo_plan: Path) -> EnginePlan:
    """Every engine; the native one has no layers for the golden plan and computes each image by itself."""
    if request.param == "native":
        return EnginePlan("native", demo_plan, 0)
    return EnginePlan(str(request.param), golden_plan, ENGINE_TOLERANCE)


@pytest.fixture(scope="session")
def make_golden(golden_plan: Path) -> ModuleType:
    """The script behind the golden plan, for plans like it."""
    spec = importlib.util.spec_from_file_location("make_golden", golden_plan.parent / "make_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
