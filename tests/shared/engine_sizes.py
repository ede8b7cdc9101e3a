"""Compares what the plan reader works out for a graph with what ONNX Runtime and OpenVINO make of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_errors
from random_nodes import GENERATORS, Case, Data, draw_case

from cgnrt.backends.openvino import _core
from cgnrt.errors import PlanError
from cgnrt.plan.onnx.model import parse_model
from cgnrt.plan.onnx.rules import RULES
from cgnrt.plan.onnx.shapes import Effort, Info, Operands, tensor_info
from cgnrt.plan.onnx.signatures import check_signature
from cgnrt.plan.onnx.sizes import Linear

Array = NDArray[Any]
Made = dict[str, Array]

BATCHES = (2, 5)  # that a node with a batch runs with
_REFUSALS = (
    onnxruntime_errors.Fail,
    onnxruntime_errors.InvalidArgument,
    onnxruntime_errors.InvalidGraph,
    onnxruntime_errors.NotImplemented,
    onnxruntime_errors.RuntimeException,
)
_MOST = 1 << 16  # elements that a comparison lets an engine make
_TOGETHER = 48  # nodes in one model of OpenVINO, whose compiler takes longer to start than for a node


def model_of(cases: Mapping[str, Case]) -> ModelProto:
    """A model of nodes that have nothing to do with each other, by the prefix of their names."""
    nodes, data, constants, made = [], [], [], []
    for prefix, case in cases.items():
        nodes.append(case.node(prefix))
        inputs, values = case.values(prefix)
        data += inputs
        constants += values
        made += [helper.make_empty_tensor_value_info(name) for name in case.names(prefix)[1]]
    opset = next(iter(cases.values())).opset
    graph = helper.make_graph(nodes, "g", data, made, constants)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", opset)])


def worked_out(case: Case) -> list[Info] | None:
    """What the rules make of a node; None if they refuse it."""
    known: dict[str, Info | None] = {"": None}
    for name, value in zip(case.names("")[0], case.inputs, strict=True):
        if isinstance(value, Data):
            known[name] = Info((Linear(1), *value.shape[1:]) if value.batched else value.shape)
    model = model_of({"": case})
    model.graph.ClearField("input")
    model.graph.ClearField("output")
    raw = model.SerializeToString()
    try:
        parsed = parse_model(raw)
        for name, tensor in parsed.initializers.items():
            known[name] = tensor_info(tensor, raw, None)
        (node,) = parsed.nodes
        check_signature(node, parsed.opset)
        results = RULES[node.op](Operands(node, [known[n] for n in node.inputs], raw, parsed.opset, Effort()))
        if len(node.outputs) > len(results) or not all(_is_plain(info) for info in results):
            return None
        return results[: len(node.outputs)]
    except (PlanError, ArithmeticError, IndexError, TypeError, ValueError):  # as the reader refuses it
        return None


def _is_plain(info: Info) -> bool:
    """Whether every dimension is one that the reader lets pass."""
    low = 0 if len(info.dims) == 1 else 1
    return len(info.dims) <= 8 and all(dim >= (low if isinstance(dim, int) else 1) for dim in info.dims)


def at(value: Any, n: int) -> Any:
    """A size or value for a batch of n."""
    return value.slope * n + value.offset if isinstance(value, Linear) else value


def shape_at(info: Info, n: int) -> tuple[int, ...]:
    return tuple(at(dim, n) for dim in info.dims)


def batches(case: Case) -> tuple[int, ...]:
    return BATCHES if any(isinstance(value, Data) and value.batched for value in case.inputs) else (1,)


@dataclass
class Report:
    """How many nodes were compared, and those in which an engine made something else."""

    drawn: int = 0
    accepted: Counter[str] = field(default_factory=Counter)  # by operator
    compared: Counter[str] = field(default_factory=Counter)  # by engine
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Count another report's nodes too."""
        self.drawn += other.drawn
        self.accepted += other.accepted
        self.compared += other.compared
        self.wrong += other.wrong

    def check(
        self, engine: str, case: Case, infos: Sequence[Info], made: Mapping[int, Sequence[Array]]
    ) -> None:
        self.compared[engine] += 1
        for n, arrays in made.items():
            for info, array in zip(infos, arrays, strict=True):
                if shape_at(info, n) != array.shape:
                    self.wrong.append(
                        f"{engine} makes {array.shape}, not {list(info.dims)}, for n {n} of {case}"
                    )
                elif info.values is not None:
                    # Larger ones only mark the ends of slices, and all of them the same.
                    values = _within_32_bits([at(v, n) for v in info.values.reshape(-1)])
                    if not np.array_equal(values, _within_32_bits(array.reshape(-1))):
                        self.wrong.append(
                            f"{engine} calculates {array}, not {info.values}, for n {n} of {case}"
                        )


def _within_32_bits(values: Any) -> Array:
    return np.clip(np.asarray(values, np.float64), -(2**31), 2**31 - 1)


def compare_in_processes(first: int, count: int, processes: int) -> Report:
    """Compare nodes of every operator, drawn with `count` seeds from `first` on.

    An engine may end its process: then the seed is named, and nothing else of it.
    """
    report = Report()
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        futures = {seed: pool.submit(compare, *seed) for seed in _seeds(first, count)}
        for (start, number), future in futures.items():
            try:
                report.add(future.result())
            except BrokenProcessPool:
                report.wrong.append(
                    f"an engine ended its process with seeds {start}..{start + number - 1} or later"
                )
                break
    return report


def _seeds(first: int, count: int) -> Iterable[tuple[int, int]]:
    return [(start, min(16, first + count - start)) for start in range(first, first + count, 16)]


def compare(first: int, count: int) -> Report:
    """Compare nodes of every operator, those that the rules accept, with both engines."""
    report = Report()
    cases = (draw_case(op, seed) for seed in range(first, first + count) for op in sorted(GENERATORS))
    waiting: dict[int, list[tuple[Case, list[Info]]]] = {}
    for case in cases:
        report.drawn += 1
        infos = worked_out(case)
        if infos is None or any(np.prod(shape_at(i, max(BATCHES)), dtype=float) > _MOST for i in infos):
            continue
        report.accepted[case.op] += 1
        made = _by_onnxruntime(case)
        if made is not None:
            report.check("ONNX Runtime", case, infos, made)
        group = waiting.setdefault(case.opset, [])
        group.append((case, infos))
        if len(group) == _TOGETHER:
            _compare_openvino(report, waiting.pop(case.opset))
    for group in waiting.values():
        _compare_openvino(report, group)
    return report


def _by_onnxruntime(case: Case) -> dict[int, list[Array]] | None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model, names = model_of({"": case}).SerializeToString(), case.names("")[1]
    feeds = {n: case.feeds(n) for n in batches(case)}
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return {n: session.run(names, arrays) for n, arrays in feeds.items()}
    except _REFUSALS:  # nothing is made
        return None


def _compare_openvino(report: Report, group: Sequence[tuple[Case, list[Info]]]) -> None:
    """Compare some nodes in one model; if OpenVINO refuses it, in halves, down to those that it refuses."""
    cases = {f"c{k}_": case for k, (case, _) in enumerate(group)}
    made = _by_openvino(cases)
    if made is not None:
        for (prefix, case), (_, infos) in zip(cases.items(), group, strict=True):
            names = case.names(prefix)[1]
            report.check(
                "OpenVINO",
                case,
                infos,
                {n: [made[n][name] for name in names] for n in batches_of(case, made)},
            )
    elif len(group) > 1:
        half = len(group) // 2
        _compare_openvino(report, group[:half])
        _compare_openvino(report, group[half:])


def batches_of(case: Case, made: Mapping[int, Made]) -> Iterable[int]:
    return made if batches(case) == BATCHES else list(made)[:1]


def _by_openvino(cases: Mapping[str, Case]) -> dict[int, Made] | None:
    found: dict[int, Made] = {}
    model = model_of(cases).SerializeToString()
    # In the order of the graph: OpenVINO gives the inputs of nodes that do nothing other names.
    feeds = {
        n: [array for prefix, case in cases.items() for array in case.feeds(n, prefix).values()]
        for n in (BATCHES if any(batches(case) == BATCHES for case in cases.values()) else (1,))
    }
    try:
        compiled = _core().compile_model(
            _core().read_model(model=model),
            "CPU",
            {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1},
        )
        request = compiled.create_infer_request()
        for n, arrays in feeds.items():
            request.infer(arrays)
            found[n] = {
                name: request.get_tensor(output).data.copy()
                for output in compiled.outputs
                for name in output.get_names()
            }
    except RuntimeError:  # it refuses a node: nothing is made
        return None
    return found
