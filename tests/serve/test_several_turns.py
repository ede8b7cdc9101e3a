"""Several turns at a time on all cores of a CPU."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Gate, arrays, generator, request, tensor

import cgnrt
from cgnrt.serve.limits import Limits
from cgnrt.serve.protocol import InferResponse, ServeError
from cgnrt.serve.service import Service


def on_all_cores(plan: Path) -> cgnrt.Generator:
    return cgnrt.Generator(plan, dtype="uint8", layout="NHWC", device="cpu")


def test_a_whole_batch_is_made_beside_another(golden_plan: Path, limits: Limits) -> None:
    alone, shared, gate = generator(golden_plan), on_all_cores(golden_plan), Gate()
    gate.hold(shared)

    async def ask() -> list[InferResponse]:
        service = Service(shared, "v2", limits=limits)

        async def shows(*lines: str) -> None:
            while not all(f"{line}.0\n" in service.metrics.text().decode() for line in lines):
                await asyncio.sleep(0.001)

        def infer(count: int, seed: int) -> asyncio.Future[InferResponse]:
            return asyncio.ensure_future(service.infer(request(tensor("count", count), tensor("seed", seed))))

        asked = [infer(1, 0)]
        await asyncio.to_thread(gate.wait)
        asked.append(infer(5, 1))  # these wait: they are not a batch
        await shows("cgnrt_queue_images 5", "cgnrt_running_requests 1")
        asked.append(infer(3, 2))
        await asyncio.to_thread(gate.wait)
        await shows("cgnrt_queue_images 0", "cgnrt_running_requests 3")
        asked.append(infer(8, 3))  # there is no third call
        await shows("cgnrt_queue_images 8", "cgnrt_running_requests 3")
        asked.append(infer(7, 4))
        await shows("cgnrt_queue_images 15")
        with pytest.raises(ServeError, match="images that wait are 16, expected at most 16"):
            await infer(1, 5)  # the smaller one of the calls counts as one that waits
        gate.open.set()
        found = await asyncio.gather(*asked)
        await service.close()
        return found

    found = asyncio.run(asyncio.wait_for(ask(), 20))
    assert gate.calls[:2] == [[1], [5, 3]]
    assert sorted(map(sum, gate.calls[2:])) == [7, 8]
    for seed, (count, response) in enumerate(zip((1, 5, 3, 8, 7), found, strict=True)):
        expected = alone.sample(count, seed).images
        np.testing.assert_allclose(arrays(response)["images"].astype(int), expected.astype(int), atol=1)


def test_as_many_turns_as_the_limits_say(golden_plan: Path, limits: Limits) -> None:
    shared, gate = on_all_cores(golden_plan), Gate()
    gate.hold(shared)

    async def ask() -> None:
        service = Service(shared, "v2", limits=replace(limits, turns=3, queue=100))
        asked = [asyncio.ensure_future(service.infer(request(tensor("count", 8)))) for _ in range(4)]
        for _ in range(3):
            await asyncio.to_thread(gate.wait)
        assert "cgnrt_queue_images 8.0\n" in service.metrics.text().decode()
        gate.open.set()
        await asyncio.gather(*asked)
        await service.close()

    asyncio.run(asyncio.wait_for(ask(), 20))
    assert gate.calls == [[8]] * 4


def test_a_thread_that_waits_makes_what_was_behind_the_other_ones_turn(
    golden_plan: Path, limits: Limits
) -> None:
    shared, gate = on_all_cores(golden_plan), Gate()
    gate.hold(shared)

    async def ask() -> None:
        service = Service(shared, "v2", limits=limits)
        long = asyncio.ensure_future(service.infer(request(tensor("count", 16))))
        await asyncio.to_thread(gate.wait)
        short = asyncio.ensure_future(service.infer(request(tensor("count", 5))))
        while "cgnrt_queue_images 5.0\n" not in service.metrics.text().decode():
            await asyncio.sleep(0.001)
        first, gate.open = gate.open, threading.Event()
        first.set()  # the short one's turn comes, and the long one's other half, a whole batch, waits behind it
        await asyncio.to_thread(gate.wait)
        await asyncio.to_thread(gate.wait)
        assert not short.done()
        gate.open.set()
        await asyncio.gather(long, short)
        await service.close()

    asyncio.run(asyncio.wait_for(ask(), 60))
    assert gate.calls == [[8], [5], [8]]


def test_a_pool_is_made_beside_nothing_that_was_there_before(golden_plan: Path, limits: Limits) -> None:
    shared, gate = on_all_cores(golden_plan), Gate()
    gate.hold(shared)

    async def ask() -> None:
        service = Service(shared, "v2", limits=limits)
        first = asyncio.ensure_future(service.infer(request(tensor("count", 1))))
        await asyncio.to_thread(gate.wait)
        pooled = asyncio.ensure_future(service.infer(request(tensor("count", 8), tensor("pool", 2))))
        while "cgnrt_queue_images 10.0\n" not in service.metrics.text().decode():
            await asyncio.sleep(0.001)
        others = [asyncio.ensure_future(service.infer(request(tensor("count", 2))))]
        while "cgnrt_queue_images 12.0\n" not in service.metrics.text().decode():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)  # a second thread would take it meanwhile
        assert not pooled.done()
        gate.open.set()
        await asyncio.gather(first, pooled, *others)
        await service.close()

    asyncio.run(asyncio.wait_for(ask(), 20))


def test_many_clients_on_all_cores_get_what_they_asked_for(golden_plan: Path, limits: Limits) -> None:
    alone = generator(golden_plan)
    counts = [1 + 7 * k % 20 for k in range(60)]

    async def ask() -> list[InferResponse]:
        service = Service(on_all_cores(golden_plan), "v2", limits=replace(limits, queue=1000))
        forms: list[dict[str, Any]] = [{}, {"dtype": "float32", "layout": "NCHW"}]
        asked = [
            service.infer(request(tensor("count", n), tensor("seed", k), **forms[k % 7 == 0]))
            for k, n in enumerate(counts)
        ]
        found = await asyncio.gather(*asked)
        await service.close()
        return found

    for k, (count, response) in enumerate(zip(counts, asyncio.run(ask()), strict=True)):
        expected, found = alone.sample(count, k), arrays(response)
        np.testing.assert_array_equal(found["labels"], np.stack(expected.labels, 1))
        if k % 7:
            np.testing.assert_allclose(found["images"].astype(int), expected.images.astype(int), atol=1)
