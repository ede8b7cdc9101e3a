"""The choice between the CPU and a GPU: what "auto" takes, and what each refusal says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cgnrt import BackendError, Generator, MissingDependencyError, cuda
from cgnrt.backends import BACKENDS, Device, backends_for, choose
from cgnrt.backends.choice import Registration
from cgnrt.backends.onnxruntime import cuda as onnxruntime_cuda
from cgnrt.cli import main
from cgnrt.plan import Plan
from cgnrt.real import Saliency

NO_DRIVER = "no NVIDIA driver is loaded. Install one"


class FakeBackend:
    """A GPU's engine library."""

    def __init__(self, refusal: Callable[[Device, str], str | None]) -> None:
        self.refusal = refusal


def tensorrt(
    refusal: Callable[[Device, str], str | None] = lambda device, precision: None, installed: bool = True
) -> Registration:
    """TensorRT, as if it were installed."""
    packages = () if installed else ("no_such_package",)
    made: Any = FakeBackend(refusal)
    return replace(BACKENDS["tensorrt"], make=lambda: made, packages=packages)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with one GPU and TensorRT that runs all but bf16."""
    monkeypatch.setattr(
        cuda, "refusal", lambda index=0: None if index == 0 else f"devices are 1, not {index}"
    )
    runs = tensorrt(lambda device, precision: "no bf16" if precision == "bf16" else None)
    monkeypatch.setitem(BACKENDS, "tensorrt", runs)
    monkeypatch.setattr(onnxruntime_cuda, "refusal", lambda *_: "it is the CPU's package")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "refusal", lambda index=0: NO_DRIVER)


@pytest.mark.usefixtures("gpu")
def test_auto_takes_the_gpu_where_there_is_one() -> None:
    choice = choose("'x'", default_precision="fp16")
    assert (choice.backend.name, str(choice.device), choice.precision) == ("tensorrt", "cuda:0", "fp16")
    assert choice.reason == "the first that runs it of tensorrt, onnxruntime"


@pytest.mark.usefixtures("gpu")
def test_fp16_stands_in_for_bf16_and_says_so() -> None:
    choice = choose("'x'", device="cuda", default_precision="bf16")
    assert choice.precision == "fp16"
    assert "not bf16 on tensorrt: no bf16" in choice.reason
    with pytest.raises(BackendError, match="bf16 on tensorrt: no bf16"):
        choose("'x'", device="cuda", precision="bf16")


@pytest.mark.usefixtures("gpu")
def test_a_cpu_engine_asked_for_by_name_stays_on_the_cpu() -> None:
    choice = choose("'x'", backend="openvino")
    assert str(choice.device) == "cpu"
    assert choice.reason.endswith("; not on cuda:0: openvino runs on the CPU")
    with pytest.raises(BackendError, match="fp32 on openvino: it runs on the CPU, not on cuda:0"):
        choose("'x'", backend="openvino", device="cuda")
    with pytest.raises(BackendError, match="fp32 on tensorrt: it runs on CUDA devices, not on cpu"):
        choose("'x'", backend="tensorrt", device="cpu")


@pytest.mark.usefixtures("gpu")
def test_auto_stays_on_the_cpu_where_no_gpu_engine_runs_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    refuses = tensorrt(lambda device, precision: "operator Foo is unknown")
    monkeypatch.setitem(BACKENDS, "tensorrt", refuses)
    choice = choose("'x'")
    assert str(choice.device) == "cpu"
    assert "not on cuda:0: no engine can run it as asked: fp32 on tensorrt: operator Foo" in choice.reason


@pytest.mark.usefixtures("gpu")
def test_an_engine_for_the_gpu_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "tensorrt", tensorrt(installed=False))
    missing = replace(BACKENDS["onnxruntime"], packages=("no_such_package",))
    monkeypatch.setitem(BACKENDS, "onnxruntime", missing)
    with pytest.raises(
        MissingDependencyError, match=r"no engine for cuda:0 is installed.*cgnrt\[tensorrt\].*\[gpu\]"
    ):
        choose("'x'", device="cuda")
    with pytest.raises(MissingDependencyError, match=r"'onnxruntime' is not installed.*'cgnrt\[gpu\]'"):
        choose("'x'", device="cuda", backend="onnxruntime")
    assert choose("'x'").reason.endswith("; not on cuda:0: no engine for it is installed")


@pytest.mark.usefixtures("gpu")
def test_an_index_beyond_the_devices() -> None:
    with pytest.raises(BackendError, match=r"load 'x': device is cuda:3, expected one.*devices are 1, not 3"):
        choose("'x'", device="cuda:3")


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu_and_says_why(golden_plan: Path) -> None:
    gen = Generator(golden_plan)
    assert gen.device == "cpu"
    assert gen.reason.endswith("; not on cuda:0: no NVIDIA driver is loaded")


@pytest.mark.usefixtures("no_gpu")
def test_cuda_asked_for_without_a_gpu(golden_plan: Path, golden_saliency_plan: Path) -> None:
    for device in ("cuda", "cuda:0", "cuda:1"):
        with pytest.raises(
            BackendError, match=r"device is cuda:\d, expected one.*no NVIDIA driver.*Install one"
        ):
            Generator(golden_plan, device=device)
    with pytest.raises(
        BackendError, match=r"device is cuda, expected 'auto' or 'cpu'\. Photos are masked on"
    ):
        Saliency(golden_saliency_plan, device="cuda")


@pytest.mark.usefixtures("no_gpu")
def test_a_gpu_engine_asked_for_by_name_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "tensorrt", tensorrt())
    with pytest.raises(BackendError, match="device is cuda:0, expected one that can be used: no NVIDIA"):
        choose("'x'", backend="tensorrt")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("command", ["sample", "sheet", "bench", "audit"])
def test_commands_refuse_cuda_in_one_line(
    command: str, golden_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more: dict[str, list[str]] = {
        "sample": ["-n", "4", "-o", str(tmp_path / "x.npz")],
        "sheet": ["-o", str(tmp_path / "x.png")],
        "audit": ["numpy:argmax"],
    }
    arguments = [command, str(golden_plan), *more.get(command, []), "--device", "cuda"]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"cgnrt {command}: load '{golden_plan}': device is cuda:0, expected one that")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_onnx_runtime_lacks(monkeypatch: pytest.MonkeyPatch, demo_plan: Path) -> None:
    def refusal(precision: str, **found: Any) -> str | None:
        library = SimpleNamespace(**found, cuda_version="13.0", preload_dlls=lambda: print("noise"))
        library.__spec__ = ModuleSpec("onnxruntime", None)
        onnxruntime_cuda._library_refusal.cache_clear()
        monkeypatch.setitem(__import__("sys").modules, "onnxruntime", library)
        return onnxruntime_cuda.refusal(Device("cuda"), precision)

    monkeypatch.setattr(cuda, "refusal", lambda index=0: None)
    monkeypatch.setattr(cuda, "is_emulated", lambda: False)
    try:
        text = refusal("fp32", get_available_providers=lambda: ["CPUExecutionProvider"])
        assert text is not None
        assert "(its providers: CPUExecutionProvider). Run: pip uninstall -y onnxruntime; pip install" in text
        providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime_cuda.ctypes, "CDLL", _only("libcudart.so.13"))
        text = refusal("fp32", get_available_providers=lambda: providers)
        assert text is not None
        assert text.startswith(
            "its libraries libcublas.so.13, libcublasLt.so.13, libcudnn.so.9 cannot be loaded"
        )
        monkeypatch.setattr(onnxruntime_cuda.ctypes, "CDLL", lambda name: None)
        assert refusal("fp16", get_available_providers=lambda: providers) is None
        message = (
            "bf16 on onnxruntime: mechanism 'shape': the CUDA provider does not support "
            "ConvTranspose, LeakyRelu in bf16; fp16 can be asked for by name"
        )
        with Plan.open(demo_plan) as plan:
            networks = list(plan.mechanisms.values())
            with pytest.raises(BackendError, match=message):
                choose("'x'", device="cuda", backend="onnxruntime", precision="bf16", networks=networks)
    finally:
        onnxruntime_cuda._library_refusal.cache_clear()


def _only(found: str) -> Callable[[str], None]:
    def load(name: str) -> None:
        if name != found:
            raise OSError(f"{name}: cannot open shared object file")

    return load


def test_the_order_in_which_backends_are_tried() -> None:
    """The fastest of each kind of device first."""
    assert [entry.name for entry in backends_for("cpu")][:2] == ["native", "openvino"]
    assert next(entry.name for entry in backends_for("cuda")) == "tensorrt"


def test_torch_is_asked_for_a_gpu_only_where_a_driver_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "finds_driver", lambda: False)
    monkeypatch.setattr("cgnrt.backends.choice.AMD_DRIVER", "/dev/no-driver")
    monkeypatch.delitem(sys.modules, "cgnrt.backends.torch.probe", raising=False)
    assert not BACKENDS["torch"].may_run_on("cuda")
    assert "cgnrt.backends.torch.probe" not in sys.modules
    assert BACKENDS["torch"].may_run_on("mps")
