"""Requests and responses of the Open Inference Protocol, the same for both transports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from cgnrt.errors import CgnrtError

MOST_TENSORS = 64  # inputs of a request, or outputs

Parameter = bool | int | float | str
Kind = Literal[
    "invalid",
    "not_found",
    "too_large",
    "unavailable",
    "timeout",
    "client_timeout",
    "unauthenticated",
    "internal",
]


class ServeError(CgnrtError):
    """A request that is refused or failed; `kind` says why.

    | kind | HTTP | gRPC |
    | --- | --- | --- |
    | invalid | 400 | INVALID_ARGUMENT |
    | not_found | 404 | NOT_FOUND |
    | too_large | 413 | RESOURCE_EXHAUSTED |
    | unavailable | 503 | RESOURCE_EXHAUSTED |
    | timeout: the server's | 504 | DEADLINE_EXCEEDED |
    | client_timeout: its own, or it sends too slowly | 408 | DEADLINE_EXCEEDED |
    | unauthenticated | 401 | UNAUTHENTICATED |
    | internal | 500 | INTERNAL |
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind

    def __reduce__(self) -> tuple[type[ServeError], tuple[Kind, str]]:
        return ServeError, (self.kind, str(self))


@dataclass(frozen=True, eq=False)
class Tensor:
    """A named tensor. Its data is C-contiguous and has its shape; BYTES is an object array of bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: np.ndarray


@dataclass(frozen=True)
class Wanted:
    """An output that a request names, with the parameters of the transport (`binary_data`, `shared_memory_region`)."""

    name: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class InferRequest:
    """One call of a model. An empty version means the newest; no outputs mean `images` and `labels`."""

    model: str
    version: str
    id: str
    inputs: Mapping[str, Tensor]
    parameters: Mapping[str, Parameter]
    outputs: tuple[Wanted, ...]


@dataclass(frozen=True, eq=False)
class InferResponse:
    """The outputs in the order of the request. `parameters` has the seed; `last` marks the end of a stream."""

    model: str
    version: str
    id: str
    parameters: Mapping[str, Parameter]
    outputs: tuple[Tensor, ...]
    last: bool = True


def short(value: object) -> str:
    """A value in an error message, at most 60 characters."""
    text = repr(value)
    return text if len(text) < 60 else text[:56] + " ..."
