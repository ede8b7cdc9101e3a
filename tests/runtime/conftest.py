from __future__ import annotations

from pathlib import Path

import pytest

from cgnrt import Generator

# Chunks of different sizes take different kernels in the engines: fp32 sums in another order.
ENGINE_TOLERANCE = 2e-5


@pytest.fixture(scope="session")
def gen(golden_plan: Path) -> Generator:
    return Generator(golden_plan)


@pytest.fixture(params=["openvino", "onnxruntime"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)
