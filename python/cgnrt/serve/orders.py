"""From a request's inputs and parameters to what is to be made."""

from __future__ import annotations

import difflib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cgnrt.sampling import MECHANISMS
from cgnrt.serve.protocol import InferRequest, ServeError, Tensor

DTYPES = ("uint8", "float32", "float16")
LAYOUTS = ("NHWC", "NCHW")
INPUTS = ("count", "seed", "start", "end", *MECHANISMS, "truncation", "pool")

# What clients of this protocol send beside a model's own parameters, and what of it changes nothing here.
_TRANSPORT = ("timeout", "binary_data_output", "priority", "sequence_id", "sequence_start", "sequence_end")
# A seed that is drawn here is exact in a double, so that any JSON reader gives it back.
_DRAWN_SEED_BITS = 53

Labels = int | str | list[int] | list[str]


@dataclass(frozen=True)
class Order:
    """What one request asks for: how many samples of which stream, and in which form.

    Attributes:
      end: the sample at the other end of a path of `count` images; None where they are consecutive samples.
      labels: of the mechanisms that are given: one for all samples, or a list; of a path, of its two ends.
      truncation: one for all, or float32 (count,); None is the plan's.
      outputs: their names, in order.
    """

    count: int
    seed: int
    start: int
    end: int | None
    labels: Mapping[str, Labels]
    truncation: float | np.ndarray | None
    pool: tuple[int, ...] | None
    dtype: str
    layout: str
    outputs: tuple[str, ...]

    def piece(self, low: int, size: int) -> Order:
        """The order for some consecutive samples of this one."""
        high = min(self.count, low + size)
        labels = {
            name: label[low:high] if isinstance(label, list) else label for name, label in self.labels.items()
        }
        truncation = self.truncation
        if isinstance(truncation, np.ndarray):
            truncation = truncation[low:high]
        return replace(self, count=high - low, start=self.start + low, labels=labels, truncation=truncation)


def read_order(
    request: InferRequest, *, outputs: Sequence[str], most_images: int, most_entries: int
) -> Order:
    """Read and check a request, but for what only the plan knows: its classes and bounds.

    Args:
      outputs: the names that the plan has.
      most_images: limit of `count`.  most_entries: limit of each of the pools' sizes.
    Raises:
      ServeError: the message names the input, what it is and what is expected.
    """
    given: dict[str, Any] = {}
    form = {"dtype": DTYPES[0], "layout": LAYOUTS[0]}
    for name, tensor in request.inputs.items():
        if name not in INPUTS:
            raise ServeError("invalid", f"infer: input is {_named(name, INPUTS)}")
        given[name] = _values(tensor)
    for name, value in request.parameters.items():
        if name in INPUTS:
            if name in given:
                raise ServeError(
                    "invalid", f"infer: {name} is an input and a parameter, expected one of the two."
                )
            given[name] = [value]
        elif name in form:
            form[name] = _choice(name, value, DTYPES if name == "dtype" else LAYOUTS)
        elif name not in _TRANSPORT and not name.startswith("triton_"):
            raise ServeError("invalid", f"infer: parameter is {_named(name, (*INPUTS, *form))}")
    if "count" not in given:
        raise ServeError("invalid", "infer: input 'count' is missing, expected the number of images.")
    count = _integer("count", given["count"])
    if not 0 <= count <= most_images:
        raise ServeError(
            "too_large" if count > most_images else "invalid",
            f"infer: count is {count}, expected 0..{most_images}.",
        )
    wanted = tuple(output.name for output in request.outputs) or ("images", "labels")
    for name in wanted:
        if name not in outputs:
            raise ServeError("invalid", f"infer: output is {_named(name, outputs)}")
    if len(set(wanted)) < len(wanted):
        raise ServeError("invalid", f"infer: outputs are {', '.join(wanted)}, expected each once.")
    end = _integer("end", given["end"]) if "end" in given else None
    if end is not None and "pool" in given:
        raise ServeError("invalid", "infer: end is given beside a pool, expected one of the two.")
    labelled = count if end is None else 2  # a path has classes for its ends
    return Order(
        count=count,
        seed=_integer("seed", given["seed"]) if "seed" in given else secrets.randbits(_DRAWN_SEED_BITS),
        start=_integer("start", given.get("start", [0])),
        end=end,
        labels={name: _labels(name, given[name], labelled) for name in MECHANISMS if name in given},
        truncation=_truncation(given["truncation"], count if end is None else 1)
        if "truncation" in given
        else None,
        pool=_pool(given["pool"], most_entries) if "pool" in given else None,
        dtype=form["dtype"],
        layout=form["layout"],
        outputs=wanted,
    )


def _values(tensor: Tensor) -> list[Any]:
    """The values of an input of at most one dimension that counts."""
    if sum(extent != 1 for extent in tensor.shape) > 1:
        raise ServeError(
            "invalid", f"infer: {tensor.name} has shape {list(tensor.shape)}, expected one dimension."
        )
    found: list[Any] = tensor.data.ravel().tolist()
    return found


def _integer(name: str, values: Sequence[Any]) -> int:
    value = _one(name, values)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ServeError("invalid", f"infer: {name} is {_short(value)}, expected an integer.")
    if not -(2**63) <= value < 2**64:
        raise ServeError("invalid", f"infer: {name} is {_short(value)}, expected an integer of 64 bits.")
    return value


def _one(name: str, values: Sequence[Any]) -> Any:
    if len(values) != 1:
        raise ServeError("invalid", f"infer: {name} has {len(values)} values, expected one.")
    return values[0]


def _labels(name: str, values: Sequence[Any], count: int) -> Labels:
    """One class for all samples, or one for each: indices or names."""
    if len(values) not in (1, count):
        raise ServeError("invalid", f"infer: {name} has {len(values)} values, expected 1 or {count}.")
    found: list[Any] = []
    for value in values:
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError as error:
                raise ServeError("invalid", f"infer: {name} is no UTF-8, expected a class name.") from error
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ServeError("invalid", f"infer: {name} is {_short(value)}, expected class indices or names.")
        found.append(value)
    single: Labels = found[0] if len(found) == 1 else found
    return single


def _truncation(values: Sequence[Any], count: int) -> float | np.ndarray:
    if len(values) not in (1, count):
        expected = f"1 or {count}" if count > 1 else "1"
        raise ServeError("invalid", f"infer: truncation has {len(values)} values, expected {expected}.")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
            raise ServeError("invalid", f"infer: truncation is {_short(value)}, expected numbers.")
    factors = np.asarray(values, np.float32)
    return float(factors[0]) if len(values) == 1 else factors


def _pool(values: Sequence[Any], most: int) -> tuple[int, ...]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ServeError("invalid", f"infer: pool is {_short(value)}, expected integers.")
        if most < value:
            raise ServeError("too_large", f"infer: pool is {_short(value)}, expected at most {most}.")
    if len(values) not in (1, 3):
        raise ServeError("invalid", f"infer: pool has {len(values)} values, expected 1 or 3.")
    return tuple(values) if len(values) == 3 else (values[0],) * 3


def _choice(name: str, value: Any, choices: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ServeError("invalid", f"infer: {name} is {_short(value)}, expected {' or '.join(choices)}.")
    return value


def _named(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{_short(name)}, expected one of {', '.join(known)}.{hint}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:56] + " ..."
