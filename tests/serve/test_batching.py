"""Requests that wait together share an engine call, and each gets what it would get alone."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Gate, arrays, generator, request, tensor, until

import cgnrt
from cgnrt.serve.batcher import Batcher, QueueEntry
from cgnrt.serve.limits import Limits
from cgnrt.serve.protocol import InferResponse, ServeError
from cgnrt.serve.service import Service


async def together(service: Service, gate: Gate, *requests: Any) -> list[Any]:
    """Answers to requests that came while the engine was busy with another."""
    first = asyncio.ensure_future(service.infer(request(tensor("count", 1))))
    await asyncio.to_thread(gate.wait)
    asked = [asyncio.ensure_future(service.infer(each)) for each in requests]
    while service.active() < 1 + len(requests):
        await asyncio.sleep(0.001)
    gate.open.set()
    await first
    found = await asyncio.gather(*asked, return_exceptions=True)
    await service.close()
    return list(found)


def test_one_call_for_requests_that_wait_together(golden_plan: Path, limits: Limits) -> None:
    alone, shared, gate = generator(golden_plan), generator(golden_plan), Gate()
    gate.hold(shared)

    async def ask() -> list[InferResponse]:
        return await together(
            Service(shared, "v2", limits=limits),
            gate,
            request(tensor("count", 2), tensor("seed", 5), outputs=("images", "labels", "mask")),
            request(tensor("count", 0), tensor("seed", 1)),
            request(tensor("count", 3), tensor("seed", 6), tensor("start", 100)),
            request(tensor("count", 2), tensor("seed", 7), tensor("texture", 0, 2)),
        )

    first, none, second, third = map(arrays, asyncio.run(ask()))
    assert gate.calls[1:] == [[2, 0, 3, 2]]
    for found, expected in (
        (first, alone.sample(2, 5, parts=True)),
        (none, alone.sample(0, 1)),
        (second, alone.sample(3, 6, start=100)),
        (third, alone(texture=[0, 2], seed=7)),
    ):
        np.testing.assert_array_equal(found["labels"], np.stack(expected.labels, 1))
        np.testing.assert_allclose(found["images"].astype(int), expected.images.astype(int), atol=1)
    np.testing.assert_allclose(first["mask"], alone.sample(2, 5, parts=True).mask, atol=1e-5)
    assert "mask" not in second


def test_noise_of_merged_requests_is_exact(golden_plan: Path) -> None:
    gen = generator(golden_plan)
    requests = [gen.prepare(n=3, seed=1), gen.prepare(n=2, seed=2**64 - 1, start=9), gen.prepare(n=0, seed=4)]
    batches = gen.render(requests)
    for batch, expected in zip(batches, (gen.sample(3, 1), gen.sample(2, 2**64 - 1, start=9)), strict=False):
        for got, wanted in zip(batch.noise, expected.noise, strict=True):
            np.testing.assert_array_equal(got, wanted)
        assert batch.seed == expected.seed
        np.testing.assert_array_equal(batch.indices, expected.indices)
    assert len(batches[2]) == 0


def test_long_requests_take_turns(golden_plan: Path, limits: Limits) -> None:
    alone, shared, gate = generator(golden_plan), generator(golden_plan), Gate()
    gate.hold(shared)

    async def ask() -> list[InferResponse]:
        return await together(
            Service(shared, "v2", limits=limits),
            gate,
            request(tensor("count", 20), tensor("seed", 5), outputs=("images", "labels", "foreground")),
            request(tensor("count", 6), tensor("seed", 6)),
        )

    long, short = map(arrays, asyncio.run(ask()))
    assert gate.calls[1:] == [[8], [6], [8], [4]]  # the short one waits for one turn of the long one
    for found, expected in ((long, alone.sample(20, 5, parts=True)), (short, alone.sample(6, 6))):
        np.testing.assert_array_equal(found["labels"], np.stack(expected.labels, 1))
        np.testing.assert_allclose(found["images"].astype(int), expected.images.astype(int), atol=1)
    np.testing.assert_allclose(long["foreground"], alone.sample(20, 5, parts=True).foreground, atol=1e-5)


def test_other_forms_wait_for_their_own_call(golden_plan: Path, limits: Limits) -> None:
    shared, gate = generator(golden_plan), Gate()
    gate.hold(shared)

    async def ask() -> list[InferResponse]:
        return await together(
            Service(shared, "v2", limits=limits),
            gate,
            request(tensor("count", 2)),
            request(tensor("count", 2), dtype="float32", layout="NCHW"),
            request(tensor("count", 2)),
            request(tensor("count", 2), tensor("pool", 2)),
        )

    first, other, second, pooled = map(arrays, asyncio.run(ask()))
    assert gate.calls[1] == [2, 2]
    assert (first["images"].shape, second["images"].dtype) == ((2, 8, 8, 3), np.uint8)
    assert (other["images"].shape, other["images"].dtype) == ((2, 3, 8, 8), np.float32)
    assert pooled["images"].shape == (2, 8, 8, 3)


def test_what_fails_together_is_tried_alone(golden_plan: Path, limits: Limits) -> None:
    shared, gate = generator(golden_plan), Gate()
    gate.hold(shared, fails_at=3)

    async def ask() -> list[Any]:
        return await together(
            Service(shared, "v2", limits=limits),
            gate,
            request(tensor("count", 2)),
            request(tensor("count", 3)),
            request(tensor("count", 1)),
        )

    good, bad, also_good = asyncio.run(ask())
    assert arrays(good)["images"].shape[0] == 2
    assert arrays(also_good)["images"].shape[0] == 1
    assert isinstance(bad, ServeError)
    assert bad.kind == "internal"
    assert "engine" not in str(bad)  # that is for the log


def test_a_stream_is_one_request_in_pieces(golden_plan: Path, limits: Limits) -> None:
    alone = generator(golden_plan)

    async def ask() -> list[InferResponse]:
        service = Service(generator(golden_plan), "v2", limits=limits)
        asked = request(tensor("count", 40), tensor("seed", 3), tensor("shape", *(i % 3 for i in range(40))))
        found = [piece async for piece in service.stream(asked)]
        none = [piece async for piece in service.stream(request(tensor("count", 0)))]
        assert [arrays(piece)["images"].shape[0] for piece in none] == [0]
        await service.close()
        return found

    pieces = asyncio.run(ask())
    assert [piece.parameters["start"] for piece in pieces] == [0, 16, 32]
    images = np.concatenate([arrays(piece)["images"] for piece in pieces])
    expected = alone([i % 3 for i in range(40)], seed=3)
    np.testing.assert_allclose(images.astype(int), expected.images.astype(int), atol=1)


def test_pools_that_are_to_be_made_count(golden_plan: Path, limits: Limits) -> None:
    shared, gate = generator(golden_plan), Gate()
    gate.hold(shared)
    pool = (tensor("count", 2), tensor("seed", 3), tensor("pool", 3, 6, 9))

    async def ask() -> None:
        service = Service(shared, "v2", limits=limits)

        async def waits(images: int) -> None:
            while f"cgnrt_queue_images {images}.0\n" not in service.metrics.text().decode():
                await asyncio.sleep(0.001)

        asked = [asyncio.ensure_future(service.infer(request(tensor("count", 1))))]
        await asyncio.to_thread(gate.wait)
        asked.append(asyncio.ensure_future(service.infer(request(*pool))))
        await waits(2 + 6)
        with pytest.raises(ServeError, match="images that wait are 8, expected at most 16"):
            await service.infer(request(tensor("count", 1), tensor("pool", 64)))
        gate.open.set()
        await asyncio.gather(*asked)
        gate.open.clear()
        asked = [asyncio.ensure_future(service.infer(request(tensor("count", 1))))]
        await asyncio.to_thread(gate.wait)
        asked.append(asyncio.ensure_future(service.infer(request(*pool, tensor("start", 7)))))
        await waits(2)  # the pool is there
        asked.append(asyncio.ensure_future(service.infer(request(*pool, tensor("texture", 1)))))
        await waits(2 + 8)
        gate.open.set()
        await asyncio.gather(*asked)
        await service.close()

    asyncio.run(asyncio.wait_for(ask(), 20))


def test_a_stream_that_has_begun_waits_for_no_room(golden_plan: Path, limits: Limits) -> None:
    shared, gate = generator(golden_plan), Gate()
    gate.hold(shared)
    gate.open.set()

    async def ask() -> list[int]:
        service = Service(shared, "v2", limits=limits)

        async def shows(*lines: str) -> None:
            while not all(f"{line}.0\n" in service.metrics.text().decode() for line in lines):
                await asyncio.sleep(0.001)

        stream = service.stream(request(tensor("count", 40)))
        pieces = [await anext(stream)]
        while sum(map(sum, gate.calls)) < 32:  # one piece is made ahead
            await asyncio.sleep(0.001)
        await shows("cgnrt_running_requests 0")
        gate.open.clear()
        others = [asyncio.ensure_future(service.infer(request(tensor("count", 1))))]
        await shows("cgnrt_queue_images 0", "cgnrt_running_requests 1")
        others += [asyncio.ensure_future(service.infer(request(tensor("count", 8)))) for _ in range(2)]
        await shows("cgnrt_queue_images 16")  # which is full
        pieces.append(await anext(stream))
        await shows("cgnrt_queue_images 24")
        gate.open.set()
        pieces += [piece async for piece in stream]
        await asyncio.gather(*others)
        await service.close()
        return [len(arrays(piece)["images"]) for piece in pieces]

    assert asyncio.run(asyncio.wait_for(ask(), 20)) == [16, 16, 8]


def test_a_few_streams_at_once(golden_plan: Path, limits: Limits) -> None:
    async def ask() -> None:
        service = Service(generator(golden_plan), "v2", limits=replace(limits, streams=2, queue=8))
        streams = [service.stream(request(tensor("count", 100))) for _ in range(3)]
        for stream in streams[:2]:
            await anext(stream)
        with pytest.raises(ServeError, match="streams under way are 2, expected at most 2") as found:
            await anext(streams[2])
        assert found.value.kind == "unavailable"
        # Their pieces wait in no queue of others.
        assert len((await service.infer(request(tensor("count", 8)))).outputs) == 2
        await streams[0].aclose()  # type: ignore[attr-defined]
        again = service.stream(request(tensor("count", 20)))
        assert [arrays(piece)["images"].shape[0] async for piece in again] == [16, 4]
        await streams[1].aclose()  # type: ignore[attr-defined]
        await service.close()

    asyncio.run(ask())


def test_a_stream_that_is_left_makes_nothing_more(golden_plan: Path, limits: Limits) -> None:
    shared = generator(golden_plan)
    gate = Gate()
    gate.open.set()
    gate.hold(shared)

    async def ask() -> None:
        service = Service(shared, "v2", limits=limits)
        stream = service.stream(request(tensor("count", 1000)))
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]
        assert service.active() == 0
        await service.close()

    asyncio.run(ask())
    assert sum(map(sum, gate.calls)) <= 3 * limits.piece


def test_with_pixels_shares_the_engines(golden_plan: Path) -> None:
    gen = generator(golden_plan)
    other = gen.with_pixels("float32", "NCHW")
    expected = cgnrt.Generator(golden_plan, device="cpu", threads=1).sample(3, 1)
    np.testing.assert_array_equal(other.sample(3, 1).images, expected.images)
    assert gen.sample(1, 1).images.dtype == np.uint8
    with pytest.raises(ValueError, match="layout is"):
        gen.with_pixels("uint8", "CHWN")


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_refuses(golden_plan: Path) -> None:
    """The thread that would answer is in the parent."""
    service = Service(generator(golden_plan), "v2")
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            asyncio.run(service.infer(request(tensor("count", 1))))
        except ServeError as error:
            os._exit(0 if f"runs in process {os.getppid()}, expected this one" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    asyncio.run(service.close())


FAILURES = [
    (QueueEntry, "turn", MemoryError(), "unavailable"),
    (QueueEntry, "take", MemoryError(), "unavailable"),
    (QueueEntry, "keep", MemoryError(), "unavailable"),
    (QueueEntry, "finish", MemoryError(), "unavailable"),
    (Batcher, "_join_others", MemoryError(), "unavailable"),
    (Batcher, "_render", MemoryError(), "unavailable"),
    (Batcher, "_make", MemoryError(), "unavailable"),
    (Batcher, "_make", SystemExit(), "internal"),
    (Batcher, "_make", RuntimeError("broken"), "internal"),
]


@pytest.mark.parametrize(("kind", "method", "error", "expected"), FAILURES)
def test_whatever_fails_the_next_request_is_answered(
    golden_plan: Path,
    limits: Limits,
    monkeypatch: pytest.MonkeyPatch,
    kind: type,
    method: str,
    error: BaseException,
    expected: str,
) -> None:
    original = getattr(kind, method)

    def fail(self: Any, *arguments: Any) -> Any:
        if threading.current_thread().name == "cgnrt-batcher":
            raise error
        return original(self, *arguments)

    async def ask() -> None:
        service = Service(generator(golden_plan), "v2", limits=limits)
        monkeypatch.setattr(kind, method, fail)
        for _ in range(2):
            with pytest.raises(ServeError) as caught:
                await service.infer(request(tensor("count", 20)))
            assert caught.value.kind == expected
        monkeypatch.undo()
        assert service.ready()
        assert len(arrays(await service.infer(request(tensor("count", 20))))["images"]) == 20
        assert service.under_way.count("bytes of answers") == 0
        await service.close()

    asyncio.run(ask())


def test_a_thread_that_has_ended_is_started_again(
    golden_plan: Path, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Batcher, "_run", lambda *_: None)
            others = set(threading.enumerate())
            service = Service(generator(golden_plan), "v2", limits=limits)
            until(lambda: not any(t.name == "cgnrt-batcher" for t in set(threading.enumerate()) - others))
            patch.setattr(threading.Thread, "start", no_thread)
            assert not service.ready()
            with pytest.raises(ServeError, match="the system has no thread for it"):
                await service.infer(request(tensor("count", 2)))
        assert service.ready()
        assert len(arrays(await service.infer(request(tensor("count", 2))))["images"]) == 2
        await service.close()

    asyncio.run(ask())


def test_a_thread_that_ended_within_a_turn_keeps_no_request_waiting(
    golden_plan: Path, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(self: Batcher, worker: Any) -> None:
        with self._ready:
            self._ready.wait_for(lambda: self._queue)
            worker.entries = [self._queue.popleft()]

    async def ask() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Batcher, "_run", ends)
            others = set(threading.enumerate())
            service = Service(generator(golden_plan), "v2", limits=limits)
            lost = asyncio.ensure_future(service.infer(request(tensor("count", 2))))
            while any(t.name == "cgnrt-batcher" for t in set(threading.enumerate()) - others):
                await asyncio.sleep(0.001)
        assert len(arrays(await service.infer(request(tensor("count", 3))))["images"]) == 3
        with pytest.raises(ServeError):
            await lost
        await service.close()

    asyncio.run(asyncio.wait_for(ask(), 20))


def no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
