"""Reads what a request asks for from its inputs and parameters."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cgnrt._support.suggest import did_you_mean
from cgnrt.request.labels import Label
from cgnrt.request.options import SampleOptions
from cgnrt.request.place import Place, check_places, read_place
from cgnrt.sampling import MECHANISMS
from cgnrt.serve.protocol import InferRequest, ServeError, Tensor, short

DTYPES = ("uint8", "float32", "float16")
LAYOUTS = ("NHWC", "NCHW")
INPUTS = ("count", "seed", "start", "end", *MECHANISMS, "truncation", "pool", "place")
PLACE_VALUES = 4  # dy, dx, scale, flip

# Parameters that clients of this protocol send for any model, and that have no effect here.
_TRANSPORT = ("timeout", "binary_data_output", "priority", "sequence_id", "sequence_start", "sequence_end")
# A seed that is drawn here fits a double, so that any JSON reader keeps it exact.
_DRAWN_SEED_BITS = 53


@dataclass(frozen=True)
class Order:
    """What one request asks for: how many samples of which stream, and in which form.

    Attributes:
      end: the sample at the other end of a path of `count` images; None for consecutive samples.
      options: seed, truncation (None, one number, or float32 (count,)), pool, distinct, place (None, what to draw it
        from, or float32 (count, 4), of a path (2, 4)), and as `do` the mechanisms that have one label for all samples.
      labels: the mechanisms that have a label for each sample; for a path, for its two ends.
      outputs: their names, in order.
    """

    count: int
    start: int
    end: int | None
    options: SampleOptions
    labels: Mapping[str, Sequence[Label]]
    dtype: str
    layout: str
    outputs: tuple[str, ...]

    @property
    def given(self) -> dict[str, Any]:
        """The labels of all mechanisms that have some: one for all samples, or one for each."""
        return {**(self.options.do or {}), **self.labels}

    def piece(self, low: int, size: int) -> Order:
        """The order for some consecutive samples of this one."""
        high = min(self.count, low + size)
        options = self.options
        if isinstance(options.truncation, np.ndarray):
            options = replace(options, truncation=options.truncation[low:high])
        if isinstance(options.place, np.ndarray):
            options = replace(options, place=options.place[low:high])
        labels = {name: found[low:high] for name, found in self.labels.items()}
        return replace(self, count=high - low, start=self.start + low, options=options, labels=labels)


def read_order(
    request: InferRequest, *, outputs: Sequence[str], most_images: int, most_entries: int
) -> Order:
    """Read a request, and check everything that needs no plan.

    Args:
      outputs: the names of the plan's outputs.
      most_images: limit of `count`.  most_entries: limit of each size of a pool.
    Raises:
      ServeError: the message names the input, what it is and what is expected.
    """
    given: dict[str, Any] = {}
    form = {"dtype": DTYPES[0], "layout": LAYOUTS[0]}
    distinct = False
    for name, tensor in request.inputs.items():
        if name not in INPUTS:
            raise ServeError("invalid", f"infer: input is {_named(name, INPUTS)}")
        given[name] = _place_values(tensor) if name == "place" else _values(tensor)
    for name, value in request.parameters.items():
        if name in INPUTS:
            if name in given:
                raise ServeError(
                    "invalid", f"infer: {name} is an input and a parameter, expected one of the two."
                )
            given[name] = [value]
        elif name in form:
            form[name] = _choice(name, value, DTYPES if name == "dtype" else LAYOUTS)
        elif name == "distinct":
            if not isinstance(value, bool):
                raise ServeError("invalid", f"infer: distinct is {short(value)}, expected true or false.")
            distinct = value
        elif name not in _TRANSPORT and not name.startswith("triton_"):
            raise ServeError("invalid", f"infer: parameter is {_named(name, (*INPUTS, *form, 'distinct'))}")
    if "count" not in given:
        raise ServeError(
            "invalid",
            "infer: input 'count' is missing, expected the number of images as an input or, as in "
            '"parameters": {"count": 2}, a parameter.',
        )
    count = _integer("count", given["count"])
    if not 0 <= count <= most_images:
        raise ServeError(
            "too_large" if count > most_images else "invalid",
            f"infer: count is {count}, expected 0..{most_images}.",
        )
    usual = ("images", "labels", "place") if "place" in given else ("images", "labels")
    wanted = tuple(output.name for output in request.outputs) or usual
    for name in wanted:
        if name not in outputs:
            raise ServeError("invalid", f"infer: output is {_named(name, outputs)}")
    if len(set(wanted)) < len(wanted):
        raise ServeError("invalid", f"infer: outputs are {', '.join(wanted)}, expected each once.")
    end = _integer("end", given["end"]) if "end" in given else None
    if end is not None and "pool" in given:
        raise ServeError("invalid", "infer: end is given beside a pool, expected one of the two.")
    if end is not None and distinct:
        raise ServeError("invalid", "infer: distinct is set beside end, expected one of the two.")
    labelled = count if end is None else 2  # a path has labels for its ends
    labels = {name: _labels(name, given[name], labelled) for name in MECHANISMS if name in given}
    several: dict[str, list[Label]] = {name: found for name, found in labels.items() if len(found) != 1}
    if several and "pool" in given:
        raise ServeError(
            "invalid", f"infer: {min(several)} has a class for each image, expected one beside a pool."
        )
    truncation = None
    if "truncation" in given:
        truncation = _truncation(given["truncation"], count if end is None else 1)
    try:
        options = SampleOptions(
            seed=_integer("seed", given["seed"]) if "seed" in given else secrets.randbits(_DRAWN_SEED_BITS),
            do={name: found[0] for name, found in labels.items() if name not in several},
            truncation=truncation,
            distinct=distinct,
            pool=_pool(given["pool"], most_entries) if "pool" in given else None,
            place=_place(given["place"], labelled) if "place" in given else None,
        )
    except (ValueError, TypeError) as error:
        raise ServeError("invalid", str(error)) from error
    start = _integer("start", given.get("start", [0]))
    return Order(count, start, end, options, several, form["dtype"], form["layout"], wanted)


def _values(tensor: Tensor) -> list[Any]:
    """The values of an input. At most one dimension may be larger than 1."""
    if sum(extent != 1 for extent in tensor.shape) > 1:
        raise ServeError(
            "invalid", f"infer: {tensor.name} has shape {list(tensor.shape)}, expected one dimension."
        )
    found: list[Any] = tensor.data.ravel().tolist()
    return found


def _place_values(tensor: Tensor) -> np.ndarray | list[Any]:
    """The values of the input `place`: a text as that of a parameter, or the rows of numbers, (n, 4)."""
    if tensor.datatype == "BYTES":
        return _values(tensor)
    if tensor.shape[-1:] != (PLACE_VALUES,) or len(tensor.shape) > 2:
        raise ServeError(
            "invalid",
            f"infer: place has shape {list(tensor.shape)}, expected rows of {PLACE_VALUES}: dy, dx, scale, flip.",
        )
    return tensor.data.reshape(-1, PLACE_VALUES)


def _place(values: np.ndarray | Sequence[Any], count: int) -> Place | np.ndarray:
    """What places are drawn from, of a text; or those of all samples, of one row or one for each."""
    if isinstance(values, np.ndarray):
        if len(values) not in (1, count):
            raise ServeError("invalid", f"infer: place has {len(values)} rows, expected 1 or {count}.")
        return np.broadcast_to(check_places(values, len(values)), (count, PLACE_VALUES))
    text = _one("place", values)
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    if not isinstance(text, str):
        raise ServeError(
            "invalid", f"infer: place is {short(text)}, expected a text such as dx=-0.3:0.3,scale=0.5:1."
        )
    return read_place([text])  # type: ignore[return-value]  # of a text it is one, or an error


def _integer(name: str, values: Sequence[Any]) -> int:
    value = _one(name, values)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ServeError("invalid", f"infer: {name} is {short(value)}, expected an integer.")
    if not -(2**63) <= value < 2**64:
        raise ServeError("invalid", f"infer: {name} is {short(value)}, expected an integer of 64 bits.")
    return value


def _one(name: str, values: Sequence[Any]) -> Any:
    if len(values) != 1:
        raise ServeError("invalid", f"infer: {name} has {len(values)} values, expected one.")
    return values[0]


def _labels(name: str, values: Sequence[Any], count: int) -> list[Label]:
    """One class for all samples, or one for each: indices or names."""
    if len(values) not in (1, count):
        raise ServeError("invalid", f"infer: {name} has {len(values)} values, expected 1 or {count}.")
    found: list[Label] = []
    for value in values:
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError as error:
                raise ServeError("invalid", f"infer: {name} is not UTF-8, expected a class name.") from error
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ServeError("invalid", f"infer: {name} is {short(value)}, expected class indices or names.")
        found.append(value)
    return found


def _truncation(values: Sequence[Any], count: int) -> float | np.ndarray:
    if len(values) not in (1, count):
        expected = f"1 or {count}" if count > 1 else "1"
        raise ServeError("invalid", f"infer: truncation has {len(values)} values, expected {expected}.")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
            raise ServeError("invalid", f"infer: truncation is {short(value)}, expected numbers.")
    factors = np.asarray(values, np.float32)
    return float(factors[0]) if len(values) == 1 else factors


def _pool(values: Sequence[Any], most: int) -> tuple[int, int, int]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ServeError("invalid", f"infer: pool is {short(value)}, expected integers.")
        if most < value:
            raise ServeError("too_large", f"infer: pool is {short(value)}, expected at most {most}.")
    if len(values) not in (1, 3):
        raise ServeError("invalid", f"infer: pool has {len(values)} values, expected 1 or 3.")
    masks, foregrounds, backgrounds = values if len(values) == 3 else (values[0],) * 3
    return masks, foregrounds, backgrounds


def _choice(name: str, value: Any, choices: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ServeError("invalid", f"infer: {name} is {short(value)}, expected {' or '.join(choices)}.")
    return value


def _named(name: str, known: Sequence[str]) -> str:
    return f"{short(name)}, expected one of {', '.join(known)}.{did_you_mean(name, known)}"
