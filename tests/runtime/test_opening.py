"""What is read once: each graph of a plan is parsed once, by whatever backend it is run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt import Generator
from cgnrt.backends import BACKENDS
from cgnrt.backends.native.deep import compile_pictures
from cgnrt.backends.native.layers import compile_layers
from cgnrt.plan.onnx.model import parse_model
from cgnrt.real import Saliency

SMALL_CGN = Path(__file__).parent / "golden" / "small_cgn.plan"


def counted(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]) -> list[Any]:
    """The first argument of every call of a function, from whatever module it is called."""
    calls: list[Any] = []

    def call(first: Any, *rest: Any) -> Any:
        calls.append(first)
        return function(first, *rest)

    for module in list(sys.modules.values()):
        if getattr(module, function.__name__, None) is function:
            monkeypatch.setattr(module, function.__name__, call)
    return calls


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The graphs that `parse_model` was called with."""
    for name in BACKENDS:
        assert BACKENDS[name].backend  # imports its module
    return counted(monkeypatch, parse_model)


@pytest.mark.parametrize("backend", ["native", "openvino", "onnxruntime", "auto"])
@pytest.mark.parametrize("name", ["double-colored", "small_cgn"])
def test_each_graph_is_parsed_once(name: str, backend: str, demo_plan: Path, parsed: list[bytes]) -> None:
    path = demo_plan.with_name("double-colored.plan") if name == "double-colored" else SMALL_CGN
    gen = Generator(path, backend=backend, device="cpu", precision="fp32")
    gen.sample(2, seed=0)
    gen.with_threads(1).sample(2, seed=0)
    assert len(parsed) == len(set(parsed)) == 3


def test_the_graph_of_photos_is_parsed_once(golden_saliency_plan: Path, parsed: list[bytes]) -> None:
    saliency = Saliency(golden_saliency_plan)
    shape = (1, 3, *saliency.plan.manifest.resolution)
    saliency(np.zeros(shape, np.uint8))
    assert len(parsed) == 1


@pytest.mark.parametrize("compiler", [compile_layers, compile_pictures])
def test_the_native_backend_compiles_each_graph_once(
    compiler: Callable[..., Any], demo_plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the choice of a backend compiled is what is loaded, also for another number of threads."""
    compiled = counted(monkeypatch, compiler)
    gen = Generator(demo_plan if compiler is compile_layers else SMALL_CGN, backend="native", device="cpu")
    gen.sample(1, seed=0)
    gen.with_threads(1).sample(1, seed=0)
    assert [network.name for network in compiled] == ["shape", "texture", "background"]
