"""Requests take turns on the event loop, so that `live` waits for none of them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from serving import LIVE, answers, connected, generator, running

from cgnrt.serve.connections import Connection
from cgnrt.serve.service import Service
from cgnrt.serve.turns import Turns


def passes(work: Any) -> Any:
    """Run `work` on an event loop, with a function that gives the number of the present pass."""

    async def run() -> Any:
        loop, count = asyncio.get_running_loop(), 0

        def tick() -> None:
            nonlocal count
            count += 1
            loop.call_soon(tick)

        tick()
        return await work(lambda: count)

    return asyncio.run(run())


def test_one_in_each_pass_in_the_order_in_which_they_came() -> None:
    async def work(now: Any) -> None:
        turns, seen = Turns(), []

        async def one(k: int) -> None:
            await turns.take()
            seen.append((k, now()))

        await asyncio.gather(*map(one, range(20)))
        assert [k for k, _ in seen] == list(range(20))
        assert len({at for _, at in seen}) == 20
        before = now()
        await one(20)  # nobody else waits
        assert seen[-1] == (20, before)

    passes(work)


def test_who_stops_waiting_takes_no_turn() -> None:
    async def work(now: Any) -> None:
        turns, seen = Turns(), []

        async def one(k: int) -> None:
            await turns.take()
            seen.append((k, now()))

        tasks = [asyncio.ensure_future(one(k)) for k in range(20)]
        await asyncio.sleep(0)
        for task in tasks[1:15]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [k for k, _ in seen] == [0, *range(15, 20)]
        await asyncio.wait_for(one(20), 10)

    passes(work)


def test_live_is_answered_before_what_came_earlier(
    golden_plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new connection needs several passes of the event loop, in each of which one of the others is answered."""
    service = Service(generator(golden_plan), "v2")
    answered, at = 0, {}
    metadata, live, made = service.metadata, service.live, Connection.connection_made

    def count() -> Any:
        nonlocal answered
        answered += 1
        return metadata()

    def seen(connection: Connection, transport: Any) -> None:
        at[transport.get_extra_info("peername")[1]] = answered
        made(connection, transport)

    def asked() -> bool:
        at["live"] = answered
        return live()

    monkeypatch.setattr(service, "metadata", count)
    monkeypatch.setattr(service, "live", asked)
    monkeypatch.setattr(Connection, "connection_made", seen)
    with running(service) as server, contextlib.ExitStack() as held:
        others = [held.enter_context(connected(server)) for _ in range(100)]
        for connection in others:
            connection.sendall(LIVE.replace(b"/v2/health/live", b"/v2") * 50)
        while not answered:
            pass
        with connected(server) as connection:
            connection.sendall(LIVE)
            assert answers(connection, 1) == [(200, b"")]
            port = connection.getsockname()[1]
        for connection in others:
            assert len(answers(connection, 50)) == 50
    assert at["live"] - at[port] < 50
    assert answered == 5000
