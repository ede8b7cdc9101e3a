"""Lets pieces of work on the event loop pass one after another."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """One turn in each pass of the event loop, for those that wait the longest.

    The loop looks at its sockets and timers only when all that is ready has run. If a hundred requests come at once,
    each of which takes a millisecond, then whatever needs several passes (a new connection that asks for `live`) would
    wait a hundred milliseconds for each of them.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False  # in the present pass

    async def take(self) -> None:
        """Wait for a turn. The caller has it until it waits for something else."""
        loop = asyncio.get_running_loop()
        if self._taken:
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting.append(turn)
            await turn
        else:
            self._taken = True
            loop.call_soon(self._next)

    def _next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # the caller may have stopped waiting
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._taken = False
