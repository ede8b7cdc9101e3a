"""The network side of TensorRT, by TensorRT for RTX, which parses and builds without a card."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cgnrt import BackendError
from cgnrt.backends import BACKENDS
from cgnrt.backends.tensorrt import library as packages
from cgnrt.backends.tensorrt.build import build_engine, parse
from cgnrt.backends.tensorrt.library import Library
from cgnrt.backends.tensorrt.target import Batches
from cgnrt.plan import Plan

from .tensorrt_fakes import mechanism

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "tests" / "runtime" / "golden" / "small_cgn.plan"
PLANS = [ROOT / "plans" / f"{name}.plan" for name in ("colored", "double-colored", "wildlife")]
BATCHES = Batches(1, 4, 8)
ARCHITECTURE = "sm_89"


@pytest.fixture(scope="module")
def library() -> Library:
    return packages.load()


@pytest.fixture(params=[SMALL, *PLANS], ids=lambda path: path.stem)
def plan(request: pytest.FixtureRequest) -> Iterator[Plan]:
    with Plan.open(request.param) as opened:
        yield opened


@pytest.fixture
def texture() -> Iterator[Any]:
    with Plan.open(PLANS[0]) as opened:
        yield opened.mechanisms["texture"]


def test_errors_go_to_those_who_listen_whoever_stops_first(library: Library) -> None:
    first, second = library.errors(), library.errors()
    told, _ = first.__enter__(), second.__enter__()
    second.__exit__(None, None, None)
    library.logger.log(library.api.ILogger.Severity.ERROR, "no")
    first.__exit__(None, None, None)
    assert told == ["no"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_parser_takes_every_graph_as_typed(plan: Plan, precision: str, library: Library) -> None:
    builder = library.api.Builder(library.logger)
    types = library.api.DataType
    half = {"fp16": types.HALF, "bf16": types.BF16, "fp32": types.FLOAT}[precision]
    for found in plan.mechanisms.values():
        network, _alive = parse(found, precision, library, builder)
        inputs = [network.get_input(k) for k in range(network.num_inputs)]
        outputs = [network.get_output(k) for k in range(network.num_outputs)]
        assert {i.name for i in inputs} == {spec.name for spec in found.spec.inputs}
        assert [o.name for o in outputs] == [spec.name for spec in found.spec.outputs]
        assert {t.dtype for t in (*inputs, *outputs)} == {types.FLOAT}
        assert [tuple(o.shape) for o in outputs] == [(-1, *spec.shape[1:]) for spec in found.spec.outputs]
        layers = [network.get_layer(k) for k in range(network.num_layers)]
        made = {k.get_output(0).dtype for k in layers if k.type == library.api.LayerType.CONVOLUTION}
        assert made <= {half}
        assert network.get_flag(library.api.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_engine_is_built_ahead_of_time(texture: Any, precision: str, library: Library) -> None:
    built = build_engine(texture, precision, BATCHES, library, ARCHITECTURE)
    assert len(built) > 100_000


def test_a_deep_engine_is_built_ahead_of_time(library: Library) -> None:
    with Plan.open(SMALL) as plan:
        assert len(build_engine(plan.mechanisms["shape"], "bf16", BATCHES, library, ARCHITECTURE)) > 100_000


def test_weights_reach_the_engine(library: Library) -> None:
    def built(weight: float) -> bytes:
        weights = np.full((64, 4), weight, np.float32)
        made = mechanism([("Gemm", "x w", "y", {"transB": 1})], ("n", 4), ("n", 64), w=weights)
        return build_engine(made, "fp32", BATCHES, library, ARCHITECTURE)

    number = np.float32(1234.5678).tobytes()
    assert number in built(1234.5678)
    assert number not in built(1)


def test_the_profile_is_what_was_asked_for(texture: Any, library: Library) -> None:
    shapes: dict[str, Any] = {}

    class Builder:
        """The library's, with an eye on the profile."""

        def __init__(self, logger: Any) -> None:
            self._builder = library.api.Builder(logger)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._builder, name)

        def build_serialized_network(self, network: Any, config: Any) -> None:
            assert config.num_optimization_profiles == 1
            assert not config.get_flag(library.api.BuilderFlag.TF32)
            assert config.get_compute_capability(0) == library.api.ComputeCapability.SM89

        def create_optimization_profile(self) -> Any:
            profile = self._builder.create_optimization_profile()
            shapes["profile"] = profile
            return profile

    api = SimpleNamespace(**{name: getattr(library.api, name) for name in dir(library.api)})
    api.Builder = Builder
    watched = Library(library.name, library.version, api, library.logger)
    with pytest.raises(BackendError, match="failed: no reason given"):
        build_engine(texture, "fp16", Batches(2, 4, 8), watched, ARCHITECTURE)
    assert [tuple(shape) for shape in shapes["profile"].get_shape("noise")] == [(2, 32), (4, 32), (8, 32)]


def test_a_graph_that_the_library_lacks_is_refused_by_node(library: Library) -> None:
    made = mechanism([("Relu", "x", "r", {}), ("BitwiseNot", "r", "y", {})], ("n", 4), ("n", 4))
    with pytest.raises(
        BackendError, match=r"build the engine of mechanism 'shape': tensorrt_rtx .* refuses the graph"
    ):
        build_engine(made, "fp32", BATCHES, library, ARCHITECTURE)


def test_progress_is_told(texture: Any, library: Library) -> None:
    told: list[tuple[int, int, str]] = []
    build_engine(texture, "fp16", BATCHES, library, ARCHITECTURE, progress=lambda *step: told.append(step))
    assert all(done <= known for done, known, _ in told)
    assert told[-1][0] > 10
    assert told[0][2] == "texture: Building engine"


def test_ctrl_c_stops_a_build(texture: Any, library: Library) -> None:
    def interrupt(done: int, known: int, words: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(texture, "fp16", BATCHES, library, ARCHITECTURE, progress=interrupt)
    assert build_engine(texture, "fp16", BATCHES, library, ARCHITECTURE)


def test_a_limit_on_scratch_memory_is_taken(texture: Any, library: Library) -> None:
    assert build_engine(texture, "fp16", BATCHES, library, ARCHITECTURE, workspace_bytes=1 << 30)
    with pytest.raises(
        BackendError, match=r"build the engine of mechanism 'texture': tensorrt_rtx.*workspace limit"
    ):
        build_engine(texture, "fp16", BATCHES, library, ARCHITECTURE, workspace_bytes=1 << 20)


class TestLibrary:
    """Which package there is."""

    @pytest.fixture(autouse=True)
    def _afresh(self) -> Iterator[None]:
        packages.load.cache_clear()
        yield
        packages.load.cache_clear()

    def install(self, monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
        monkeypatch.setattr(
            packages.importlib.util, "find_spec", lambda name: object() if name in modules else None
        )

        def load(name: str) -> Any:
            if isinstance(modules[name], Exception):
                raise modules[name]
            return modules[name]

        monkeypatch.setattr(packages.importlib, "import_module", load)

    def fake(self, version: str) -> Any:
        import tensorrt_rtx

        made = ModuleType("tensorrt")
        made.__dict__.update({"__version__": version, "ILogger": tensorrt_rtx.ILogger})
        return made

    def test_the_full_tensorrt_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.install(monkeypatch, tensorrt=self.fake("11.4.1.2"), tensorrt_rtx=self.fake("1.7.1.116"))
        found = packages.load()
        assert (found.name, found.version, found.is_rtx) == ("tensorrt", "11.4.1.2", False)
        assert found.supports("sm_90")

    def test_an_old_one_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.install(monkeypatch, tensorrt=self.fake("10.9.0.34"))
        with pytest.raises(
            BackendError, match=r"version is 10\.9\.0\.34, expected 10\.13 or newer. Run: pip install"
        ):
            packages.load()

    def test_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.install(monkeypatch)
        assert packages.installed() is None
        with pytest.raises(BackendError, match=r"package is missing.*pip install 'cgnrt\[tensorrt\]'"):
            packages.load()

    def test_one_that_does_not_import(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.install(monkeypatch, tensorrt=OSError("libnvinfer.so.10: cannot open shared object file"))
        with pytest.raises(BackendError, match=r"'tensorrt' is installed but does not import \(libnvinfer"):
            packages.load()

    def test_rtx_has_a_list_of_architectures(self) -> None:
        found = packages.load()
        assert found.is_rtx
        assert (found.supports("sm_89"), found.supports("sm_90")) == (True, False)

    def test_networks_are_strongly_typed_where_others_exist(self) -> None:
        found = packages.load()
        assert found.network_flags() == 1 << int(found.api.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        only = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace())
        assert Library("tensorrt", "12.0", only, None).network_flags() == 0


def test_nothing_is_imported_with_cgnrt() -> None:
    import subprocess

    code = (
        "import sys, cgnrt, cgnrt.backends.tensorrt; sys.exit(any('tensorrt_rtx' in m for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_modules_are_those_of_the_packages() -> None:
    assert [importlib.util.find_spec(name) is not None for name in BACKENDS["tensorrt"].packages] == [
        False,
        True,
    ]
