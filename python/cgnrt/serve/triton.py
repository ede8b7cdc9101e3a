"""A plan as a model of NVIDIA Triton's Python backend: the service of `cgnrt serve` behind Triton's front end.

`cgnrt-export --triton-repository` writes a model.py that imports this; docs/triton.md says how it is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import json
import math
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt._support.suggest import did_you_mean
from cgnrt.generator import Generator
from cgnrt.serve.limits import Limits
from cgnrt.serve.log import Log
from cgnrt.serve.protocol import InferRequest, InferResponse, Kind, ServeError, Tensor, Wanted
from cgnrt.serve.service import Service
from cgnrt.serve.tensors import check_header, of_array

PLAN_NAME = "cgn.plan"

# What Triton calls them; over HTTP they are 400, 404, 503 and 500. It has no other code for a timeout.
_CODES: dict[Kind, str] = {
    "invalid": "INVALID_ARG",
    "too_large": "INVALID_ARG",
    "not_found": "NOT_FOUND",
    "unavailable": "UNAVAILABLE",
    "timeout": "UNAVAILABLE",
    "client_timeout": "UNAVAILABLE",
}
# A stream's pieces may wait in Triton's memory until the client takes them.
_STREAMED_REQUESTS = 16
_LOOK_S = 0.1  # how often the server looks whether a client still waits


@dataclass(frozen=True)
class TritonOptions:
    """The `parameters` of a config.pbtxt; None is the default of `Limits.usual`.

    Attributes:
      backend, precision, threads, trust_engines: as for `Generator`.
      images: limit of one request.  stream_images: limit of one request that is answered as a stream.
      queue: limit of the images that wait.  timeout_s: from a request to its answer.
      bank_cache_bytes: as for `Generator`; None is its default.
    """

    backend: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    trust_engines: bool = False
    images: int | None = None
    stream_images: int | None = None
    queue: int | None = None
    timeout_s: float | None = None
    bank_cache_bytes: int | None = None

    @classmethod
    def read(cls, model: str, parameters: Mapping[str, Mapping[str, Any]]) -> TritonOptions:
        """Read the parameters of Triton's model configuration. Names in capitals are Triton's own.

        Raises:
          ValueError: a name is unknown, or a value is out of range.
        """
        readers = {
            "backend": _text,
            "precision": _text,
            "threads": _count,
            "trust_engines": _switch,
            "images": _count,
            "stream_images": _count,
            "queue": _count,
            "timeout_s": _seconds,
            "bank_cache_bytes": _bytes,
        }
        found: dict[str, Any] = {}
        for name, value in parameters.items():
            if name == name.upper():
                continue
            if name not in readers:
                hint = did_you_mean(name, readers)
                raise ValueError(
                    f"load '{model}': parameter is '{name}', expected one of {', '.join(readers)}.{hint}"
                )
            text = str(value.get("string_value", ""))
            try:
                found[name] = readers[name](text)
            except ValueError as error:
                raise ValueError(
                    f"load '{model}': parameter {name} is {text!r}, expected {error}. Change its config.pbtxt."
                ) from None
        return cls(**found)

    def limits(self, resolution: tuple[int, int]) -> Limits:
        """The limits of a service with these options."""
        usual = Limits.usual(resolution, images=self.images, queue=self.queue, timeout_s=self.timeout_s)
        return dataclasses.replace(
            usual, stream_images=self.stream_images or _STREAMED_REQUESTS * usual.images
        )


class TritonPythonModel:
    """The class that Triton runs. Its methods and their arguments are defined by the Python backend.

    `execute` hands requests to the service, whose event loop runs in another thread, and returns at once. Answers are
    sent from that thread, so that requests that come together share an engine call and the queue limits how many wait.
    """

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the plan beside model.py, and make one image with it.

        Raises:
          CgnrtError, ValueError: the plan or a parameter in config.pbtxt is refused; Triton logs why.
        """
        # Triton provides this module, only in its own processes.
        self._utils = importlib.import_module("triton_python_backend_utils")
        config = json.loads(args["model_config"])
        self._decoupled = bool(config.get("model_transaction_policy", {}).get("decoupled", False))
        self._outputs = [entry["name"] for entry in config["output"]]
        options = TritonOptions.read(args["model_name"], config.get("parameters", {}))
        others: dict[str, Any] = {}
        if options.bank_cache_bytes is not None:
            others["bank_cache_bytes"] = options.bank_cache_bytes
        generator = Generator(
            Path(args["model_repository"], args["model_version"], PLAN_NAME),
            device=_device(args["model_instance_kind"], args["model_instance_device_id"]),
            backend=options.backend,
            precision=options.precision,
            threads=options.threads,
            trust_engines=options.trust_engines,
            dtype="uint8",
            layout="NHWC",
            **others,
        )
        generator.sample(1, seed=0).numpy()  # opens the engines
        self._limits = options.limits(generator.resolution)
        self._service = Service(
            generator, args["model_name"], limits=self._limits, log=Log(sys.stderr, requests=False)
        )
        self._answers: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cgnrt-triton", daemon=True)
        self._thread.start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Accept requests; each is answered through its response sender."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                read = self._read(request)
            except ServeError as error:
                self._send(sender, self._refusal(error))
            else:
                self._loop.call_soon_threadsafe(self._start, read, sender)

    def finalize(self) -> None:
        """Answer the accepted requests, and end."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # Requests.

    def _read(self, request: Any) -> InferRequest:
        """A request as the service reads it. Its inputs are copied: Triton owns their memory."""
        parameters = json.loads(request.parameters() or "{}")
        if request.timeout():
            parameters["timeout"] = request.timeout()
        asked = set(request.requested_output_names())
        return InferRequest(
            model=self._service.name,
            version="",
            id=request.request_id(),
            inputs={
                tensor.name(): self._tensor(tensor.name(), tensor.as_numpy()) for tensor in request.inputs()
            },
            parameters=parameters,
            outputs=tuple(Wanted(name) for name in self._outputs if name in asked),
        )

    def _tensor(self, name: str, array: np.ndarray) -> Tensor:
        if array.dtype == object:  # texts, where config.pbtxt says TYPE_STRING
            check_header(name, "BYTES", array.shape, self._most_values)
            return Tensor(name, "BYTES", array.shape, array.copy())
        tensor = of_array(name, array)
        check_header(name, tensor.datatype, tensor.shape, self._most_values)
        return Tensor(name, tensor.datatype, tensor.shape, tensor.data.copy())

    @property
    def _most_values(self) -> int:
        limits = self._limits
        return limits.values(limits.stream_images if self._decoupled else limits.images)

    # Answers, on the event loop.

    def _start(self, request: InferRequest, sender: Any) -> None:
        task = self._loop.create_task(self._answer(request, sender))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, request: InferRequest, sender: Any) -> None:
        try:
            if self._decoupled:
                await self._stream(request, sender)
                return
            response = self._reply(await self._infer(request, sender))
        except ServeError as error:
            response = self._refusal(error)
        except asyncio.CancelledError:
            code = self._utils.TritonError.CANCELLED
            response = self._failure("infer: the client cancelled the request.", code)
        except Exception as error:  # Triton waits for an answer to any request
            response = self._failure(f"infer: {error}", self._utils.TritonError.INTERNAL)
        self._send(sender, response)

    async def _infer(self, request: InferRequest, sender: Any) -> InferResponse:
        """The answer; cancelled when the client cancels."""
        working = asyncio.ensure_future(self._service.infer(request))
        while not (await asyncio.wait([working], timeout=_LOOK_S))[0]:
            if sender.is_cancelled():
                working.cancel()
        return await working

    async def _stream(self, request: InferRequest, sender: Any) -> None:
        async with contextlib.aclosing(self._service.stream(request)) as pieces:
            async for piece in pieces:
                if sender.is_cancelled():
                    break
                await asyncio.to_thread(sender.send, self._reply(piece))
        sender.send(flags=self._utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _reply(self, response: InferResponse) -> Any:
        tensors = [self._utils.Tensor(tensor.name, tensor.data) for tensor in response.outputs]
        return self._utils.InferenceResponse(output_tensors=tensors)

    def _refusal(self, error: ServeError) -> Any:
        return self._failure(str(error), getattr(self._utils.TritonError, _CODES.get(error.kind, "INTERNAL")))

    def _failure(self, message: str, code: Any) -> Any:
        error = self._utils.TritonError(message, code)
        return self._utils.InferenceResponse(output_tensors=[], error=error)

    def _send(self, sender: Any, response: Any) -> None:
        sender.send(response, flags=self._utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    async def _close(self) -> None:
        await asyncio.gather(*self._answers)
        await self._service.close()


def _device(kind: str, index: str) -> str:
    """The device of an instance: KIND_CPU and KIND_GPU fix it, any other kind leaves it open."""
    return {"CPU": "cpu", "GPU": f"cuda:{index}"}.get(kind, "auto")


def _text(text: str) -> str:
    if not text:
        raise ValueError("a name or 'auto'")
    return text


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
        raise ValueError("a whole number of at least 1")
    return int(text)


def _bytes(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise ValueError("a number of bytes of 0 or more")
    return int(text)


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError("seconds above 0")
    return value
