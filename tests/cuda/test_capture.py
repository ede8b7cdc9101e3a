"""Streams captured into graphs, on the emulated device and a GPU: what may be freed, handed on and made meanwhile."""

from __future__ import annotations

import gc
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from device_arrays import ByDlpack, array_of
from module_ops import ModuleOps, core

from cgnrt import cuda
from cgnrt.errors import BackendError

X = np.arange(24, dtype=np.float32).reshape(4, 3, 2)


def lend(array: cuda.DeviceArray, consumer: cuda.Stream) -> Any:
    """A capsule as a consumer's library takes it; the array is let go of when that goes."""
    return array.__dlpack__(stream=consumer.ptr)


def test_a_graph_runs_what_was_captured(device_module: ModuleType) -> None:
    rng = np.random.default_rng(0)
    host = [rng.random((8, c, 16, 16), dtype=np.float32) for c in (1, 3, 3)]
    index = rng.integers(0, 8, (20, 3)).astype(np.int32)
    rolls = rng.integers(-99, 99, (20, 2, 2)).astype(np.int32)
    stream = cuda.Stream(0)
    given = [array_of(x, stream) for x in (*host, index)]
    sent_rolls = array_of(rolls, stream)
    out = array_of(np.zeros((20, 3, 16, 16), np.float32), stream)
    stream.synchronize()
    stream.begin_capture()
    ModuleOps(device_module).compose(*given, rolls=sent_rolls, out=out)
    graph = stream.end_capture()
    assert not out.numpy().any()
    graph.launch(stream)
    np.testing.assert_array_equal(out.numpy(), core.compose(*host, index, rolls=rolls))
    host[1] = -host[1]
    given[1].upload(host[1])
    graph.launch(stream)
    np.testing.assert_array_equal(out.numpy(), core.compose(*host, index, rolls=rolls))


@pytest.mark.parametrize("captures", ["the consumer", "the producer"])
def test_memory_freed_during_a_capture_goes_back_behind_it(emulated: ModuleType, captures: str) -> None:
    producer, consumer = cuda.Stream(0), cuda.Stream(0)
    gc.collect()
    before = emulated.emulator_counters()[1]
    source, target = array_of(X, producer), array_of(np.zeros_like(X), consumer)
    capsule = lend(source, consumer)
    for stream in (producer, consumer):
        stream.synchronize()
    used = emulated.emulator_counters()[1]
    captured, other = (consumer, producer) if captures == "the consumer" else (producer, consumer)
    captured.begin_capture()
    del source, capsule
    gc.collect()
    assert emulated.emulator_counters()[1] == used, "freed into the capture, or behind it"
    other.synchronize()  # which it must not have been pulled into
    captured.end_capture()
    assert emulated.emulator_counters()[1] < used
    del target
    gc.collect()
    assert emulated.emulator_counters()[1] == before


def test_memory_freed_during_a_capture_waits_for_its_consumer(emulated: ModuleType) -> None:
    producer, consumer = cuda.Stream(0), cuda.Stream(0)
    target = array_of(np.zeros_like(X), consumer)
    source = array_of(X, producer)
    emulated.copy(source, target, consumer)  # has not run
    capsule = lend(source, consumer)
    consumer.begin_capture()
    del source, capsule
    gc.collect()
    consumer.end_capture()
    producer.synchronize()
    np.testing.assert_array_equal(target.numpy(), X)


def test_memory_of_a_graph_goes_back_within_it(emulated: ModuleType) -> None:
    stream = cuda.Stream(0)
    source, target = array_of(X, stream), array_of(np.zeros_like(X), stream)
    stream.synchronize()
    gc.collect()
    before = emulated.emulator_counters()[1]
    stream.begin_capture()
    scratch = cuda.DeviceArray.empty(X.shape, "float32", stream)
    emulated.copy(source, scratch)
    emulated.copy(scratch, target)
    del scratch
    graph = stream.end_capture()
    for _ in range(2):
        graph.launch(stream)
        np.testing.assert_array_equal(target.numpy(), X)
    del graph
    gc.collect()
    stream.synchronize()
    assert emulated.emulator_counters()[1] == before


def test_an_array_is_not_handed_into_a_capture(emulated: ModuleType) -> None:
    ours, theirs = cuda.Stream(0), cuda.Stream(0)
    array, target = array_of(X, ours), array_of(np.zeros_like(X), theirs)
    before = ByDlpack(array)
    theirs.begin_capture()
    with pytest.raises(BackendError, match=r"that stream is being captured into a graph.*before the capture"):
        emulated.copy(array, target, theirs)
    with pytest.raises(BackendError, match="that stream is being captured into a graph"):
        lend(array, theirs)
    del before
    theirs.end_capture()  # nothing broke it
    ours.begin_capture()
    with pytest.raises(BackendError, match="the array's stream is being captured into a graph, and that one"):
        lend(array, theirs)
    ours.end_capture()
    array.ready()
    ours.begin_capture()
    lend(array, theirs)  # waits for what was ready before the capture
    ours.end_capture()


def test_page_locked_memory_may_come_and_go_during_a_capture(emulated: ModuleType) -> None:
    stream = cuda.Stream(0)
    buffer = cuda.PinnedBuffer(64)
    stream.begin_capture()
    del buffer
    gc.collect()
    cuda.PinnedBuffer(64)
    cuda.Stream(0)
    cuda.Stream.borrow(1, 0).trim()
    stream.end_capture()


def test_a_capture_that_breaks_is_an_error(emulated: ModuleType) -> None:
    stream, other = cuda.Stream(0), cuda.Stream(0)
    array = array_of(X, stream)
    stream.begin_capture()
    with pytest.raises(BackendError):
        array.numpy()
    with pytest.raises(BackendError, match="cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()
    stream.begin_capture()
    other.wait_for(stream)  # and nobody waits for it
    with pytest.raises(BackendError, match="cudaErrorStreamCaptureUnjoined"):
        stream.end_capture()
    np.testing.assert_array_equal(array.numpy(), X)
