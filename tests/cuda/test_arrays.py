"""Arrays, streams and events on the emulated device: order, memory, and what other libraries see."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from device_arrays import BesideBuffer, ByDlpack, ByInterface, array_of

from cgnrt import cuda

X = np.arange(24, dtype=np.float32).reshape(4, 3, 2)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "uint32", "int32", "int64"])
@pytest.mark.parametrize("shape", [(5, 3), (0, 3), (7,), ()])
@pytest.mark.usefixtures("emulated")
def test_what_goes_up_comes_down(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    array = array_of(values, cuda.Stream(1))
    assert (array.shape, array.dtype, array.nbytes, array.device) == (shape, dtype, values.nbytes, 1)
    np.testing.assert_array_equal(array.numpy(), values)


@pytest.mark.usefixtures("emulated")
def test_rows_are_views() -> None:
    array = array_of(X, cuda.Stream(0))
    part = array[1:3]
    np.testing.assert_array_equal(part.numpy(), X[1:3])
    np.testing.assert_array_equal(array[-1].numpy(), X[-1])
    assert part.data_ptr == array.data_ptr + X[0].nbytes
    del array
    gc.collect()
    np.testing.assert_array_equal(part.numpy(), X[1:3])


@pytest.mark.usefixtures("emulated")
def test_views_of_bytes() -> None:
    stream = cuda.Stream(0)
    packed = np.arange(64, dtype=np.uint8)
    array = array_of(packed, stream)
    part = array.view(16, (2, 3), "int32")
    np.testing.assert_array_equal(part.numpy(), packed[16:40].view(np.int32).reshape(2, 3))
    assert array.view(64, (0, 5), "int64").shape == (0, 5)
    for offset, shape, dtype, message in [
        (60, (2,), "int32", r"view shape: shape is \(2,\) from byte 60, expected what 64 bytes hold"),
        (2, (2,), "int32", "view offset: address is not a multiple of its item size"),
        (65, (0,), "uint8", "view offset: offset is 65, expected 0..64"),
        (0, (1 << 62, 1 << 62), "uint8", "expected what 64 bytes hold"),
    ]:
        with pytest.raises(ValueError, match=message):
            array.view(offset, shape, dtype)


def test_a_consumer_waits_for_the_producer(emulated: ModuleType) -> None:
    producer, consumer = cuda.Stream(0), cuda.Stream(0)
    source = array_of(X, producer)  # has not run: streams of the emulated device are lazy
    for lent in (source, ByDlpack(source), BesideBuffer(source), ByInterface(source)):
        target = cuda.DeviceArray.empty(X.shape, "float32", consumer)
        emulated.copy(lent, target, consumer)
        np.testing.assert_array_equal(target.numpy(), X)


def test_a_stream_waits_for_one_on_another_device(emulated: ModuleType) -> None:
    there, here = cuda.Stream(1), cuda.Stream(0)
    done: list[int] = []
    emulated.emulator_enqueue(there, lambda: done.append(1))
    here.wait_for(there)
    here.synchronize()
    assert done == [1]


def test_an_unordered_copy_waits_for_nobody(emulated: ModuleType) -> None:
    theirs, ours = cuda.Stream(0), cuda.Stream(0)
    source, target = array_of(X, theirs), array_of(X + 1, theirs)
    theirs.synchronize()
    done: list[int] = []
    emulated.emulator_enqueue(ours, lambda: done.append(1))
    emulated.copy_unordered(source, target, ours)
    theirs.synchronize()  # as it is not behind what it knows nothing of
    assert done == []
    ours.synchronize()
    np.testing.assert_array_equal(target.numpy(), X)
    for other, stream, message in (
        (target, cuda.Stream(1), "devices is"),
        (array_of(X, cuda.Stream(1)), ours, "devices is"),
        (target[1:], ours, r"shape is \(3, 3, 2\)"),
        (source, ours, "copy_unordered"),
    ):
        with pytest.raises(ValueError, match=message):
            emulated.copy_unordered(source, other, stream)


def test_the_owner_is_told_the_stream(emulated: ModuleType) -> None:
    stream = cuda.Stream(0)
    lent = ByDlpack(array_of(X, cuda.Stream(0)))
    emulated.copy(lent, cuda.DeviceArray.empty(X.shape, "float32", stream), stream)
    assert lent.streams == [stream.ptr]


def test_ready_is_what_consumers_wait_for_and_no_more(emulated: ModuleType) -> None:
    producer, consumer = cuda.Stream(0), cuda.Stream(0)
    source = array_of(X, producer)
    source.ready()
    later = array_of(X, producer)  # not waited for
    target = cuda.DeviceArray.empty(X.shape, "float32", consumer)
    emulated.copy(source, target, consumer)
    pending = producer.record()
    np.testing.assert_array_equal(target.numpy(), X)
    assert not pending.query()
    np.testing.assert_array_equal(later.numpy(), X)


def test_memory_is_reused_only_after_its_consumer(emulated: ModuleType) -> None:
    producer, consumer = cuda.Stream(0), cuda.Stream(0)
    target = cuda.DeviceArray.empty(X.shape, "float32", consumer)
    source = array_of(X, producer)
    emulated.copy(ByDlpack(source), target, consumer)
    del source  # the copy has not run
    gc.collect()
    producer.synchronize()
    np.testing.assert_array_equal(target.numpy(), X)


def test_memory_goes_back(emulated: ModuleType) -> None:
    gc.collect()
    before = emulated.emulator_counters()[1]
    array = array_of(np.zeros(1 << 20, np.uint8), cuda.Stream(0))
    assert emulated.emulator_counters()[1] == before + (1 << 20)
    view = array[5:]
    del array
    assert emulated.emulator_counters()[1] == before + (1 << 20)
    del view
    assert emulated.emulator_counters()[1] == before


@pytest.mark.parametrize("handle", [0, None])
def test_freed_memory_stays_mapped_for_the_next_call(emulated: ModuleType, handle: int | None) -> None:
    """Also on a stream that is lent, when somebody waits for the device."""
    own = cuda.Stream(0)
    stream = own if handle is None else cuda.Stream.borrow(0, handle)
    array_of(np.zeros(1 << 20, np.uint8), stream)
    stream.synchronize()
    before = emulated.emulator_counters()[3]
    for _ in range(3):
        array_of(np.zeros(1 << 20, np.uint8), stream)
        stream.synchronize()
    assert emulated.emulator_counters()[3] == before
    stream.trim()
    array_of(np.zeros(1 << 20, np.uint8), stream)
    assert emulated.emulator_counters()[3] == before + 1


def test_a_lent_stream_keeps_a_part_of_the_memory_at_most(emulated: ModuleType) -> None:
    """A sixteenth of the 1 GiB that a device has: 64 MiB."""
    stream = cuda.Stream.borrow(1, 0)
    for _ in range(2):
        before = emulated.emulator_counters()[3]
        cuda.DeviceArray.empty((100 << 20,), "uint8", stream)
        stream.synchronize()
        assert emulated.emulator_counters()[3] == before + 1


def test_memory_on_a_default_stream_goes_back_in_the_order_of_its_device(emulated: ModuleType) -> None:
    default = cuda.Stream.borrow(1, 0)
    target = cuda.DeviceArray.empty(X.shape, "float32", cuda.Stream(1))
    source = array_of(X, default)
    default.synchronize()
    emulated.copy(source, target, default)
    del source  # the copy has not run, and device 0 is current
    gc.collect()
    cuda.Stream.borrow(0, 0).synchronize()
    np.testing.assert_array_equal(target.numpy(), X)


def test_too_much_memory_is_an_error_with_both_numbers(emulated: ModuleType) -> None:
    emulated.emulator_configure(memory_bytes=1 << 20)
    stream = cuda.Stream(0)
    with pytest.raises(MemoryError, match=r"2097152 bytes are wanted, \d+ of 1048576 are free on cuda:0"):
        cuda.DeviceArray.empty((2, 1 << 20), "uint8", stream)
    assert cuda.DeviceArray.empty((4,), "uint8", stream).shape == (4,)
    with pytest.raises(MemoryError, match=r"expected what 2\^63 bytes hold"):
        cuda.DeviceArray.empty((1 << 40, 1 << 40), "uint8", stream)


def test_uploads_from_page_locked_memory_wait_for_nothing(emulated: ModuleType) -> None:
    stream = cuda.Stream(0)
    pinned = np.frombuffer(cuda.PinnedBuffer(X.nbytes), np.float32).reshape(X.shape)
    pinned[...] = X
    before = emulated.emulator_counters()[0]
    array = array_of(pinned, stream)
    assert emulated.emulator_counters()[0] == before
    np.testing.assert_array_equal(array.numpy(), X)


@pytest.mark.usefixtures("emulated")
def test_timed_events() -> None:
    stream = cuda.Stream(0)
    first = stream.record(timing=True)
    last = stream.record(timing=True)
    assert not first.query()
    last.synchronize()
    assert first.query()
    assert last.elapsed_ms(first) >= 0


def test_bad_arguments(emulated: ModuleType) -> None:
    stream, other = cuda.Stream(0), cuda.Stream(1)
    array = array_of(X, stream)
    target = cuda.DeviceArray.empty(X.shape, "float32", stream)
    host = ByInterface(array, data=(X.ctypes.data, False))
    strided = ByInterface(array, strides=(4, 8, 24))
    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda: emulated.copy(X, target), ValueError, "copy source: device is cpu, expected a CUDA device"),
        (lambda: emulated.copy(array, X), ValueError, "copy out: device is cpu, expected cuda:0"),
        (
            lambda: emulated.copy(array, target, other),
            ValueError,
            "stream: device is cuda:1, expected cuda:0",
        ),
        (lambda: emulated.copy(host, target), ValueError, "source: address is that of host memory, expected"),
        (lambda: emulated.copy(strided, target), ValueError, "source: memory layout is strided"),
        (lambda: emulated.copy(array, array), ValueError, "copy out: memory is shared with source"),
        (lambda: emulated.copy(array, target, -1), ValueError, "copy stream: stream is -1, expected 0.."),
        (lambda: emulated.copy(array, target[1:]), ValueError, r"copy out: shape is \(3, 3, 2\), expected"),
        (
            lambda: array.upload(X[:2]),
            ValueError,
            r"upload source: shape is \(2, 3, 2\), expected \(4, 3, 2\)",
        ),
        (
            lambda: array.upload(X.astype(np.int32)),
            ValueError,
            "upload source: dtype is int32, expected float32",
        ),
        (lambda: array[::2], ValueError, "index array: step is 2, expected 1"),
        (lambda: array[4], ValueError, "index array: array is 4, expected -4..3"),
        (lambda: array.__dlpack__(stream=0), BufferError, "stream is 0, expected 1"),
        (lambda: array.__dlpack__(stream=2), BufferError, "stream is 2, expected 1"),
        (lambda: emulated.copy(array, target, 2), ValueError, "copy stream: stream is 2, the per-thread"),
        (lambda: cuda.Stream.borrow(0, 2), ValueError, "Stream.borrow handle: stream is 2, the per-thread"),
        (lambda: array.__dlpack__(dl_device=(1, 0)), BufferError, "expected that of the array"),
        (lambda: array.__dlpack__(copy=True), BufferError, "copy is True, expected None or False"),
        (lambda: np.asarray(array), TypeError, "it is on a GPU, expected one on the host"),
        (
            lambda: cuda.DeviceArray.empty((2,), "float64", stream),
            ValueError,
            "dtype is 'float64', expected one of",
        ),
        (lambda: cuda.Stream(2), Exception, "cudaErrorInvalidDevice .* at .*runtime.cc:"),
        (lambda: emulated.device(2), ValueError, "device index: index is 2, expected 0..1"),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
    np.testing.assert_array_equal(array.numpy(), X)  # the process goes on working


def test_bfloat16_has_no_name_in_the_array_interface(emulated: ModuleType) -> None:
    array = cuda.DeviceArray.empty((2,), "bfloat16", cuda.Stream(0))
    array.upload(np.array([1, 2], np.uint16))
    assert not hasattr(array, "__cuda_array_interface__")
    target = cuda.DeviceArray.empty((2,), "bfloat16", array.stream)
    emulated.copy(ByDlpack(array), target)
    assert target.numpy().tolist() == [1, 2]


def test_why_a_device_cannot_be_used(emulated: ModuleType) -> None:
    assert cuda.refusal() is None
    assert cuda.refusal(7) == "there is no cuda:7, only cuda:0 to cuda:1"
    emulated.emulator_configure(devices=1)
    assert cuda.refusal(1) == "there is no cuda:1, only cuda:0"
    emulated.emulator_configure(devices=0)
    assert "no GPU that this process may use" in str(cuda.refusal())
    emulated.emulator_configure(driver=12040)
    assert cuda.refusal() == "the NVIDIA driver runs CUDA 12.4, expected 13.0 or newer. Update it"
    emulated.emulator_configure(driver=0)
    assert cuda.refusal() == "no NVIDIA driver is there. Install one for CUDA 13.0"
    with pytest.raises(cuda.BackendError, match="cuda: no NVIDIA driver is there"):
        cuda.module()


def test_without_a_driver_no_cuda_code_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", find)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "cgnrt._cuda")
    monkeypatch.delitem(sys.modules, "cgnrt._cuda", raising=False)
    assert cuda.refusal() == "no NVIDIA driver is there. Install one"
    assert "cgnrt._cuda" not in sys.modules
    with pytest.raises(cuda.BackendError, match="cuda: no NVIDIA driver is there"):
        cuda.module()


def test_a_driver_that_fails_is_a_reason_too(emulated: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise cuda.BackendError("cudaGetDeviceCount: cudaErrorSystemDriverMismatch (text)")

    monkeypatch.setattr(emulated, "info", fail)
    assert "CUDA does not start: cudaGetDeviceCount" in str(cuda.refusal())
    with pytest.raises(cuda.BackendError, match="cuda: CUDA does not start"):
        cuda.module()


def test_a_forked_process_is_told_to_spawn(emulated: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cuda.refusal() is None
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert "forked from one that used CUDA" in str(cuda.refusal())
