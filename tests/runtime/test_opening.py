"""What is read once in a process: a plan is opened and hashed once, and each of its graphs is parsed once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt import Generator, audit, shards
from cgnrt.backends import BACKENDS
from cgnrt.backends.native.backend import compile_layers
from cgnrt.backends.native.deep import compile_pictures
from cgnrt.cli import main
from cgnrt.plan import Plan
from cgnrt.plan.onnx.model import parse_model
from cgnrt.plan.reader import open_plan
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


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "PLAN", "-n", "4", "-o", "OUT/x.npz"],
        ["sheet", "PLAN", "-o", "OUT/x.png"],
        ["audit", "PLAN", "--", "numpy:argmax"],
        ["inspect", "PLAN"],
        ["generate", "PLAN", "-n", "4", "-o", "OUT/set", "--processes", "1"],
        ["generate", "PLAN", "-n", "4", "-o", "OUT/set", "--processes", "1", "--device", "cpu", "--force"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_opens_its_plan_once(
    arguments: list[str],
    demo_plan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "--force" in arguments:  # over another data set, whose options are compared first
        shards.generate(demo_plan, 4, tmp_path / "set", seed=1, processes=1, device="cpu")
    opened = counted(monkeypatch, open_plan)
    filled = [text.replace("PLAN", str(demo_plan)).replace("OUT", str(tmp_path)) for text in arguments]
    main(filled)
    assert opened == [str(demo_plan)], capsys.readouterr().err


def test_a_data_set_is_made_with_an_open_plan(
    demo_plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Plan.open(demo_plan) as plan:
        opened = counted(monkeypatch, open_plan)
        made = shards.generate(plan, 4, tmp_path, processes=1)
        assert opened == []
        assert made.header["plan"] == {
            "name": demo_plan.name,
            "sha256": plan.digest,
            "resolution": [32, 32],
        }


def test_an_audit_takes_an_open_plan(demo_plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Plan.open(demo_plan) as plan:
        opened = counted(monkeypatch, open_plan)
        found = audit(lambda images: np.zeros((len(images), 10), np.float32), plan, n=20)
        assert opened == []
        assert found.digest == plan.digest


def test_only_the_backend_that_runs_is_imported(demo_plan: Path) -> None:
    """Nor the compiler of the native engine for deep networks, which these graphs do not need."""
    code = (
        "import sys, cgnrt; cgnrt.Generator(sys.argv[1], device='cpu', backend='auto', precision='fp32').sample(1); "
        "print(*sorted(name for name in sys.modules if name.startswith('cgnrt.backends.')))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(demo_plan)], check=True, capture_output=True, text=True
    )
    assert run.stdout.split() == [
        f"cgnrt.backends.{name}"
        for name in (
            "base",
            "choice",
            "native",
            "native.backend",
            "native.graph",
            "native.periodic",
        )
    ]
