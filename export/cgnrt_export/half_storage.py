"""Weights in half precision in a plan: which, how they are rounded, and where they lie (docs/plan-format.md).

Half of every plan's bytes is digits that its pictures do not need. Layers' weights are rounded to float16 here, and the
runtime widens them when it loads an engine. So are tables that rows are looked up in, such as a batch norm's statistics
of each truncation. Whatever is small or needs its range stays float32: biases, scales, and the weights of a layer or
the column of a table that float16 changes by more than `LARGEST_CHANGE`.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import fx, nn

from cgnrt._support.suggest import did_you_mean
from cgnrt.plan import Weights
from cgnrt_export.emulation import layers_of
from cgnrt_export.errors import ExportError
from cgnrt_export.graph import arguments, constant, is_call
from cgnrt_export.onnx_writer import ALIGNMENT, OnnxGraph
from cgnrt_export.report import Measure, StorageReport
from cgnrt_export.rewrites.upsample import copied_taps

STORES = ("fp32", "fp16")
FLOOR_DB = 40.0  # of every picture against torch, as of a precision that becomes the default by itself
# Of a weight, relative to its root mean square. Rounding to float16 alone is ten times less, unless numbers are below
# its normal range.
LARGEST_CHANGE = 2e-3
_SAME_TAPS = 1e-5  # relative to the largest: how exactly a kernel must be one that up-samples
_DIGITS = 11  # of a float16
_SMALLEST = 2.0**-24  # every multiple of it below 2^-13 is a float16

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class HalfWeights:
    """A graph whose layers' weights are stored in half precision.

    Attributes:
      graph: refers to the weights as they are once widened.
      member: what is stored.
      offset: where float16 begins.
      rounded: by name, the weights that are float16, as float32.
      exact: those of the whole graph before any was rounded, as the graph refers to them.
    """

    graph: bytes
    member: bytes
    offset: int
    rounded: Mapping[str, Floats]
    exact: Weights

    @property
    def storage(self) -> dict[str, Any]:
        """The field of the manifest."""
        return {"dtype": "float16", "offset": self.offset}


def storable(form: fx.GraphModule) -> list[str]:
    """Names of what may be stored in half precision: weights of layers, and tables that rows are looked up in."""
    names = list(layers_of(form))
    for node in form.graph.nodes:
        if not is_call(node, "index_select", "embedding", "index"):
            continue
        given = arguments(node)
        source = given.get("self", given.get("weight"))
        table = constant(form, source)
        if isinstance(source, fx.Node) and table is not None and _columns_fit(table):
            names.append(str(source.target))
    return list(dict.fromkeys(names))


def _columns_fit(table: torch.Tensor) -> bool:
    """Whether float16 holds each column to `LARGEST_CHANGE`: a channel of small numbers matters as much as others."""
    if table.dtype != torch.float32 or table.ndim != 2:
        return False
    change = (table.half().float() - table).norm(dim=0)
    return bool((change <= LARGEST_CHANGE * table.norm(dim=0)).all())


def store_in_half(written: OnnxGraph, names: Collection[str]) -> HalfWeights | None:
    """Round what may be stored in half precision; None where that is nothing.

    Args:
      written: from `write_onnx`.
      names: of `storable`.
    """
    model = onnx.load_model_from_string(written.graph)
    external = {tensor.name: tensor for tensor in model.graph.initializer if tensor.external_data}
    raw = {name: _raw(tensor, written.weights or b"") for name, tensor in external.items()}
    transposed = {node.input[1] for node in model.graph.node if node.op_type == "ConvTranspose"}
    rounded: dict[str, Floats] = {}
    for name in external.keys() & set(names):
        if external[name].data_type != onnx.TensorProto.FLOAT:
            continue
        weight = np.frombuffer(raw[name], "<f4").reshape(tuple(external[name].dims))
        if (half := round_to_half(weight, name in transposed)) is not None:
            rounded[name] = half
    if not rounded:
        return None
    weights = bytearray()
    offset = 0
    for name in sorted(external, key=lambda name: name in rounded):  # stable: in the order of the graph
        weights.extend(bytes(-len(weights) % ALIGNMENT))
        if name not in rounded:
            offset = len(weights) + len(raw[name])
            offset += -offset % ALIGNMENT
        _place(external[name], len(weights))
        weights.extend(raw[name])
    exact = bytes(weights)
    for name, half in rounded.items():
        start = _entries(external[name])["offset"]
        weights[int(start) : int(start) + half.nbytes] = half.tobytes()
    member = bytes(weights[:offset]) + np.frombuffer(weights, "<f4")[offset // 4 :].astype("<f2").tobytes()
    graph = model.SerializeToString(deterministic=True)
    return HalfWeights(graph, member, offset, rounded, Weights(memoryview(exact)))


def round_to_half(weight: Floats, transposed: bool) -> Floats | None:
    """Numbers near a weight that float16 holds exactly; None where they are not near enough.

    Args:
      transposed: of a transposed convolution. One that stands for up-sampling and a convolution still does so when it
        is rounded, exactly: engines recognise it.
    """
    if not np.isfinite(weight).all():
        return None
    found = _round_taps(weight) if transposed and weight.ndim == 4 else None
    if found is None:
        with np.errstate(over="ignore"):  # refused below
            found = weight.astype("<f2").astype("<f4")
    change = np.linalg.norm((found - weight).ravel().astype(np.float64))
    return found if change <= LARGEST_CHANGE * np.linalg.norm(weight.ravel().astype(np.float64)) else None


def _round_taps(weight: Floats) -> Floats | None:
    """Kernels (in, out, k + 1, l + 1) of up-sampling and a convolution, the taps of each on a grid; None for others.

    Rounded one by one, sums of taps that were equal would differ. On multiples of one power of two that is coarse
    enough for the largest of them, each is a float16, and so are their sums.
    """
    height, width = weight.shape[2:]
    if height % 2 or width % 2 or min(height, width) < 2:
        return None
    rows, columns = (copied_taps(size - 1).numpy() for size in (height, width))
    inverse_rows, inverse_columns = np.linalg.pinv(rows), np.linalg.pinv(columns)
    summed = (
        rows.sum(1).max() * columns.sum(1).max()
    )  # taps of the convolution in one of the kernel's, at most
    result = np.empty_like(weight)
    limit = _SAME_TAPS * float(np.abs(weight).max(initial=0))
    for found, kernels in zip(result, weight.astype(np.float64), strict=True):
        taps = inverse_rows @ kernels @ inverse_columns.T
        if np.abs(rows @ taps @ columns.T - kernels).max(initial=0) > limit:
            return None
        largest = np.abs(kernels).max((1, 2), initial=0, keepdims=True)
        # Rounding moves a sum by half a step for each of its taps.
        least = np.maximum(largest / (2**_DIGITS - summed / 2), _SMALLEST)
        step = np.exp2(np.ceil(np.log2(least)))
        found[:] = rows @ (np.rint(taps / step) * step) @ columns.T
    return result


def with_weights(module: fx.GraphModule, weights: Mapping[str, Floats]) -> fx.GraphModule:
    """A copy of an inference form with these weights, by name; it shares the others."""
    copied = fx.GraphModule(module, copy.deepcopy(module.graph))
    for name, value in weights.items():
        path, _, field = name.rpartition(".")
        owner = copied.get_submodule(path)
        tensor = torch.from_numpy(value)
        setattr(owner, field, nn.Parameter(tensor, False) if field in owner._parameters else tensor)
    return copied


def check_store(path: str | os.PathLike[str], store: str) -> None:
    """Refuse another store than `STORES`."""
    if store not in STORES:
        raise ValueError(
            f"export '{path}': store is {store!r}, expected one of {', '.join(STORES)}.{did_you_mean(store, STORES)}"
        )


def report_storage(
    halves: Mapping[str, HalfWeights],
    layers: Mapping[str, Collection[str]],
    pictures: Mapping[str, Sequence[Measure]],
) -> StorageReport:
    """What weights in half precision cost, if that is little enough.

    Args:
      halves: by mechanism, where something is stored in half precision.
      layers: the names of the layers' weights, by mechanism.
      pictures: the measures of the plan, by picture.
    Raises:
      ExportError: a picture in fp32 has less than `FLOOR_DB` against torch.
    """
    lowest = math.inf
    for name, measures in pictures.items():
        for measure in measures:
            if measure.precision != "fp32":
                continue
            psnr = math.inf if measure.psnr_db is None else measure.psnr_db
            if not psnr >= FLOOR_DB:  # also where it is NaN
                raise ExportError(
                    f"the {name} from weights in half precision has {psnr:.1f} dB by {measure.measured}, expected at "
                    f"least {FLOOR_DB:g} dB. Nothing was written. Store the weights in full: --store fp32"
                )
            lowest = min(lowest, psnr)
    return StorageReport(
        min_psnr_db=FLOOR_DB,
        psnr_db=None if lowest == math.inf else lowest,
        weights_bytes=sum(half.exact.nbytes for half in halves.values()),
        stored_bytes=sum(len(half.member) for half in halves.values()),
        fp32_layers={
            name: tuple(layer for layer in names if name not in halves or layer not in halves[name].rounded)
            for name, names in layers.items()
        },
    )


def _raw(tensor: onnx.TensorProto, weights: bytes) -> bytes:
    entries = _entries(tensor)
    start = int(entries["offset"])
    return weights[start : start + int(entries["length"])]


def _place(tensor: onnx.TensorProto, offset: int) -> None:
    for entry in tensor.external_data:
        if entry.key == "offset":
            entry.value = str(offset)


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}
