"""Which engine runs, and how: with stand-ins for the card, and the library's real builder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cgnrt import BackendError, cuda
from cgnrt.backends import BACKENDS, Device, EngineOptions, Setup
from cgnrt.backends.tensorrt import TensorRtBackend, backend
from cgnrt.backends.tensorrt import library as packages
from cgnrt.backends.tensorrt.cache import folder
from cgnrt.backends.tensorrt.engine import TensorRtEngine, Workspace
from cgnrt.backends.tensorrt.library import Library
from cgnrt.backends.tensorrt.ready import ReadyEngines
from cgnrt.backends.tensorrt.target import Batches, Target, graph_digest
from cgnrt.plan import MECHANISMS, Mechanism, Plan, write_plan

from .tensorrt_fakes import FakeApi, FakeArray, FakeCuda, FakeStream

CARD = Device("cuda", 0)
ROOT = Path(__file__).parents[2]


def compute(name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Four numbers an image, told from those of another image or mechanism."""
    return {"y": inputs["x"].sum(1, keepdims=True) + np.arange(4, dtype=np.float32) + len(name)}


@pytest.fixture
def stream() -> FakeStream:
    return FakeStream()


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """One card."""
    made = FakeCuda()
    monkeypatch.setattr(cuda, "refusal", lambda index=0: None)
    monkeypatch.setattr(cuda, "info", lambda: {"emulated": False})
    monkeypatch.setattr(cuda, "module", lambda: made)
    return made


@pytest.fixture
def api(card: FakeCuda, stream: FakeStream) -> FakeApi:
    return FakeApi(packages.load(), compute, stream)


@pytest.fixture
def library(api: FakeApi) -> Library:
    return Library("tensorrt", "11.4.1.2", api, api.logger)


class TestRefusal:
    """What the backend says before anything is loaded."""

    @pytest.fixture(autouse=True)
    def _card(self, card: FakeCuda) -> None:
        card.facts = {"name": "NVIDIA RTX 4000 Ada", "compute_capability": (8, 9)}

    def refusal(self, device: Device = CARD, precision: str = "fp16") -> str | None:
        return TensorRtBackend().refusal(device, precision)

    def test_none_where_it_runs(self) -> None:
        assert [self.refusal(precision=p) for p in ("fp32", "bf16", "fp16")] == [None] * 3

    def test_a_precision(self) -> None:
        assert self.refusal(precision="int8") == "it has no int8"

    def test_no_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cuda, "refusal", lambda index=0: f"no NVIDIA driver for cuda:{index}")
        assert self.refusal(Device("cuda", 3)) == "no NVIDIA driver for cuda:3"

    def test_an_emulated_card(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cuda, "info", lambda: {"emulated": True})
        assert self.refusal() == "the CUDA device is emulated"

    def test_no_onnx(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
        assert "package 'onnx' is not installed, which fp16 needs" in str(self.refusal())
        assert "onnx" not in str(self.refusal(precision="fp32"))

    def test_a_card_that_the_library_lacks(self, card: FakeCuda) -> None:
        card.facts = {"name": "NVIDIA H100 80GB HBM3", "compute_capability": (9, 0)}
        words = "makes no engines for NVIDIA H100 80GB HBM3 (sm_90)"
        assert self.refusal() == f"tensorrt_rtx {TensorRtBackend().version()} {words}"

    def test_a_card_without_bf16(self, card: FakeCuda) -> None:
        card.facts = {"name": "NVIDIA T4", "compute_capability": (7, 5)}
        assert self.refusal(precision="bf16") == "NVIDIA T4 (sm_75) has no bf16"
        assert self.refusal() is None

    def test_a_library_that_does_not_load(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def load() -> None:
            raise BackendError("load TensorRT: version is 9.")

        monkeypatch.setattr(packages, "load", load)
        assert self.refusal() == "load TensorRT: version is 9."


def test_it_is_among_the_backends() -> None:
    assert isinstance(BACKENDS["tensorrt"].backend, TensorRtBackend)
    assert BACKENDS["tensorrt"].installed()
    assert BACKENDS["tensorrt"].version().startswith("1.7.")


# Running.


def data(name: str = "shape", inputs: str = "x", outputs: str = "y", batches: str = "1,4,8") -> bytes:
    return f"{name}:{inputs}:{outputs}:{batches}".encode()


def spec(name: str = "shape", inputs: str = "x", outputs: str = "y") -> Any:
    named = [[SimpleNamespace(name=n) for n in names.split(",")] for names in (inputs, outputs)]
    return SimpleNamespace(name=name, spec=SimpleNamespace(inputs=named[0], outputs=named[1]))


def batch(n: int, first: float = 0) -> tuple[dict[str, FakeArray], dict[str, FakeArray], np.ndarray]:
    x = np.arange(n * 3, dtype=np.float32).reshape(n, 3) + first
    y = np.full((n, 4), np.nan, np.float32)
    return {"x": FakeArray(x)}, {"y": FakeArray(y)}, compute("shape", {"x": x})["y"]


def test_an_engine_computes_into_the_outputs(library: Library, stream: FakeStream) -> None:
    engine = TensorRtEngine(spec(), data(), library, CARD)
    assert engine.batches == Batches(1, 4, 8)
    for k, n in enumerate((1, 8, 3, 0, 8, 8, 3, 1)):
        inputs, outputs, expected = batch(n, k)
        assert engine.run(inputs, outputs, stream) == outputs
        np.testing.assert_array_equal(outputs["y"].values, expected)


def test_after_the_first_runs_nothing_waits(library: Library, stream: FakeStream) -> None:
    engine = TensorRtEngine(spec(), data(), library, CARD)
    for _ in range(2):
        engine.run(*batch(4)[:2], stream)
    waits = stream.waits
    for _ in range(3):
        engine.run(*batch(4)[:2], stream)
    assert stream.waits == waits


def test_a_batch_size_that_comes_again_is_replayed(
    library: Library, api: FakeApi, stream: FakeStream
) -> None:
    engine = TensorRtEngine(spec(), data(), library, CARD)
    launches = []
    for k in range(5):
        inputs, outputs, expected = batch(4, k)
        engine.run(inputs, outputs, stream)
        np.testing.assert_array_equal(outputs["y"].values, expected)
        launches.append(api.launches)
    # Once as it is; then once to settle the context and once into the graph; then never again.
    assert launches == [1, 3, 3, 3, 3]
    assert len(api.engines[0].contexts) == 2  # a graph has one of its own


def test_graphs_are_bounded(library: Library, api: FakeApi, stream: FakeStream) -> None:
    engine = TensorRtEngine(spec(), data(), library, CARD, graphs=2)
    for n in (1, 2, 3) * 3:
        inputs, outputs, expected = batch(n)
        engine.run(inputs, outputs, stream)
        np.testing.assert_array_equal(outputs["y"].values, expected)
    assert sorted(engine._replays) == [2, 3]


@pytest.mark.parametrize(("graphs", "handle"), [(0, 7), (3, 0), (3, 1)])
def test_without_graphs_and_on_the_default_stream(
    library: Library, api: FakeApi, graphs: int, handle: int
) -> None:
    api.stream.ptr = handle
    engine = TensorRtEngine(spec(), data(), library, CARD, graphs=graphs)
    for _ in range(4):
        engine.run(*batch(4)[:2], api.stream)
    assert (api.launches, len(api.engines[0].contexts)) == (4, 1)


def test_what_cannot_be_captured_runs_without(
    library: Library, api: FakeApi, stream: FakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise BackendError("capture: not now")

    monkeypatch.setattr(stream, "begin_capture", refuse)
    engine = TensorRtEngine(spec(), data(), library, CARD)
    for k in range(4):
        inputs, outputs, expected = batch(4, k)
        engine.run(inputs, outputs, stream)
        np.testing.assert_array_equal(outputs["y"].values, expected)
    assert engine._replays == {}


def test_engines_that_run_in_turn_share_their_memory(
    library: Library, api: FakeApi, stream: FakeStream
) -> None:
    shared = Workspace()
    engines = [TensorRtEngine(spec(name), data(name), library, CARD, shared, 0) for name in MECHANISMS]
    api.engines[1].device_memory_size_v2 = 10
    for engine in engines:
        engine.run(*batch(2)[:2], stream)
    assert len({made.contexts[0].memory for made in api.engines}) == 1
    alone = TensorRtEngine(spec(), data(), library, CARD)
    alone.run(*batch(2)[:2], stream)
    assert api.engines[-1].contexts[0].memory not in {made.contexts[0].memory for made in api.engines[:-1]}


def test_a_larger_engine_gets_more(library: Library, api: FakeApi, stream: FakeStream) -> None:
    shared = Workspace()
    first = TensorRtEngine(spec(), data(), library, CARD, shared, 0)
    first.run(*batch(2)[:2], stream)
    shared.reserve(1000)
    first.run(*batch(2)[:2], stream)
    assert api.engines[0].contexts[0].memory is not None
    assert api.engines[0].contexts[0].memory[1] == 1000


def test_an_engine_is_made_and_run_on_its_own_card(
    library: Library, card: FakeCuda, stream: FakeStream
) -> None:
    card.current = 1
    engine = TensorRtEngine(spec(), data(), library, Device("cuda", 2))
    assert (card.devices, card.current) == ([2, 1], 1)
    engine.run(*batch(2)[:2], stream)
    assert (card.devices[2:], card.current) == ([2, 1], 1)


def test_it_takes_the_arrays_of_cgnrt_cuda(emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = emulated.Stream(1)
    real = packages.load()
    api = FakeApi(real, compute, SimpleNamespace(captured=None))
    engine = TensorRtEngine(spec(), data(), replace(real, api=api), Device("cuda", 1), graphs=0)
    monkeypatch.setattr(api, "before", stream.synchronize)  # the fake context computes at once
    for n, first in (
        (3, 0),
        (0, 0),
        (8, 0),
        (3, 0),
        (3, 1),
        (5, 2),
    ):  # from the second row on nothing is aligned
        x = np.arange((first + n) * 5, dtype=np.float32).reshape(first + n, 5)
        given = emulated.DeviceArray.empty(x.shape, "float32", stream)
        given.upload(x)
        made = emulated.DeviceArray.empty((first + n, 4), "float32", stream)
        engine.run({"x": given[first:]}, {"y": made[first:]}, stream)
        np.testing.assert_array_equal(made[first:].numpy(), compute("shape", {"x": x[first:]})["y"])
    address, size = api.engines[0].contexts[0].memory or (0, 0)
    assert (address % 256, size) == (0, 100)


def test_the_current_device_is_a_thread_s(emulated: Any) -> None:
    assert [emulated.set_device(1), emulated.set_device(1), emulated.set_device(0)] == [0, 1, 1]
    with pytest.raises(BackendError, match="device"):
        emulated.set_device(7)


@pytest.mark.parametrize("n", [1, 9])
def test_a_batch_that_it_was_not_built_for(n: int, library: Library, stream: FakeStream) -> None:
    engine = TensorRtEngine(spec(), data(batches="2,4,8"), library, CARD)
    with pytest.raises(BackendError, match=rf"run mechanism 'shape': batch is {n}, expected 2\.\.8.*--batch"):
        engine.run(*batch(n)[:2], stream)


def test_a_failure_of_the_library_says_what_it_logged(
    library: Library, api: FakeApi, stream: FakeStream
) -> None:
    engine = TensorRtEngine(spec(), data(), library, CARD)
    api.failing = True
    with pytest.raises(BackendError, match="run mechanism 'shape': tensorrt failed: the device is on fire"):
        engine.run(*batch(2)[:2], stream)
    api.failing = False
    engine.run(*batch(2)[:2], stream)


def test_outputs_and_stream_are_needed(library: Library, stream: FakeStream) -> None:
    engine = TensorRtEngine(spec(), data(), library, CARD)
    inputs, outputs, _ = batch(2)
    for given in ((inputs, None, stream), (inputs, outputs, None)):
        with pytest.raises(ValueError, match="run: outputs or stream is None, expected device memory"):
            engine.run(*given)


def test_bytes_that_are_no_engine(library: Library) -> None:
    with pytest.raises(BackendError, match=r"tensorrt 11\.4\.1\.2 refuses the engine: that is not an engine"):
        TensorRtEngine(spec(), b"\x00", library, CARD)


@pytest.mark.parametrize("wrong", [data(inputs="x,z"), data(outputs="z")])
def test_an_engine_of_other_inputs_or_outputs(wrong: bytes, library: Library) -> None:
    with pytest.raises(BackendError, match=r"engine has inputs .*, expected the mechanism's"):
        TensorRtEngine(spec(), wrong, library, CARD)


def test_the_real_runtime_refuses_without_a_driver(card: FakeCuda) -> None:
    with pytest.raises(BackendError, match=r"load mechanism 'shape': tensorrt_rtx .* refuses the engine: ."):
        TensorRtEngine(spec(), b"not an engine", packages.load(), CARD)


# Loading.


class TestLoad:
    """From the plan, from the cache, or built."""

    @pytest.fixture(autouse=True)
    def _library(self, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CGNRT_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(packages, "load", lambda: library)
        monkeypatch.setattr(backend, "build_engine", self.build)
        self.target = Target("tensorrt", "11.4.1.2", "sm_90", "NVIDIA H100 80GB HBM3")
        self.built: list[tuple[str, str, str, tuple[str, ...]]] = []

    def build(
        self, mechanism: Mechanism, precision: str, batches: Batches, *rest: Any, **named: Any
    ) -> bytes:
        self.built.append((mechanism.name, precision, str(batches), named["fp32_layers"]))
        return self.engine(mechanism, str(batches))

    def engine(self, mechanism: Mechanism, batches: str) -> bytes:
        inputs, outputs = (
            ",".join(s.name for s in of) for of in (mechanism.spec.inputs, mechanism.spec.outputs)
        )
        return data(mechanism.name, inputs, outputs, batches)

    @pytest.fixture
    def plan(self, golden_plan: Path) -> Iterator[Plan]:
        with Plan.open(golden_plan) as opened:
            yield opened

    @pytest.fixture
    def with_engines(self, golden_plan: Path, tmp_path: Path) -> Iterator[Plan]:
        """The golden plan with engines for batches of 2 to 6."""
        with Plan.open(golden_plan) as source:
            found = source.mechanisms
            graphs = {name: graph_digest(mechanism) for name, mechanism in found.items()}
            ready = ReadyEngines(self.target, "fp16", Batches(2, 4, 6), graphs)
            members = ready.members({name: self.engine(m, "2,4,6") for name, m in found.items()})
            kept = {name: source.member(name) for name in source.members}
            write_plan(tmp_path / "engines.plan", source.manifest, kept | members)
            del kept, found
        with Plan.open(tmp_path / "engines.plan") as opened:
            yield opened

    def load(
        self, plan: Plan, name: str = "shape", precision: str = "fp16", **options: Any
    ) -> TensorRtEngine:
        setup = Setup(CARD, precision, plan, EngineOptions(**options))
        return TensorRtBackend().examine(plan.mechanisms[name], setup).load()

    def test_it_is_built_once(self, plan: Plan) -> None:
        assert self.load(plan).batches == Batches(1, 1024, 4096)
        assert self.load(plan).batches == Batches(1, 1024, 4096)
        assert self.built == [("shape", "fp16", "1,1024,4096", ())]
        assert self.load(plan, trust_engines=True).batches == Batches(1, 1024, 4096)
        assert len(self.built) == 1

    def test_without_a_plan(self, plan: Plan) -> None:
        TensorRtBackend().examine(plan.mechanisms["shape"], Setup(CARD, "fp16")).load()
        assert len(self.built) == 1

    def test_for_other_batches_it_is_built_again(self, plan: Plan) -> None:
        self.load(plan)
        assert self.load(plan, batches=(1, 8)).batches == Batches(1, 8, 8)
        assert len(self.built) == 2
        with pytest.raises(ValueError, match="expected one to three sizes"):
            self.load(plan, batches=(8, 1))

    def test_a_damaged_entry_is_built_again(self, plan: Plan) -> None:
        self.load(plan)
        (entry,) = folder().glob("*.engine")
        entry.write_bytes(entry.read_bytes()[:-1])
        self.load(plan)
        self.load(plan)
        assert len(self.built) == 2

    def test_layers_of_the_precision_plan_stay_float32(self, plan: Plan) -> None:
        plan.manifest.parity["precision_plan"] = {"fp32_layers": {"shape": ["w"]}}  # type: ignore[index]
        for precision in ("bf16", "fp16"):
            self.load(plan, precision=precision)
        assert [layers for *_, layers in self.built] == [("w",), ()]

    def test_engines_of_a_plan_run_if_they_are_trusted(self, with_engines: Plan) -> None:
        assert self.load(with_engines, trust_engines=True).batches == Batches(2, 4, 6)
        assert self.built == []

    def test_engines_of_a_plan_do_not_run_untrusted(self, with_engines: Plan) -> None:
        assert self.load(with_engines).batches == Batches(1, 1024, 4096)
        assert len(self.built) == 1

    @pytest.mark.parametrize(
        ("version", "options", "words"),
        [
            ("11.5.0.1", {}, r"engines for tensorrt 11\.4\.1\.2 on .*; this is tensorrt 11\.5\.0\.1 on"),
            ("11.4.1.2", {"precision": "bf16"}, "engines for this card in fp16, not in bf16"),
            ("11.4.1.2", {"batches": (1, 8)}, r"engines for batches of 2\.\.6, not of 1\.\.8"),
        ],
    )
    def test_trusted_engines_that_do_not_fit_are_not_loaded(
        self,
        version: str,
        options: dict[str, Any],
        words: str,
        with_engines: Plan,
        library: Library,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(packages, "load", lambda: replace(library, version=version))
        options = {"trust_engines": True, **options}
        with pytest.raises(BackendError, match=rf"the plan has {words}.*Pass rebuild=True \(--rebuild\)"):
            self.load(with_engines, **options)
        assert self.built == []
        self.load(with_engines, rebuild=True, **options)
        assert len(self.built) == 1
        # From then on the cache has one.
        self.load(with_engines, **options)
        assert len(self.built) == 1


def test_a_built_engine_goes_the_whole_way_to_the_runtime(
    card: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The library's own builder; its runtime then finds no driver, and the cache has the engine all the same.
    monkeypatch.setenv("CGNRT_CACHE", str(tmp_path))
    card.facts = {"name": "NVIDIA RTX 4000 Ada", "compute_capability": (8, 9)}
    setup = Setup(CARD, "bf16", options=EngineOptions(batches=(1, 4)))
    with Plan.open(ROOT / "plans" / "colored.plan") as plan:
        candidate = TensorRtBackend().examine(plan.mechanisms["texture"], setup)
        with pytest.raises(BackendError, match="refuses the eng"):
            candidate.load()
        del candidate
    (entry,) = folder().glob("texture-bf16-*.engine")
    assert entry.stat().st_size > 100_000
