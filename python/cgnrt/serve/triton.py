"""A plan as a model of NVIDIA Triton's Python backend: the service of `cgnrt serve` behind Triton's front end.

`cgnrt-export --triton-repository` writes a model.py that imports this; docs/triton.md says how it is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt.generator import Generator
from cgnrt.serve.log import Log
from cgnrt.serve.protocol import InferRequest, InferResponse, Kind, ServeError, Tensor, Wanted
from cgnrt.serve.service import Service
from cgnrt.serve.tensors import check_header, of_array
from cgnrt.serve.triton_options import Options

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
_LOOK_S = 0.1  # how often it is asked whether a client still waits


class TritonPythonModel:
    """What Triton runs: its methods, names and arguments are those of the Python backend.

    `execute` hands requests to the service, whose event loop is another thread's, and returns at once: answers are
    sent from there, so that requests that come together share an engine call and no more wait than the queue takes.
    """

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the plan beside model.py, and make one image with it.

        Raises:
          CgnrtError, ValueError: the plan, or a parameter in config.pbtxt, is no good; Triton logs why.
        """
        # Triton makes this module, in its own processes alone.
        self._utils = importlib.import_module("triton_python_backend_utils")
        config = json.loads(args["model_config"])
        self._decoupled = bool(config.get("model_transaction_policy", {}).get("decoupled", False))
        self._outputs = [entry["name"] for entry in config["output"]]
        options = Options.read(args["model_name"], config.get("parameters", {}))
        generator = Generator(
            Path(args["model_repository"], args["model_version"], PLAN_NAME),
            device=_device(args["model_instance_kind"], args["model_instance_device_id"]),
            backend=options.backend,
            precision=options.precision,
            threads=options.threads,
            trust_engines=options.trust_engines,
            dtype="uint8",
            layout="NHWC",
        )
        generator.sample(1, seed=0).numpy()  # a model that is ready has open engines
        self._limits = options.limits(generator.resolution)
        self._service = Service(
            generator, args["model_name"], limits=self._limits, log=Log(sys.stderr, requests=False)
        )
        self._answers: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cgnrt-triton", daemon=True)
        self._thread.start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Take requests; every one is answered through its response sender."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                read = self._read(request)
            except ServeError as error:
                self._send(sender, self._refusal(error))
            else:
                self._loop.call_soon_threadsafe(self._start, read, sender)

    def finalize(self) -> None:
        """Answer what was taken, and end."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # Requests.

    def _read(self, request: Any) -> InferRequest:
        """A request in the service's terms. Its inputs are copied: their memory is Triton's."""
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
        return max(8, self._limits.stream_images if self._decoupled else self._limits.images)

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
            response = self._failure("infer: the client went away, expected one that waits.", code)
        except Exception as error:  # whatever it is, Triton waits for an answer
            response = self._failure(f"infer: {error}", self._utils.TritonError.INTERNAL)
        self._send(sender, response)

    async def _infer(self, request: InferRequest, sender: Any) -> InferResponse:
        """The answer; cancelled when the client is gone."""
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
    """The device of an instance: KIND_CPU's and KIND_GPU's are fixed, KIND_MODEL leaves it to the plan."""
    return {"CPU": "cpu", "GPU": f"cuda:{index}"}.get(kind, "auto")
