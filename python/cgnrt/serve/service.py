"""The model behind both transports: checks requests, queues them and answers."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from cgnrt.errors import CgnrtError
from cgnrt.generator import Generator
from cgnrt.sampling import check_span
from cgnrt.serve.batcher import Arrays, Batcher, QueueEntry
from cgnrt.serve.description import VERSION, model_config, model_metadata, output_types, server_metadata
from cgnrt.serve.limits import Limits, UnderWay
from cgnrt.serve.log import Log
from cgnrt.serve.monitoring import Metrics
from cgnrt.serve.orders import Order, read_order
from cgnrt.serve.protocol import InferRequest, InferResponse, ServeError
from cgnrt.serve.tensors import ITEM_BYTES, of_array
from cgnrt.serve.turns import Turns

T = TypeVar("T")
_FEW_VALUES = 256  # that are read on the event loop


class Service:
    """One plan with its queue and thread. Call its methods on one event loop.

    Args:
      generator: makes uint8 images in NHWC. The service owns it from here on.
      name: of the model.
      token: clients must send it as `Authorization: Bearer TOKEN`; None needs no token.

    Attributes:
      turns: of all requests but those for `live` and `ready`, on the event loop.
    """

    def __init__(
        self,
        generator: Generator,
        name: str,
        *,
        limits: Limits | None = None,
        token: str | None = None,
        log: Log | None = None,
    ) -> None:
        self.name = name
        self.limits = limits or Limits.usual(generator.resolution)
        self.metrics = Metrics()
        self._generator = generator
        self._token = token
        self._log = log or Log(None)
        self._outputs = output_types(generator.plan)
        self._draining = False
        self._active = 0
        self.under_way = UnderWay(self.limits)
        self.turns = Turns()
        self.metrics.gauge(
            "cgnrt_answer_bytes",
            "Memory of answers that are being made or not sent yet.",
            lambda: self.under_way.count("bytes of answers"),
        )
        self._metadata = model_metadata(name, generator.plan)
        self._config = model_config(name, generator, self.limits)  # once, since the names may be very many
        self._config_json = json.dumps(self._config).encode()
        self._helpers = ThreadPoolExecutor(2, thread_name_prefix="cgnrt-serve")
        self._batcher = Batcher(generator, self.limits, self.metrics)
        self.metrics.gauge(
            "cgnrt_active_requests", "Requests that were accepted and not answered yet.", self.active
        )

    # Description.

    @property
    def has_token(self) -> bool:
        """Whether clients must send a token."""
        return self._token is not None

    def live(self) -> bool:
        """Whether the process answers."""
        return True

    def ready(self) -> bool:
        """Whether new requests are accepted."""
        return not self._draining and self._batcher.works()

    def model_ready(self, name: str, version: str = "") -> bool:
        """Whether this model accepts requests; False for an unknown model."""
        return name == self.name and version in ("", VERSION) and self.ready()

    def active(self) -> int:
        """Requests that were accepted and not answered yet."""
        return self._active

    def metadata(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return server_metadata()

    def model_metadata(self, name: str, version: str = "") -> dict[str, Any]:
        """Inputs and outputs; -1 is any size.

        Raises:
          ServeError: the model or version is unknown.
        """
        self.check_model(name, version)
        return self._metadata

    def config(self, name: str, version: str = "") -> dict[str, Any]:
        """Triton's model configuration. Classes, resolution and limits are among its parameters, as JSON.

        Raises:
          ServeError: the model or version is unknown.
        """
        self.check_model(name, version)
        return self._config

    def config_json(self, name: str, version: str = "") -> bytes:
        """The same, as it is sent over HTTP."""
        self.check_model(name, version)
        return self._config_json

    def check_model(self, name: str, version: str = "") -> None:
        """Refuse an unknown model or version."""
        if name != self.name:
            raise ServeError("not_found", f"find model: name is {name[:100]!r}, expected '{self.name}'.")
        if version not in ("", VERSION):
            raise ServeError("not_found", f"find model: version is {version[:100]!r}, expected '{VERSION}'.")

    def check_token(self, authorization: str | None) -> None:
        """Refuse a request without the token. The time that this takes does not depend on the token.

        Args:
          authorization: the value of the header.
        """
        if self._token is None:
            return
        expected = f"Bearer {self._token}".encode()
        if not hmac.compare_digest((authorization or "").encode("utf-8", "surrogateescape"), expected):
            raise ServeError(
                "unauthenticated", "authorize: token is missing or wrong, expected the server's bearer token."
            )

    # Requests.

    def let_in(self, held: contextlib.ExitStack) -> None:
        """Count a request as under way until `held` is closed, which is when its answer is sent.

        Raises:
          ServeError: too many are under way.
        """
        try:
            held.enter_context(self.under_way.request())
        except ServeError as error:
            self.metrics.requests.labels(error.kind).inc()
            raise

    async def infer(self, request: InferRequest, held: contextlib.ExitStack | None = None) -> InferResponse:
        """Answer in one piece.

        Args:
          held: of `let_in`; the answer's memory counts until it is closed. None counts it during this call.
        Raises:
          ServeError: the request is refused, or fails.
        """
        started = time.perf_counter()
        with self._accounted(request) as seen, contextlib.ExitStack() as own:
            order = await self._read(request, self.limits.images)
            seen |= {"images": order.count, "seed": order.options.seed}
            (own if held is None else held).enter_context(self.under_way.answer(self._answer_bytes(order)))
            arrays = await self._make(order, self._timeout(request))
        self.metrics.images.inc(order.count)
        self.metrics.latency.observe(time.perf_counter() - started)
        return self._response(request, order, arrays)

    async def stream(self, request: InferRequest) -> AsyncGenerator[InferResponse]:
        """Answer in pieces of consecutive samples, in order. One is made while another is sent.

        Raises:
          ServeError: the request is refused, or fails, before or between pieces.
        """
        with contextlib.ExitStack() as held, self._accounted(request) as seen:
            held.enter_context(self.under_way.stream())
            order = await self._read(request, self.limits.stream_images)
            seen |= {"images": order.count, "seed": order.options.seed}
            # One piece is sent, as arrays and as a message, and one is made.
            pieces_images = min(order.count, 3 * self.limits.piece)
            held.enter_context(self.under_way.answer(self._answer_bytes(replace(order, count=pieces_images))))
            timeout_s = self._timeout(request)
            _check_stream(order)
            pieces = [
                order.piece(low, self.limits.piece)
                for low in range(0, max(1, order.count), self.limits.piece)
            ]
            ahead = asyncio.ensure_future(self._make(pieces[0], timeout_s))
            try:
                for k, piece in enumerate(pieces):
                    arrays = await ahead
                    if k + 1 < len(pieces):
                        ahead = asyncio.ensure_future(self._make(pieces[k + 1], timeout_s, begun=True))
                    self.metrics.images.inc(piece.count)
                    yield replace(self._response(request, piece, arrays), last=k + 1 == len(pieces))
            finally:
                ahead.cancel()
                with contextlib.suppress(asyncio.CancelledError, CgnrtError):
                    await ahead

    def drain(self) -> None:
        """Accept no new requests; accepted ones are finished."""
        self._draining = True

    async def close(self) -> None:
        """Finish the accepted requests, and end the thread."""
        self.drain()
        await asyncio.to_thread(self._batcher.close)
        self._helpers.shutdown(wait=False, cancel_futures=True)

    # Steps.

    @contextlib.contextmanager
    def _accounted(self, request: InferRequest) -> Any:
        """Count and log a request by how it ends. Any other error becomes a `ServeError`."""
        seen: dict[str, Any] = {}
        started = time.perf_counter()
        outcome = "cancelled"
        self._active += 1
        try:
            yield seen
            outcome = "ok"
        except ServeError as error:
            outcome = error.kind
            seen["error"] = str(error)
            raise
        except MemoryError as error:
            outcome = "unavailable"
            raise ServeError("unavailable", "infer: out of memory. Ask for fewer images.") from error
        except Exception as error:
            outcome = "internal"
            self._log.failure("infer", error)
            raise ServeError("internal", "infer: failed in the server. Its log says why.") from error
        finally:
            self._active -= 1
            self.metrics.requests.labels(outcome).inc()
            self._log.write(
                "infer",
                outcome=outcome,
                id=request.id[:100],
                ms=round(1000 * (time.perf_counter() - started), 3),
                **seen,
            )

    async def aside(self, work: Callable[[], T]) -> T:
        """The result of work that may take long, from a thread: the event loop has others to answer meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._helpers, work)

    async def _read(self, request: InferRequest, most: int) -> Order:
        if self._draining:
            raise ServeError("unavailable", "infer: the server is stopping. Try another server.")
        self.check_model(request.model, request.version)
        read = partial(
            read_order,
            request,
            outputs=tuple(self._outputs),
            most_images=most,
            most_entries=self.limits.images,
        )
        values = sum(tensor.data.size for tensor in request.inputs.values())
        return await self.aside(read) if values > _FEW_VALUES else read()

    def _answer_bytes(self, order: Order) -> int:
        """Memory of an order's arrays."""
        size_bytes = 0
        for name in order.outputs:
            datatype, shape = self._outputs[name]
            item_bytes = np.dtype(order.dtype).itemsize if name == "images" else ITEM_BYTES[datatype]
            size_bytes += order.count * math.prod(shape[1:]) * item_bytes
        return size_bytes

    def _timeout(self, request: InferRequest) -> float:
        """Seconds: the server's limit, or less if the client asks for less, in microseconds."""
        asked = request.parameters.get("timeout", 0)
        if isinstance(asked, bool) or not isinstance(asked, int) or asked < 0:
            raise ServeError("invalid", f"infer: timeout is {str(asked)[:60]}, expected microseconds.")
        # The number may be one that no float holds.
        return asked / 1e6 if 0 < asked < self.limits.timeout_s * 1e6 else self.limits.timeout_s

    async def _make(self, order: Order, timeout_s: float, *, begun: bool = False) -> Arrays:
        """The arrays of an order; `begun` if it is a further piece of a stream."""
        entry = (
            await self.aside(partial(self._entry, order)) if _takes_long(order) else self._entry(order)
        )()
        entry.begun = begun
        try:
            async with asyncio.timeout(timeout_s):
                self._batcher.submit(entry)
                return await entry.future
        except TimeoutError as error:
            raise ServeError(
                "client_timeout" if timeout_s < self.limits.timeout_s else "timeout",
                f"infer: no answer within {timeout_s:g} s, expected fewer images or a longer timeout.",
            ) from error
        finally:
            if not entry.future.done() or entry.future.cancelled():
                self._batcher.cancel(entry)

    def _entry(self, order: Order) -> Callable[[], QueueEntry]:
        """What makes the queue entry of an order on the event loop. The order is checked against the plan here."""
        make = partial(QueueEntry, (order.dtype, order.layout), order.outputs, order.count)
        options = order.options
        span: dict[str, Any] = {"n": order.count, "start": order.start}
        common = {
            "seed": options.seed,
            "truncation": options.truncation,
            "place": options.place,
            **order.given,
        }
        try:
            if order.end is not None:
                path = {"start": order.start, "end": order.end, **common}
                return partial(
                    make, alone=lambda found, parts: found.interpolate(order.count, parts=parts, **path)
                )
            if options.pool is None:
                return partial(
                    make, request=self._generator.prepare(**span, distinct=options.distinct, **common)
                )
            check_span(order.count, order.start)
            checked = self._generator.check(options, order.count)
            return partial(
                make,
                alone=lambda found, parts: found.sample(**span, **replace(checked, parts=parts)),
                pool=replace(checked, place=None),  # it serves all places
            )
        except (ValueError, TypeError) as error:
            raise ServeError("invalid", str(error)) from error

    def _response(self, request: InferRequest, order: Order, arrays: Arrays) -> InferResponse:
        outputs = tuple(of_array(name, arrays[name]) for name in order.outputs)
        parameters = {"seed": order.options.drawn_seed, "start": order.start}
        return InferResponse(self.name, VERSION, request.id, parameters, outputs)


def _takes_long(order: Order) -> bool:
    """Whether an order has many labels, or names, of which each unknown one is compared with all others."""
    given = order.given.values()
    return any(isinstance(labels, str) for labels in given) or any(
        isinstance(labels, Sequence)
        and (len(labels) > _FEW_VALUES or any(isinstance(x, str) for x in labels))
        for labels in given
    )


def _check_stream(order: Order) -> None:
    """Refuse a stream whose last pieces would be refused."""
    if order.end is not None:
        raise ServeError(
            "invalid", "infer: end is given, which a stream does not support. Ask without a stream."
        )
    try:
        check_span(order.count, order.start)
    except (ValueError, TypeError) as error:
        raise ServeError("invalid", str(error)) from error
