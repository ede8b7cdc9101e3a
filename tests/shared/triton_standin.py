"""Triton's side of its Python backend: `triton_python_backend_utils` as it is documented, and requests.

What the real one refuses, this does too: it was written beside a Triton 2.51, whose messages it has.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import queue
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

FINAL = 1
WAIT_S = 30.0


class TritonError(Exception):
    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        super().__init__(message)
        self.message, self.code = message, code


class Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        assert isinstance(array, np.ndarray)
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._array


class InferenceResponse:
    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None) -> None:
        self.tensors = {tensor.name(): tensor.as_numpy() for tensor in output_tensors}
        self.error = error


class Sender:
    def __init__(self, decoupled: bool) -> None:
        self.responses: queue.Queue[InferenceResponse | None] = queue.Queue()  # None after the last
        self.cancelled = False
        self._decoupled, self._sent, self._closed = decoupled, 0, False

    def is_cancelled(self) -> bool:
        return self.cancelled

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        if self._closed:
            raise RuntimeError("Unable to send response. Response sender has been closed.")
        if not self._decoupled and response is not None and self._sent:
            raise RuntimeError(
                "Unable to send response. Non-decoupled model cannot send more than one response."
            )
        if not self._decoupled and response is None and not self._sent:
            raise RuntimeError(
                "Unable to send response. Non-decoupled model cannot send complete final before sending a response."
            )
        if response is not None:
            self._sent += 1
            self.responses.put(response)
        if flags == FINAL:
            self._closed = True
            self.responses.put(None)


@dataclass
class Request:
    """A request on its way; its tensors' memory is gone once `execute` has returned."""

    tensors: dict[str, np.ndarray]
    outputs: Sequence[str]
    options: Mapping[str, Any]
    sender: Sender
    timeout_us: int = 0

    def inputs(self) -> list[Tensor]:
        return [Tensor(name, array) for name, array in self.tensors.items()]

    def requested_output_names(self) -> set[str]:
        return set(self.outputs)

    def parameters(self) -> str:
        return json.dumps(self.options)

    def timeout(self) -> int:
        return self.timeout_us

    def request_id(self) -> str:
        return ""

    def get_response_sender(self) -> Sender:
        return self.sender

    def answer(self) -> InferenceResponse:
        """The one response."""
        (found,) = self.answers()
        return found

    def answers(self) -> list[InferenceResponse]:
        """All responses."""
        return list(iter(lambda: self.sender.responses.get(timeout=WAIT_S), None))


def read_config(folder: Path) -> Any:
    """A config.pbtxt as Triton reads it: by its protobuf, unknown fields and types refused."""
    text = (folder / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@dataclass
class Loaded:
    """A model that Triton has loaded."""

    model: Any
    config: Any
    requests: list[Request] = field(default_factory=list)

    def ask(self, outputs: Sequence[str] = (), *, timeout_us: int = 0, **given: Any) -> Request:
        """Execute one request; no outputs are all, as with Triton. Values that are not arrays are parameters."""
        every = [entry.name for entry in self.config.output]
        tensors = {name: value for name, value in given.items() if isinstance(value, np.ndarray)}
        options = {name: value for name, value in given.items() if name not in tensors}
        sender = Sender(self.config.model_transaction_policy.decoupled)
        request = Request(dict(tensors), outputs or every, options, sender, timeout_us)
        assert self.model.execute([request]) is None
        for array in tensors.values():
            array.fill(b"" if array.dtype == object else 0)
        self.requests.append(request)
        return request


@contextlib.contextmanager
def loaded(folder: Path, *, kind: str = "CPU") -> Iterator[Loaded]:
    """Load version 1 of a model as Triton does, and unload it."""
    config = read_config(folder)
    utils = types.ModuleType("triton_python_backend_utils")
    vars(utils).update(
        Tensor=Tensor,
        InferenceResponse=InferenceResponse,
        TritonError=TritonError,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=FINAL,
    )
    spec = importlib.util.spec_from_file_location("model", folder / "1" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    arguments = {
        "model_config": json.dumps(json_format.MessageToDict(config, preserving_proto_field_name=True)),
        "model_instance_kind": kind,
        "model_instance_name": f"{config.name}_0_0",
        "model_instance_device_id": "0",
        "model_repository": str(folder),
        "model_version": "1",
        "model_name": config.name,
    }
    sys.modules[utils.__name__] = utils
    try:
        model.initialize(arguments)
    finally:
        del sys.modules[utils.__name__]
    try:
        yield Loaded(model, config)
    finally:
        model.finalize()
