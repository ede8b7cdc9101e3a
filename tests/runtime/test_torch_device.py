"""torch tensors as a render device: on the CPU, bit by bit as the host, and on a device that torch alone knows."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin_device
import torch

from cgnrt import BackendError, Batch, Generator, Place
from cgnrt.render.device import DEVICES

SMALL = Path(__file__).parent / "golden" / "small_cgn.plan"
THERE = f"{standin_device.NAME}:0"
REQUESTS: list[dict[str, Any]] = [
    {},
    {"parts": True, "start": 7},
    {"labels": "shared", "shared_noise": True},
    {"per_noise": 3, "do": {"texture": 2}},
    {"pool": (20, 3, 4), "parts": True},
    {"pool": 3, "refresh": 2, "parts": True},
    {"place": Place(dy=(-0.3, 0.3), dx=0.125, scale=(0.6, 1.4), flip=0.5), "parts": True},
    {"place": Place(scale=(0.6, 1.4)), "pool": 3, "parts": True},
]
FORMS: list[dict[str, Any]] = [
    {},
    {"dtype": "uint8", "layout": "NHWC"},
    {"dtype": "float16", "normalize": ((0.5, 0.4, 0.3), (0.2, 0.3, 0.1))},
]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[standin_device.DeviceModule]:
    """The stand-in, as one more kind of device."""
    standin_device.register(monkeypatch)
    with standin_device.fresh() as module:
        yield module


def assert_same(there: Batch, here: Batch, tolerance: float) -> None:
    columns = there.torch()
    told = (*columns.labels, columns.indices, columns.index, columns.place)
    for column, value in zip(told, _columns(here), strict=True):
        assert (column is None) == (value is None)
        if value is not None:
            np.testing.assert_array_equal(column.cpu().numpy(), value)
    found = there.numpy()
    for name in ("images", "mask", "foreground", "background", "pre_mask"):
        value, expected = getattr(found, name), getattr(here, name)
        assert (value is None) == (expected is None)
        if expected is not None:
            assert value.dtype == expected.dtype
            steps = tolerance if expected.dtype.kind == "f" else min(1.0, tolerance * 1e9)
            np.testing.assert_allclose(
                value.astype(np.float64), expected.astype(np.float64), atol=steps, rtol=0
            )
    for column, value in zip((*found.labels, *found.noise), (*here.labels, *here.noise), strict=True):
        np.testing.assert_array_equal(column, value)


def _columns(batch: Batch) -> list[Any]:
    return [*batch.labels, batch.indices, batch.index, batch.place]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_on_the_cpu_all_bits_are_those_of_the_host(
    form: dict[str, Any], golden_plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Generator(golden_plan, backend="torch", device="cpu", threads=1, **form)
    monkeypatch.setitem(DEVICES, "cpu", DEVICES["torch"])
    there = Generator(golden_plan, backend="torch", device="cpu", threads=1, **form)
    for options in REQUESTS:
        for n in (0, 40):
            for _ in range(2):  # also from the kept pool
                assert_same(there.sample(n, 5, **options), here.sample(n, 5, **options), 0)
    noise = here.sample(3, 1).noise
    assert_same(there(shape=[1, 2, 0], noise=noise, seed=1), here(shape=[1, 2, 0], noise=noise, seed=1), 0)
    assert_same(there.interpolate(4, seed=3, parts=True), here.interpolate(4, seed=3, parts=True), 0)
    related = [g.related(seed=3, indices=[4, 9, 4]) for g in (there, here)]
    labels = [related[0].labels, related[0].shared_labels]
    for found, expected in zip(*(r.render(labels) for r in related), strict=True):
        assert_same(found, expected, 0)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("form", "small"), [*((form, False) for form in FORMS), (FORMS[0], True)], ids=str)
def test_on_another_device_images_are_those_of_the_cpu(
    form: dict[str, Any], small: bool, golden_plan: Path
) -> None:
    plan = SMALL if small else golden_plan
    there = Generator(plan, device=torch.device(THERE), **form)
    here = Generator(plan, backend="torch", device="cpu", **form)
    assert (there.device, there.backend) == (THERE, "torch")
    # Convolutions on the CPU, whose weights lie otherwise here: float32 in another order; half of a step of float16.
    tolerance = 1e-3 if form.get("dtype") == "float16" else 4e-6
    for options in REQUESTS[:2] + REQUESTS[4:] if small else REQUESTS:
        assert_same(there.sample(9, 5, **options), here.sample(9, 5, **options), tolerance)


def test_batches_and_streams_are_not_made_ahead(
    device: standin_device.DeviceModule, golden_plan: Path
) -> None:
    gen = Generator(golden_plan, device=THERE)
    expected = Generator(golden_plan, backend="torch", device="cpu").sample(8, 1).images
    assert gen.cuda_stream is None
    found = [batch.numpy().images for batch in gen.batches(8, 3, 1)]
    np.testing.assert_allclose(np.concatenate(found), expected, atol=2e-6)
    with gen.stream(4, 1, stop=8) as stream:
        found = [batch.numpy().images for batch in stream]
    np.testing.assert_allclose(np.concatenate(found), expected, atol=2e-6)
    gen.sample(3, 1).on_device.synchronize()  # type: ignore[union-attr]


@pytest.mark.usefixtures("device")
def test_memory_of_the_caller_is_written_to(golden_plan: Path) -> None:
    gen = Generator(golden_plan, device=THERE, dtype="bfloat16", layout="NHWC")
    out = torch.empty((4, 8, 8, 3), dtype=torch.bfloat16, device=THERE)
    batch = gen.sample(4, 1, out=out)
    assert batch.torch().images is out
    expected = Generator(golden_plan, backend="torch", device="cpu", dtype="bfloat16", layout="NHWC")
    np.testing.assert_allclose(
        out.cpu().float().numpy(), expected.sample(4, 1).torch().images.float().numpy(), atol=1e-2
    )
    with pytest.raises(TypeError, match=r"batch\.numpy: images are bfloat16, expected tensors of a type"):
        batch.numpy()
    with pytest.raises(
        ValueError, match="compose out: device is cpu, expected standin:0, as the other tensors"
    ):
        gen.sample(4, 1, out=torch.empty((4, 8, 8, 3), dtype=torch.bfloat16))
    with pytest.raises(TypeError, match="compose out: type is ndarray, expected a tensor on standin:0"):
        gen.sample(4, 1, out=np.empty((4, 8, 8, 3), np.uint16))


@pytest.mark.usefixtures("device")
def test_it_pickles(golden_plan: Path) -> None:
    gen = Generator(golden_plan, device=THERE)
    again = pickle.loads(pickle.dumps(gen))
    np.testing.assert_array_equal(again.sample(2, 1).numpy().images, gen.sample(2, 1).numpy().images)


def test_work_on_another_stream_waits_for_the_first_and_is_waited_for(
    device: standin_device.DeviceModule, golden_plan: Path
) -> None:
    gen = Generator(golden_plan, device=THERE)
    first = device.stream
    gen.sample(4, 1, pool=2)
    gen.sample(4, 1, pool=2)
    assert first.waited == []
    second = device.stream = standin_device.Stream()
    gen.sample(4, 1, pool=2)  # from the pool that the first has made
    assert set(second.waited) == {first}
    assert set(first.waited) == {second}


def test_an_operation_that_the_device_lacks_is_named(
    device: standin_device.DeviceModule, golden_plan: Path
) -> None:
    device.missing = {"tanh", "tanh_"}
    message = (
        r"run 'texture': an operation is not supported by torch on standin:0: Could not run 'aten::tanh_?' with "
        r"arguments from the 'standin' backend\.$"
    )
    with pytest.raises(BackendError, match=message):
        Generator(golden_plan, device=THERE).sample(2, 1)
    device.missing = {"gather"}
    with pytest.raises(
        BackendError, match="an operation is not supported by torch on standin:0: Could not run 'aten::ga"
    ):
        Generator(golden_plan, device=THERE).sample(2, 1)


def test_too_little_memory_says_which_batch_fits(
    device: standin_device.DeviceModule, golden_plan: Path
) -> None:
    gen = Generator(golden_plan, device=THERE)
    gen.sample(2, 1)
    device.full = True
    with pytest.raises(
        MemoryError,
        match=r"sample: 300 images need 230,400 bytes.*on standin:0, which holds \d+ images.*\(run 'shape': a batch "
        r"of 300 needs about [\d,]+ bytes beside the weights, and 1,000,000,000 are free on standin:0. A batch of \d+ ",
    ):
        gen.sample(300, 1)
    device.full, device.free = False, 100_000
    smaller = Generator(golden_plan, device=THERE)  # takes smaller batches by itself
    found = smaller.sample(300, 1).numpy().images
    np.testing.assert_allclose(found, gen.sample(300, 1).numpy().images, atol=2e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, r"torch [\d.]+\S* finds no standin device or no driver$"),
        (
            {"bad_fork": True},
            "this process was forked from one that used standin, which does not survive a fork",
        ),
    ],
)
def test_a_device_that_cannot_be_used(
    change: dict[str, Any], message: str, device: standin_device.DeviceModule, golden_plan: Path
) -> None:
    for name, value in change.items():
        setattr(device, name, value)
    with pytest.raises(
        BackendError, match="device is standin:0, expected one that can be used: " + message.rstrip("$")
    ):
        Generator(golden_plan, device=THERE)
    device.count, device.bad_fork = 2, False
    with pytest.raises(BackendError, match="there is no standin:2, only standin:0 to standin:1"):
        Generator(golden_plan, device=f"{standin_device.NAME}:2")
