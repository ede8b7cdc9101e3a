"""The torch backend: what plans compute with it, what the process's settings may not change, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cgnrt import BackendError, Generator, cuda
from cgnrt.backends import BACKENDS, Device, EngineOptions, Setup, choose, load_engine
from cgnrt.backends.torch import compiled, graphs, library, memory, probe
from cgnrt.backends.torch.backend import TorchBackend
from cgnrt.backends.torch.engine import TorchEngine
from cgnrt.backends.torch.program import trace
from cgnrt.plan import Mechanism, Plan, SaliencyPlan

from .onnx_graphs import mechanism, node, torch_engine

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "tests" / "runtime" / "golden" / "small_cgn.plan"
PLANS = [*sorted((ROOT / "plans").glob("*.plan")), SMALL, ROOT / "tests" / "plan" / "golden" / "v4-half.plan"]
CPU = torch.device("cpu")


def inputs_of(found: Mechanism, n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    drawn = {s.name: rng.standard_normal((n, *s.shape[1:])).astype(np.float32) for s in found.spec.inputs}
    drawn["class_embedding"] = found.embedding[rng.integers(0, len(found.embedding), n)]
    if "truncation" in drawn:
        drawn["truncation"] = np.linspace(0.1, 1, n, dtype=np.float32)[:, None]
    return drawn


@pytest.fixture
def texture() -> Iterator[Mechanism]:
    with Plan.open(PLANS[0]) as plan:
        yield plan.mechanisms["texture"]


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_composites_are_those_of_the_other_engines(path: Path) -> None:
    found = Generator(path, backend="torch", device="cpu", precision="fp32", threads=1).sample(
        16, 1, parts=True
    )
    expected = Generator(path, precision="fp32", threads=1).sample(16, 1, parts=True)
    for name in ("images", "mask", "foreground", "background"):
        # Measured: 2e-5, where instance norms meet a dark picture.
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-4, rtol=0)


def test_masks_of_photos(golden_saliency_plan: Path) -> None:
    with SaliencyPlan.open(golden_saliency_plan) as plan:
        inputs = {"image": np.random.default_rng(0).random((3, 3, 8, 8), dtype=np.float32)}
        found = load_engine(plan.network, backend="torch").run(inputs)["mask"]
        np.testing.assert_allclose(found, load_engine(plan.network).run(inputs)["mask"], atol=1e-5)


# Measured: 76 and 61 dB for the MNIST CGN, 63 and 50 dB for the small one.
@pytest.mark.parametrize(("precision", "floor"), [("fp16", 60), ("bf16", 46)])
@pytest.mark.parametrize("path", [PLANS[0], SMALL], ids=lambda path: path.stem)
def test_half_precision(path: Path, precision: str, floor: float) -> None:
    with Plan.open(path) as plan:
        for name in ("shape", "texture"):
            found = plan.mechanisms[name]
            inputs = inputs_of(found, 7)
            expected = load_engine(found, backend="torch").run(inputs)
            engine = TorchEngine(trace(found, CPU, precision), Setup(Device(), precision), 1)
            for output, array in engine.run(inputs).items():
                error = np.square(array.astype(np.float64) - expected[output]).mean()
                assert array.dtype == np.float32
                assert 10 * np.log10(4 / error) >= floor


def test_vectors_are_float32_and_pictures_half() -> None:
    with Plan.open(SMALL) as plan:
        graph = trace(plan.mechanisms["shape"], CPU, "fp16").graph
    types: dict[str, set[torch.dtype]] = {}
    for found in graph.nodes:
        if "examples" in found.meta and found.op == "call_function":
            types.setdefault(found.target.__name__, set()).add(found.meta["examples"][0].dtype)
    assert types["convolution"] == {torch.float16}
    assert types["linear"] == types["softmax"] == types["sqrt"] == types["tanh_"] == {torch.float32}


def test_layers_may_stay_float32(texture: Mechanism) -> None:
    weights = [n.inputs[1] for n in texture.model.nodes if n.op in ("Conv", "ConvTranspose")]
    kept = trace(texture, CPU, "bf16", weights).constants.values()
    assert {constant.dtype for constant in kept} == {torch.float32}
    some = trace(texture, CPU, "bf16", weights[:1]).constants.values()
    assert {constant.dtype for constant in some} == {torch.float32, torch.bfloat16}


def test_a_constant_that_half_cannot_hold_keeps_its_layer_float32() -> None:
    large = mechanism(
        [node("Conv", "x w", "y")],
        {"x": ("n", 2, 4, 4)},
        {"y": ("n", 2, 4, 4)},
        {"w": np.full((2, 2, 1, 1), 7e4, np.float32)},
    )
    assert {c.dtype for c in trace(large, CPU, "fp16").constants.values()} == {torch.float32}


def test_scale_and_shift_are_one_pass_and_activations_are_in_place() -> None:
    constants = {name: np.ones((1, 2, 1, 1), np.float32) for name in ("scale", "shift")}
    made = mechanism(
        [
            node("Conv", "x w", "c"),
            *(node("Mul", "c scale", "m"), node("Add", "shift m", "a"), node("Relu", "a", "r")),
            *(node("Add", "r x", "s"), node("Tanh", "s", "y")),
        ],
        {"x": ("n", 2, 4, 4)},
        {"y": ("n", 2, 4, 4)},
        {"w": np.ones((2, 2, 1, 1), np.float32), **constants},
    )
    targets = [n.target.__name__ for n in trace(made, CPU, "fp32").graph.nodes if n.op == "call_function"]
    assert targets == ["convolution", "addcmul", "relu_", "add_", "tanh_"]
    # What is read twice, is an input or is broadcast is left as it is.
    kept = mechanism(
        [node("Relu", "x", "r"), node("Relu", "r", "q"), node("Add", "r q", "t"), node("Mul", "t row", "y")],
        {"x": ("n", 2, 1, 1)},
        {"y": ("n", 2, 4, 4)},
        {"row": np.ones((1, 1, 4, 4), np.float32)},
    )
    found = [n.target.__name__ for n in trace(kept, CPU, "fp32").graph.nodes if n.op == "call_function"]
    assert found == ["relu", "relu", "add_", "mul"]
    x = np.random.default_rng(0).standard_normal((3, 2, 1, 1)).astype(np.float32)
    result = torch_engine(kept).run({"x": x})["y"]
    np.testing.assert_array_equal(result, np.broadcast_to(2 * np.maximum(x, 0), (3, 2, 4, 4)))


def test_the_processs_settings_change_nothing(texture: Mechanism) -> None:
    inputs = inputs_of(texture, 4)
    engine = load_engine(texture, backend="torch", threads=1)
    expected = engine.run(inputs)["foreground"].copy()
    tensors = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
    before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_float32_matmul_precision("medium")
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.enable_grad():
            found = engine.run(tensors)["foreground"]
            fresh = load_engine(texture, backend="torch", threads=1).run(inputs)["foreground"]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision(before[0])
    assert torch.get_num_threads() == before[1]
    np.testing.assert_array_equal(found.numpy(), expected)
    np.testing.assert_array_equal(fresh, expected)
    # A classifier may train on them.
    assert not found.requires_grad
    weight = torch.ones(3, requires_grad=True)
    (found.mean((2, 3)) * weight).sum().backward()
    assert weight.grad is not None


def test_tf32_is_set_for_cards_alone() -> None:
    names = [(owner, name) for owner, name, _ in library._products(torch.device("cuda"), "tf32")]
    before = [getattr(owner, name) for owner, name in names]
    with library.settings(torch.device("cuda"), tf32=True):
        assert {getattr(owner, name) for owner, name in names} <= {"tf32", True}
    with library.settings(torch.device("cuda"), tf32=False):
        assert {getattr(owner, name) for owner, name in names} <= {"ieee", False}
    assert [getattr(owner, name) for owner, name in names] == before


def test_what_a_batch_needs() -> None:
    made = mechanism(
        [node("Relu", "x", "a"), node("Tanh", "a", "b"), node("Add", "a b", "y")],
        {"x": ("n", 2, 5, 5)},
        {"y": ("n", 2, 5, 5)},
        {},
    )
    graph = trace(made, CPU, "fp32").graph
    assert memory.bytes_per_sample(graph) == 2 * 200  # the sum is written over one of its operands
    assert memory.largest_batch(graph, 4000) == 4000 * 3 // 4 // 400
    message = "run 'x': a batch of 9 needs about 3,600 bytes beside the weights, and 800 are free on cpu. A batch of 1 "
    assert memory.what_fits(graph, "x", 9, CPU, 800).startswith(message)
    assert memory.what_fits(graph, "x", 9, CPU, None).endswith(
        "which cpu does not have. Take smaller batches."
    )


# What cannot be used here.


def test_a_torch_without_the_device(golden_plan: Path) -> None:
    for kind in ("mps", "xpu"):
        message = (
            rf"device is {kind}:0, expected one that can be used: torch [\d.]+\S* is built without {kind}\. "
        )
        with pytest.raises(BackendError, match=message + "Install a build with it: https://pytorch.org"):
            Generator(golden_plan, device=kind)
    with pytest.raises(
        BackendError, match=r"device is cuda:0, expected one that can be used: torch .* without cuda"
    ):
        Generator(golden_plan, backend="torch", device="cuda")
    with pytest.raises(BackendError, match=r"device is cuda:0, expected.*(no NVIDIA driver|no CUDA kernels)"):
        Generator(golden_plan, device="cuda")


def test_auto_never_takes_it_on_the_cpu(golden_plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("native", "openvino", "onnxruntime"):
        monkeypatch.setitem(BACKENDS, name, replace(BACKENDS[name], packages=("no_such_package",)))
    with pytest.raises(
        BackendError, match=r"no engine for cpu is installed. Run: pip install 'cgnrt\[cpu\]'$"
    ):
        Generator(golden_plan, device="cpu")
    assert Generator(golden_plan, backend="torch").device == "cpu"


def test_a_plan_on_the_cpu_leaves_torch_alone(golden_plan: Path) -> None:
    code = (
        "import sys; from cgnrt import Generator; Generator(sys.argv[1]).sample(2, 0); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(golden_plan)], check=True)


@pytest.mark.parametrize(
    ("text", "loads", "node_exists", "expected"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None", True, True, False),
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None", True, False, True),
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None", False, False, False),
        ("cuda = None\nhip = '7.1'", False, True, True),
        ("cuda = None\nhip = '7.1'", True, False, False),
        (None, True, True, False),
    ],
)
def test_what_can_be_told_without_importing_torch(
    text: str | None,
    loads: bool,
    node_exists: bool,
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if text is not None:
        (tmp_path / "version.py").write_text(text)
    where = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(probe.importlib.util, "find_spec", lambda name: where)
    monkeypatch.setattr(cuda, "finds_driver", lambda: loads)
    monkeypatch.setattr(probe, "AMD_DRIVER", str(tmp_path) if node_exists else str(tmp_path / "none"))
    assert probe.may_run_on.__wrapped__("cuda") is expected
    assert probe.may_run_on.__wrapped__("mps")


def test_a_gpu_that_torch_alone_can_use(golden_plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose cgnrt has no kernels: "auto" takes torch, the others are passed over with the reason."""
    runs: Any = SimpleNamespace(
        refusal=lambda device, precision: None if precision == "fp32" else "no half", examine=lambda *_: None
    )
    monkeypatch.setattr(cuda, "refusal", lambda index=0: "this build of cgnrt has no CUDA kernels")
    monkeypatch.setitem(
        BACKENDS, "torch", replace(BACKENDS["torch"], make=lambda: runs, may_run_on=lambda kind: True)
    )
    choice = choose("'x'", default_precision="bf16")
    assert (choice.backend.name, str(choice.device), choice.precision) == ("torch", "cuda:0", "fp32")
    assert choice.reason.startswith("the first that runs it of ")
    assert "torch, onnxruntime; " in choice.reason
    assert "; not bf16 on torch: no half; " in choice.reason
    with pytest.raises(
        BackendError, match=r"device is cuda:0, expected.*this build of cgnrt has no CUDA kernels"
    ):
        choose("'x'", device="cuda", backend="onnxruntime")


def test_options_that_others_do_not_have(golden_plan: Path) -> None:
    with pytest.raises(BackendError, match="fp32 on openvino: it has no option compile"):
        Generator(golden_plan, backend="openvino", compile=True)
    with pytest.raises(BackendError, match=r"TF32 is of NVIDIA's GPUs, not of cpu"):
        Generator(golden_plan, backend="torch", device="cpu", tf32=True)


def test_half_where_the_processor_has_none(golden_plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = SimpleNamespace(build_info=lambda: {"cpu": {"features": ["avx2"], "cpus": 1}})
    monkeypatch.setattr(library, "_core", core)
    message = (
        "fp16 on torch: this processor has no fp16 instructions, where torch is hundreds of times slower"
    )
    with pytest.raises(BackendError, match=message):
        Generator(golden_plan, backend="torch", device="cpu", precision="fp16")
    core.build_info = lambda: {"cpu": {"features": ["avx512_fp16"], "cpus": 1}}
    assert Generator(golden_plan, backend="torch", device="cpu", precision="fp16").precision == "fp16"


def test_a_missing_input_is_named(texture: Mechanism) -> None:
    engine = load_engine(texture, backend="torch")
    with pytest.raises(
        BackendError, match="run 'texture': inputs are noise, expected noise, class_embedding"
    ):
        engine.run({"noise": np.zeros((1, 32), np.float32)})


# CUDA graphs and compiled kernels.


def test_a_captured_batch_is_copied_in_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of things, without a card: what is warmed up, captured, copied and replayed."""
    log: list[str] = []

    class Stream:
        def __init__(self, device: Any = None) -> None:
            self.name = "side"

        def wait_stream(self, other: Any) -> None:
            log.append("wait")

    class Context:
        def __init__(self, *_: Any, **options: Any) -> None:
            self.options = options

        def __enter__(self) -> None:
            log.append("capture" if self.options else "stream")

        def __exit__(self, *_: Any) -> None: ...

    fake = SimpleNamespace(
        Stream=Stream,
        current_stream=lambda device: Stream(),
        stream=Context,
        graph=Context,
        CUDAGraph=lambda: SimpleNamespace(replay=lambda: log.append("replay")),
    )
    monkeypatch.setattr(graphs.torch, "cuda", fake)

    def double(given: Any) -> tuple[torch.Tensor, ...]:
        log.append("run")
        return (given[0] * 2,)

    graph = graphs.CudaGraph(double, [torch.ones(2)])
    assert log == ["wait", "stream", "run", "run", "run", "capture", "run", "wait"]
    found = graph.run([torch.full((2,), 5.0)])
    assert log[-1] == "replay"
    assert graph._inputs[0].tolist() == [5, 5]
    assert found is graph._outputs


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_compiled_kernels_compute_the_same_and_are_kept(
    texture: Mechanism, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGNRT_CACHE", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    with Plan.open(PLANS[-1]) as plan:  # the smallest
        found = plan.mechanisms["texture"]
        inputs = inputs_of(found, 3)
        setup = Setup(Device(), "fp32", options=EngineOptions(compile=True, batches=(3,)))
        engine = TorchBackend().examine(found, setup).load(1)
        expected = load_engine(found, backend="torch").run(inputs)["foreground"]
        np.testing.assert_allclose(engine.run(inputs)["foreground"], expected, atol=1e-6)
        np.testing.assert_allclose(engine.run(inputs)["foreground"], expected, atol=1e-6)
        kept = [path for path in (tmp_path / "torch").rglob("*") if path.is_file()]
        assert kept
        assert os.environ.get("TORCHINDUCTOR_CACHE_DIR", "") != str(tmp_path / "torch")
        other = {name: array[:2] for name, array in inputs.items()}
        np.testing.assert_allclose(engine.run(other)["foreground"], expected[:2], atol=1e-6)
        assert list(engine._compiled._made) == [3]  # type: ignore[attr-defined]


def test_what_torch_cannot_compile_says_what_to_do(
    texture: Mechanism, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("inductor raised:\nno C++ compiler\nand more")

    monkeypatch.setattr(compiled.torch, "compile", lambda module, **options: fail)
    setup = Setup(Device(), "fp32", options=EngineOptions(compile=True))
    engine = TorchBackend().examine(texture, setup).load(1)
    message = "run .texture.: torch.compile failed for a batch of 2: inductor raised: no C.. compiler. Leave"
    with pytest.raises(BackendError, match=message):
        engine.run(inputs_of(texture, 2))
