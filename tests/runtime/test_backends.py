"""The choice of an engine: never silent, never another than the one asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt import BackendError, Generator, MissingDependencyError
from cgnrt.backends import BACKENDS, choose, load_engine, supports
from cgnrt.plan import Plan


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        missing = replace(BACKENDS[name], packages=("no_such_package",))
        monkeypatch.setitem(BACKENDS, name, missing)


def refusing(monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str | None]) -> None:
    for entry in BACKENDS.values():
        monkeypatch.setattr(entry.backend, "refusal", refusal)


def test_auto_takes_the_fastest_and_says_why(golden_plan: Path) -> None:
    gen = Generator(golden_plan)
    assert (gen.backend, gen.device) == ("openvino", "cpu")
    assert gen.reason.startswith("the fastest of native, openvino, onnxruntime")
    assert (
        "not fp32 on native: mechanism 'shape': the native engine for small generators does not support operator"
        in gen.reason
    )
    assert gen.reason in repr(gen)


def test_auto_takes_what_is_installed(golden_plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "openvino")
    gen = Generator(golden_plan)
    assert gen.backend == "onnxruntime"
    assert gen.reason.startswith("the fastest of native, onnxruntime")


def test_nothing_installed(golden_plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, *(name for name, entry in BACKENDS.items() if entry.packages))
    with pytest.raises(MissingDependencyError, match=r"only the native engine.*pip install 'cgnrt\[cpu\]'"):
        Generator(golden_plan)


def test_a_missing_backend_asked_for_by_name_is_an_error(
    golden_plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "openvino")
    with pytest.raises(
        MissingDependencyError, match=r"backend .openvino. is not installed. Run: pip install"
    ):
        Generator(golden_plan, backend="openvino")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"backend": "tvm"},
            "backend is 'tvm', expected 'auto' or one of native, openvino, tensorrt, torch, onnxruntime",
        ),
        ({"precision": "int4"}, "precision is 'int4', expected 'auto' or one of fp32, bf16, fp16"),
        ({"precision": "f16"}, "Did you mean 'fp16'"),
        ({"backend": "onnx"}, "Did you mean 'onnxruntime'"),
        ({"device": "tpu"}, "device is 'tpu', expected 'auto', 'cpu', 'cuda'"),
    ],
)
def test_unknown_names(golden_plan: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Generator(golden_plan, **options)


def test_a_precision_asked_for_by_name_is_not_exchanged(golden_plan: Path) -> None:
    with pytest.raises(BackendError, match="bf16 on onnxruntime: it has no bf16 kernels on the CPU"):
        Generator(golden_plan, backend="onnxruntime", precision="bf16")


def test_the_plans_precision_gives_way_to_fp32_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, lambda device, precision: None if precision == "fp32" else "no bf16 here")
    choice = choose("'x'", backend="openvino", default_precision="bf16")
    assert choice.precision == "fp32"
    assert "not bf16 on openvino: no bf16 here" in choice.reason


def test_the_plans_precision_is_taken_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, lambda device, precision: None)
    monkeypatch.setattr("cgnrt.backends.choice.has_amx", lambda: True)
    assert choose("'x'", default_precision="bf16").precision == "bf16"
    assert choose("'x'", default_precision="bf16", precision="fp32").precision == "fp32"


def test_without_amx_native_fp32_goes_before_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, lambda device, precision: None)
    monkeypatch.setattr("cgnrt.backends.choice.has_amx", lambda: False)
    choice = choose("'x'", default_precision="bf16")
    assert (choice.backend.name, choice.precision) == ("native", "fp32")
    assert "not bf16: fp32 on native is faster on this machine" in choice.reason


def test_openvino_refuses_bf16_only_where_the_processor_has_none() -> None:
    import openvino

    native = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert supports("openvino", "bf16") == native


def test_outputs_are_written_where_asked(golden_plan: Path, backend: str) -> None:
    with Plan.open(golden_plan) as plan:
        mechanism = plan.mechanisms["texture"]
        engine = load_engine(mechanism, backend=backend)
        noise = np.random.default_rng(0).standard_normal((3, mechanism.spec.noise.size)).astype(np.float32)
        inputs = {"noise": noise, "class_embedding": np.ascontiguousarray(mechanism.embedding[[0, 1, 2]])}
        expected = engine.run(inputs)["foreground"].copy()
        target = np.zeros_like(expected)
        assert engine.run(inputs, {"foreground": target})["foreground"] is target
        np.testing.assert_array_equal(target, expected)


def test_a_wrong_input_is_a_backend_error(golden_plan: Path, backend: str) -> None:
    with Plan.open(golden_plan) as plan:
        engine = load_engine(plan.mechanisms["shape"], backend=backend)
        with pytest.raises(BackendError, match=r"run(: O| 'shape': torch failed)"):
            engine.run(
                {"noise": np.zeros((1, 3), np.float32), "class_embedding": np.zeros((1, 1), np.float32)}
            )


def test_import_loads_neither_torch_nor_an_engine() -> None:
    code = (
        "import sys, cgnrt; "
        "heavy = {'torch', 'onnxruntime', 'openvino', 'onnx', 'tensorrt', 'PIL', 'tqdm'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
