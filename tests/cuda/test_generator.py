"""Generator on the emulated device: the same images as on the CPU, ordered by streams alone."""

from __future__ import annotations

import ctypes
import gc
import pickle
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import cgnrt
from cgnrt import cuda, shards
from cgnrt.backends import BACKENDS, Device, EngineOptions, Setup
from cgnrt.backends.choice import Registration
from cgnrt.backends.native import examine
from cgnrt.plan import Network

PLAN = Path(__file__).parents[2] / "plans" / "double-colored.plan"


def host_view(array: cuda.DeviceArray) -> np.ndarray[Any, Any]:
    """The memory of an array of the emulated device, which is the host's."""
    raw = (ctypes.c_char * array.nbytes).from_address(array.data_ptr)
    return np.frombuffer(raw, array.dtype).reshape(array.shape)


class EmulatedEngine:
    """The native engine, run when the stream gets to it."""

    def __init__(self, module: ModuleType, mechanism: Network) -> None:
        self._module = module
        self._engine = examine(mechanism).load(1)
        self.sizes: list[int] = []

    def run(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any], stream: Any) -> dict[str, Any]:
        self.sizes.append(len(inputs["noise"]))

        def work() -> None:
            made = self._engine.run({name: host_view(array) for name, array in inputs.items()})
            for name, array in outputs.items():
                host_view(array)[...] = made[name]

        self._module.emulator_enqueue(stream, work)
        return dict(outputs)


class EmulatedBackend:
    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self.engines: list[EmulatedEngine] = []

    def version(self) -> str:
        return "0"

    def refusal(self, device: Device, precision: str) -> str | None:
        return cuda.refusal(device.index)

    def examine(self, network: Network, setup: Setup) -> EmulatedCandidate:
        self.options = setup.options
        return EmulatedCandidate(self, network)

    def load(self, network: Network) -> EmulatedEngine:
        self.engines.append(EmulatedEngine(self._module, network))
        return self.engines[-1]


class EmulatedCandidate:
    def __init__(self, backend: EmulatedBackend, network: Network) -> None:
        self._backend = backend
        self._network = network

    def load(self, threads: int | None = None, stream: Any = None) -> EmulatedEngine:
        return self._backend.load(self._network)


@pytest.fixture
def backend(emulated: ModuleType, monkeypatch: pytest.MonkeyPatch) -> EmulatedBackend:
    found = EmulatedBackend(emulated)
    entry = Registration("onnxruntime", lambda: found, {"cuda": "gpu"})
    monkeypatch.setitem(BACKENDS, "onnxruntime", entry)
    return found


def pair(**options: Any) -> tuple[cgnrt.Generator, cgnrt.Generator]:
    """One generator on the device, and one on the CPU."""
    there = cgnrt.Generator(PLAN, device="cuda:0", backend="onnxruntime", precision="fp32", **options)
    return there, cgnrt.Generator(PLAN, device="cpu", backend="native", precision="fp32", **options)


def assert_same(there: cgnrt.Batch, here: cgnrt.Batch) -> None:
    images = here.images.bits if isinstance(here.images, cgnrt.BFloat16Array) else here.images
    np.testing.assert_array_equal(there.images.numpy(), images)
    for column, expected in zip(there.labels, here.labels, strict=True):
        np.testing.assert_array_equal(column, expected)
    for name in ("mask", "foreground", "background"):
        if getattr(here, name) is not None:
            np.testing.assert_array_equal(getattr(there, name).numpy(), getattr(here, name))
    if there.on_device is None:
        raise AssertionError("a batch on a device has its labels there")
    for column, expected in zip(there.on_device.labels, here.labels, strict=True):
        np.testing.assert_array_equal(column.numpy(), expected)
    np.testing.assert_array_equal(there.on_device.indices.numpy(), here.indices)
    if here.place is not None:
        np.testing.assert_array_equal(there.place, here.place)
        np.testing.assert_array_equal(there.on_device.place.numpy(), here.place)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"parts": True},
    {"start": 100, "do": {"texture": 3}},
    {"labels": "shared", "shared_noise": True},
    {"per_noise": 3},
    {"per_noise": 2, "hold": "all"},
    {"classes": {"shape": [1, 2]}},
    {"pool": 3},
    {"pool": (2, 3, 4), "parts": True},
    {"pool": 3, "refresh": 2},
    {"place": cgnrt.Place(dy=(-0.3, 0.3), scale=(0.6, 1.4), flip=0.5), "parts": True},
    {"place": cgnrt.Place(dx=0.25, scale=0.75), "pool": 3, "parts": True},
    {"pool": (2, 3, 4), "refresh": 1, "parts": True, "start": 9},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.usefixtures("backend")
def test_samples_are_those_of_the_cpu(options: dict[str, Any]) -> None:
    there, here = pair()
    assert_same(there.sample(5, seed=7, **options), here.sample(5, seed=7, **options))


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "uint8", "layout": "NHWC"},
        {"dtype": "float16", "normalize": ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))},
        {"dtype": "bfloat16"},
    ],
    ids=str,
)
@pytest.mark.usefixtures("backend")
def test_forms_are_those_of_the_cpu(options: dict[str, Any]) -> None:
    there, here = pair(**options)
    assert_same(there.sample(3, seed=7), here.sample(3, seed=7))


def test_another_form_shares_the_engines(backend: EmulatedBackend) -> None:
    there, here = pair()
    there.sample(2, seed=1, pool=3)
    other = there.with_pixels("uint8", "NHWC")
    expected = here.with_pixels("uint8", "NHWC")
    for options in ({}, {"pool": 3}, {"parts": True}):
        assert_same(other.sample(3, seed=7, **options), expected.sample(3, seed=7, **options))
        assert_same(there.sample(3, seed=7, **options), here.sample(3, seed=7, **options))
    assert len(backend.engines) == 3
    assert other.cuda_stream is there.cuda_stream


@pytest.mark.usefixtures("backend")
def test_given_noise_labels_and_interpolation() -> None:
    there, here = pair()
    base = there.sample(3, seed=1)
    again = there(shape=[1, 2, 3], noise=base.noise, seed=1)
    assert_same(again, here(shape=[1, 2, 3], noise=base.noise, seed=1))
    assert_same(there.interpolate(4, seed=3, parts=True), here.interpolate(4, seed=3, parts=True))


@pytest.mark.usefixtures("backend")
def test_related_images_run_a_mechanism_once_for_equal_labels(backend: EmulatedBackend) -> None:
    there, here = pair()
    variants = [g.related(seed=2, indices=[4, 5]) for g in (there, here)]
    labels = [variants[0].labels, variants[0].shared_labels]
    for found, expected in zip(*(v.render(labels) for v in variants), strict=True):
        assert_same(found, expected)
    assert [len(engine.sizes) for engine in backend.engines] == [1, 2, 2]


def test_nothing_waits_for_the_device(emulated: ModuleType, backend: EmulatedBackend) -> None:
    there, _ = pair()
    there.sample(2, seed=0)
    before = emulated.emulator_counters()[0]
    for k in range(3):
        there.sample(4, seed=k)
    assert emulated.emulator_counters()[0] == before


def test_the_host_is_held_up_when_it_is_far_ahead(emulated: ModuleType, backend: EmulatedBackend) -> None:
    there, _ = pair()
    before = emulated.emulator_counters()[0]
    for k in range(20):
        there.sample(1, seed=k)
    assert emulated.emulator_counters()[0] > before


@pytest.mark.usefixtures("backend")
def test_batches_are_one_ahead(backend: EmulatedBackend) -> None:
    there, here = pair()
    runs = there.batches(10, 4, seed=5)
    first = next(runs)
    assert backend.engines[0].sizes == [4, 4]
    found = [first, *runs]
    for batch, expected in zip(found, here.batches(10, 4, seed=5), strict=True):
        assert_same(batch, expected)


@pytest.mark.usefixtures("backend")
def test_a_batch_is_whole_when_its_consumer_reads_it() -> None:
    """What is read on another stream, after the next batch was begun, is this batch and does not wait for that."""
    there, here = pair()
    batch, _ = there.sample(3, seed=1), there.sample(3, seed=2)
    consumer = cuda.Stream(0)
    taken = cuda.DeviceArray.empty(batch.images.shape, "float32", consumer)
    cuda.module().copy(batch.images, taken, consumer)
    expected = here.sample(3, seed=1).images
    np.testing.assert_array_equal(taken.numpy(), expected)


def test_a_renewing_pool_makes_an_entry_once(backend: EmulatedBackend) -> None:
    there, here = pair()
    options: dict[str, Any] = {"pool": (3, 90, 5), "refresh": 2}
    found = list(there.batches(400, 64, seed=5, **options))
    for batch, expected in zip(found, here.batches(400, 64, seed=5, **options), strict=True):
        assert_same(batch, expected)
    for engine, size in zip(backend.engines, options["pool"], strict=True):
        assert 150 < sum(engine.sizes) <= 200 + size
    indices = np.array([7, -3, 10**12, 8])
    assert_same(*(g.sample(indices=indices, seed=5, **options) for g in (there, here)))


def test_a_dropped_pool_is_made_again(backend: EmulatedBackend) -> None:
    there, here = pair()
    there.drop_pool()  # there is none yet
    for k, options in enumerate(({"pool": 4}, {"pool": 4, "refresh": 2})):
        for _ in range(2):
            assert_same(*(g.sample(4, seed=11, **options) for g in (there, here)))
        there.drop_pool()
        assert_same(*(g.sample(4, seed=11, **options) for g in (there, here)))
        assert [len(engine.sizes) for engine in backend.engines] == [2 * (k + 1)] * 3


def test_a_failed_entry_is_made_again(backend: EmulatedBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = pair()
    options: dict[str, Any] = {"pool": 3, "refresh": 2}
    there.sample(3, seed=1, **options)

    def fail(*_: Any) -> None:
        raise cgnrt.BackendError("run: no")

    with monkeypatch.context() as patch:
        patch.setattr(backend.engines[1], "run", fail)
        with pytest.raises(cgnrt.BackendError, match="run: no"):
            there.sample(5, seed=1, start=3, **options)
    assert_same(*(g.sample(5, seed=1, start=3, **options) for g in (there, here)))


@pytest.mark.usefixtures("backend")
def test_a_stream_needs_no_thread() -> None:
    there, here = pair()
    with there.stream(4, seed=5, stop=10) as stream, here.stream(4, seed=5, stop=10) as expected:
        first = next(stream)
        assert not [thread for thread in threading.enumerate() if thread.name == "cgnrt-prefetch"]
        for batch, other in zip([first, *stream], expected, strict=True):
            assert_same(batch, other)
    assert stream.position == 10


@pytest.mark.usefixtures("backend")
def test_out_is_written_and_used_again() -> None:
    there, here = pair()
    out = cuda.DeviceArray.empty((2, 3, 32, 32), "float32", cuda.Stream(0))
    for seed in range(3):
        batch = there.sample(2, seed=seed, out=out)
        assert batch.images is out
        np.testing.assert_array_equal(out.numpy(), here.sample(2, seed=seed).images)


@pytest.mark.usefixtures("backend")
def test_no_sample_is_a_batch_too() -> None:
    there, here = pair()
    for options in ({}, {"pool": 2}, {"parts": True}):
        assert_same(there.sample(0, seed=1, **options), here.sample(0, seed=1, **options))


def test_memory_is_bounded(emulated: ModuleType, backend: EmulatedBackend) -> None:
    there, _ = pair()

    def used_after(seeds: range) -> int:
        for seed in seeds:
            there.sample(
                8, seed=seed
            ).images.numpy()  # the emulated engines hold their arrays until they have run
        gc.collect()
        used: int = emulated.emulator_counters()[1]
        return used

    first = used_after(range(4))
    assert used_after(range(20)) <= first


def test_too_many_images_say_how_many_fit(emulated: ModuleType, backend: EmulatedBackend) -> None:
    there, here = pair()
    there.sample(1, seed=0)
    emulated.emulator_configure(memory_bytes=4 << 20)
    with pytest.raises(
        MemoryError, match=r"sample: 1000 images need 12,288,000 bytes, and .* holds (\d+) images"
    ) as found:
        there.sample(1000, seed=0)
    fits = int(str(found.value).split("which holds ")[1].split()[0])
    assert 0 < fits < 1000 or "holds 0 images" in str(found.value)
    emulated.emulator_configure()
    assert_same(there.sample(2, seed=3), here.sample(2, seed=3))


@pytest.mark.usefixtures("backend")
def test_two_devices_and_two_generators() -> None:
    first, here = pair()
    second = cgnrt.Generator(PLAN, device="cuda:1", backend="onnxruntime", precision="fp32")
    a, b = first.sample(2, seed=1), second.sample(2, seed=1)
    assert (a.images.device, b.images.device) == (0, 1)
    expected = here.sample(2, seed=1)
    assert_same(a, expected)
    assert_same(b, expected)


@pytest.mark.usefixtures("backend")
def test_a_generator_pickles(backend: EmulatedBackend) -> None:
    there, _ = pair(trust_engines=True, engine_batches=[1, 8])
    again = pickle.loads(pickle.dumps(there))
    assert backend.options == EngineOptions(trust_engines=True, batches=(1, 8))
    assert again.device == "cuda:0"
    np.testing.assert_array_equal(
        again.sample(2, seed=1).images.numpy(), there.sample(2, seed=1).images.numpy()
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda g: g.sample(2, seed=1, out=np.empty((2, 3, 32, 32), np.float32)), ValueError, "out: device is cpu"),
        (lambda g: g.sample(2, seed=1, out=cuda.DeviceArray.empty((1,), "uint8", cuda.Stream(0))), ValueError,
         r"out is \(1,\), expected shape \(2, 3, 32, 32\)"),
        (lambda g: g.sample(2, seed=1, out=cuda.DeviceArray.empty((2, 3, 32, 32), "float32", cuda.Stream(1))),
         ValueError, "device is cuda:1"),
        (lambda g: np.asarray(g.sample(1, seed=1).images), TypeError, "it is on a GPU"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("backend")
def test_bad_requests(call: Callable[[cgnrt.Generator], Any], error: type[Exception], message: str) -> None:
    there, here = pair()
    with pytest.raises(error, match=message):
        call(there)
    assert_same(there.sample(2, seed=3), here.sample(2, seed=3))


def test_a_failing_engine_leaves_the_generator_usable(
    backend: EmulatedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here = pair()
    there.sample(1, seed=0)

    def fail(*_: Any) -> None:
        raise cgnrt.BackendError("run: no")

    with monkeypatch.context() as patch:
        patch.setattr(backend.engines[2], "run", fail)
        with pytest.raises(cgnrt.BackendError, match="run: no"):
            there.sample(2, seed=1)
    assert_same(there.sample(2, seed=3), here.sample(2, seed=3))


def test_memory_outlives_what_a_failing_engine_has_enqueued(
    emulated: ModuleType, backend: EmulatedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, _ = pair()
    stream = there.sample(1, seed=0).images.stream
    done = []

    def fail(inputs: Mapping[str, Any], outputs: Mapping[str, Any], stream: Any) -> None:
        emulated.emulator_enqueue(stream, lambda: done.append(True))
        raise cgnrt.BackendError("run: no")

    monkeypatch.setattr(backend.engines[2], "run", fail)
    with pytest.raises(cgnrt.BackendError, match="run: no"):
        there.sample(2, seed=1)
    stream.synchronize()
    assert done == [True]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("pools", [{}, {"pool": 6}, {"pool": 6, "refresh": 3}])
def test_a_data_set_is_that_of_the_cpu(tmp_path: Path, pools: dict[str, Any]) -> None:
    for device, backend in (("cuda:0", "onnxruntime"), ("cpu", "native")):
        shards.generate(
            *(PLAN, 50, tmp_path / device),
            **pools,
            image="raw",
            masks=True,
            shard_size=20,
            device=device,
            backend=backend,
            precision="fp32",
            processes=1,
        )
    there, here = (sorted((tmp_path / name).glob("*.tar")) for name in ("cuda:0", "cpu"))
    assert [path.read_bytes() for path in there] == [path.read_bytes() for path in here]
    assert shards.Manifest.read(tmp_path / "cuda:0").header["engine"]["device"] == "cuda"
