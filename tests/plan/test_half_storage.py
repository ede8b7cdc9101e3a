"""Weights that are stored in half precision: what a plan gives, what is refused, and the memory that it takes."""

from __future__ import annotations

import gc
import re
import threading
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from cgnrt.cli.inspect import describe, to_json
from cgnrt.errors import PlanError
from cgnrt.plan import HalfStorage, Plan, Weights, open_any, write_plan

REMOVE = object()
WEIGHT, BIAS = 1792, 256  # bytes of the golden shape's weights as float32; the bias comes first, in full


def stored(numbers: np.ndarray) -> memoryview:
    return memoryview(numbers.tobytes())


def test_half_plans_have_the_weights_of_the_full_one_rounded(
    golden_plan: Path, golden_half_plan: Path
) -> None:
    with Plan.open(golden_plan) as full, Plan.open(golden_half_plan) as half:
        for name, mechanism in half.mechanisms.items():
            size = mechanism.spec.outputs[0].shape[1] * 64  # type: ignore[operator]
            assert mechanism.spec.storage == HalfStorage(4 * size)
            exact = np.frombuffer(full.mechanisms[name].weights or b"", "<f4")
            found = np.frombuffer(mechanism.weights or b"", "<f4")
            assert np.array_equal(found[:size], exact[-size:])
            assert np.array_equal(found[size:], exact[:-size].astype(np.float16).astype(np.float32))
            assert half.member(f"mechanisms/{name}.weights").nbytes == 4 * size + 2 * (found.size - size)
            assert mechanism.model.initializers.keys() == full.mechanisms[name].model.initializers.keys()


def test_widened_weights_are_read_only_aligned_and_shared_while_in_use(golden_half_plan: Path) -> None:
    with Plan.open(golden_half_plan) as plan:
        shape = plan.mechanisms["shape"]
        view = shape.weights
        assert view is not None
        assert view.readonly
        assert view.nbytes == WEIGHT + BIAS
        array = np.frombuffer(view, np.uint8)
        assert array.ctypes.data % 64 == 0
        assert np.shares_memory(array, np.frombuffer(shape.weights or b"", np.uint8))
        plan.release_pages()
        # Someone has a view: the next one gets the same.
        assert np.shares_memory(array, np.frombuffer(shape.weights or b"", np.uint8))
        memory = weakref.ref(view.obj)
        expected = array.copy()
        del view, array
        plan.release_pages()
        gc.collect()
        assert memory() is None
        assert np.array_equal(np.frombuffer(shape.weights or b"", np.uint8), expected)


def test_views_of_widened_weights_outlive_the_plan(golden_half_plan: Path) -> None:
    plan = Plan.open(golden_half_plan)
    piece = np.frombuffer(plan.mechanisms["shape"].weights or b"", "<f4")[64:]
    expected = piece.copy()
    plan.close()
    del plan
    gc.collect()
    assert np.array_equal(piece, expected)


def test_every_finite_half_keeps_its_value_and_sign() -> None:
    halves = np.arange(1 << 16, dtype="<u2").view("<f2")
    finite = halves[np.isfinite(halves)]
    weights = Weights(stored(finite), 0)
    weights.check_finite()
    widened = np.frombuffer(weights.view(), "<f4")
    assert np.array_equal(widened.astype("<f2").view("<u2"), finite.view("<u2"))
    assert weights.piece(64, 8) == widened[16:18].tobytes()


@pytest.mark.parametrize("place", [0, (1 << 20) - 1, 1 << 20, (1 << 20) + 5])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_infinity_and_nan_are_found_wherever_they_are(place: int, value: float) -> None:
    halves = np.ones((1 << 20) + 6, "<f2")
    halves[place] = value
    weights = Weights(memoryview(bytes(64) + halves.tobytes()), 64)
    message = (
        f"float16 at byte {64 + 2 * place} of the weights member is infinity or NaN, expected a finite number"
    )
    with pytest.raises(PlanError, match=message):
        weights.check_finite()


def test_nothing_and_all_in_half() -> None:
    for raw, start in ((b"", 0), (bytes(64), 64)):
        weights = Weights(memoryview(raw), start)
        weights.check_finite()
        assert weights.nbytes == len(raw)
        assert bytes(weights.view()) == raw


def test_threads_get_equal_weights(golden_half_plan: Path) -> None:
    with Plan.open(golden_half_plan) as plan:
        found: list[bytes] = []
        shape = plan.mechanisms["shape"]
        threads = [
            threading.Thread(target=lambda: found.append(bytes(shape.weights or b""))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        assert len(set(found)) == 1


CASES: list[tuple[Any, str]] = [
    (REMOVE, r"mechanisms\.shape\.storage is missing, expected a field of the manifest"),
    ("float16", r"mechanisms\.shape\.storage is 'float16', expected an object"),
    ([], r"mechanisms\.shape\.storage is a list, expected an object"),
    ({"dtype": "float16"}, r"storage\.offset is missing"),
    ({"offset": 256}, r"storage\.dtype is missing"),
    ({"dtype": "int8", "offset": 256}, r"storage\.dtype is 'int8', expected 'float16'\. Upgrade cgnrt"),
    ({"dtype": "int8", "scales": []}, r"storage\.dtype is 'int8', expected 'float16'\. Upgrade cgnrt"),
    ({"dtype": None, "offset": 256}, r"storage\.dtype is None, expected 'float16'\. Upgrade cgnrt"),
    ({"dtype": "float16", "offset": 256, "zip": 1}, r"storage field is 'zip', expected one of dtype, offset"),
    ({"dtype": "float16", "offset": "256"}, r"storage\.offset is '256', expected an integer in 0\.\."),
    ({"dtype": "float16", "offset": 256.0}, r"storage\.offset is 256\.0, expected an integer"),
    ({"dtype": "float16", "offset": True}, r"storage\.offset is True, expected an integer"),
    ({"dtype": "float16", "offset": -64}, r"storage\.offset is -64, expected an integer"),
    ({"dtype": "float16", "offset": 2**32}, r"storage\.offset is 4294967296, expected an integer"),
    ({"dtype": "float16", "offset": 250}, r"storage\.offset is 250, expected a multiple of 64"),
    (
        {"dtype": "float16", "offset": 1216},
        r"storage\.offset is 1216, expected a byte of '.*' with an even number",
    ),
    # The bias would be float16, too, and the member too short.
    (
        {"dtype": "float16", "offset": 0},
        r"external data is bytes 256\.\.2048, .*|weights bytes 2048\.\.2304 is used",
    ),
    ({"dtype": "float16", "offset": 320}, r"external data is bytes 256\.\.2048, expected .*"),
    (
        {"dtype": "float16", "offset": 1152},
        r"external data is bytes 256\.\.2048, expected a part of the 1152",
    ),
    (None, r"external data is bytes 256\.\.2048, expected a part of the 1152 bytes"),
]


@pytest.mark.parametrize(("value", "message"), CASES, ids=[f"{n}" for n in range(len(CASES))])
def test_a_wrong_storage_is_named(half_parts: Any, value: Any, message: str, tmp_path: Path) -> None:
    spec = half_parts.manifest["mechanisms"]["shape"]
    if value is REMOVE:
        del spec["storage"]
    else:
        spec["storage"] = value
    assert re.search(message, half_parts.refusal())
    if value is not REMOVE:  # what is left out is written as "in full"
        with pytest.raises(PlanError, match=message):
            write_plan(tmp_path / "new.plan", half_parts.manifest, half_parts.members)


def test_an_initializer_across_the_offset_is_refused(half_parts: Any) -> None:
    model = half_parts.graph()
    for pair in model.graph.initializer[
        0
    ].external_data:  # the bias, whose 256 bytes end where float16 begins
        if pair.key == "offset":
            pair.value = "64"
    message = half_parts.set_graph(model).refusal()
    assert (
        "'bias': external data is bytes 64..320, expected all before byte 256 of the weights or all behind"
        in message
    )


def test_only_float32_is_stored_in_half(half_parts: Any) -> None:
    model = half_parts.graph()
    model.graph.initializer[1].data_type = TensorProto.INT32
    message = half_parts.set_graph(model).refusal()
    assert (
        "'weight': data type is int32, expected float32 (bytes behind 256 are stored as float16)" in message
    )


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("verify", [True, False])
def test_a_plan_with_infinity_or_nan_is_refused(half_parts: Any, value: float, verify: bool) -> None:
    raw = bytearray(half_parts.members["mechanisms/shape.weights"])
    raw[1150:] = np.float16(value).tobytes()
    half_parts.members["mechanisms/shape.weights"] = bytes(raw)
    message = half_parts.refusal(verify=verify)
    assert "mechanism 'shape': float16 at byte 1150 of the weights member is infinity or NaN" in message


def test_an_odd_rest_is_refused(half_parts: Any) -> None:
    half_parts.members["mechanisms/shape.weights"] += b"\0"
    assert "with an even number of its 1153 bytes behind it" in half_parts.refusal()


def test_what_no_initializer_uses_is_refused(half_parts: Any) -> None:
    half_parts.members["mechanisms/shape.weights"] += bytes(32)  # 64 once widened
    assert "weights bytes 2048..2112 is used by no initializer" in half_parts.refusal()


def test_storage_without_weights_is_refused(half_parts: Any) -> None:
    half_parts.set_graph(half_parts.graph())
    del half_parts.members["mechanisms/shape.weights"]
    half_parts.manifest["mechanisms"]["shape"]["weights"] = None
    assert (
        "storage is an object, expected null where the network has no weights member" in half_parts.refusal()
    )


@pytest.mark.parametrize("version", [1, 2])
def test_older_versions_have_no_storage(half_parts: Any, version: int) -> None:
    half_parts.manifest["format_version"] = version
    if version == 1:
        del half_parts.manifest["kind"]
    for spec in half_parts.manifest["mechanisms"].values():
        del spec["kind"]
    assert (
        "mechanisms.shape field is 'storage', expected one of graph, weights, embedding"
        in half_parts.refusal()
    )


def test_saliency_plans_too(saliency_parts: Any) -> None:
    spec, name = saliency_parts.manifest["saliency"], "mechanisms/saliency.weights"
    exact = np.frombuffer(saliency_parts.members[name], "<f4")
    saliency_parts.members[name] = exact.astype("<f2").tobytes()
    spec["storage"] = {"dtype": "float16", "offset": 0}
    with open_any(saliency_parts.save()) as plan:
        found = np.frombuffer(plan.network.weights, "<f4")  # type: ignore[union-attr]
        assert np.array_equal(found, exact.astype("<f2").astype("<f4"))
        assert plan.manifest.to_dict()["saliency"]["storage"] == spec["storage"]
    spec["storage"] = {"dtype": "bfloat16", "offset": 0}
    assert (
        "saliency.storage.dtype is 'bfloat16', expected 'float16'. Upgrade cgnrt" in saliency_parts.refusal()
    )
    saliency_parts.manifest["format_version"] = 2
    assert "saliency field is 'storage'" in saliency_parts.refusal()


def large(half_parts: Any, last: float) -> Path:
    """A plan with 16 MB of weights in half precision, used by an initializer that the graph does not read."""
    raw = half_parts.members["mechanisms/shape.weights"]
    count = 8 << 20
    numbers = np.ones(count, "<f2")
    numbers[-1] = last
    half_parts.members["mechanisms/shape.weights"] = raw + numbers.tobytes()
    model = half_parts.graph()
    tensor = TensorProto(name="more", data_type=TensorProto.FLOAT, dims=[count])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "shape.weights"), ("offset", WEIGHT + BIAS), ("length", 4 * count)):
        tensor.external_data.add(key=key, value=str(value))
    model.graph.initializer.append(tensor)
    half_parts.set_graph(model)
    return Path(half_parts.save())


def test_opening_takes_no_memory_for_weights_and_widening_twice_the_member(half_parts: Any) -> None:
    path = large(half_parts, 1.0)
    tracemalloc.start()
    try:
        with Plan.open(path) as plan:
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
            view = plan.mechanisms["shape"].weights
            assert view is not None
            assert view.nbytes <= tracemalloc.get_traced_memory()[1] < view.nbytes + (8 << 20)
            del view
            plan.release_pages()
            assert tracemalloc.get_traced_memory()[0] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_plan_is_refused_before_its_weights_take_memory(half_parts: Any) -> None:
    path = large(half_parts, float("inf"))
    tracemalloc.start()
    try:
        with pytest.raises(PlanError, match="infinity or NaN"):
            Plan.open(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_inspect_tells_of_it(golden_half_plan: Path) -> None:
    with Plan.open(golden_half_plan) as plan:
        assert "weights 1152 B, 2048 B once widened from half precision)" in describe(plan)
        value = to_json(plan)
    assert value["weights"]["shape"] == [
        {"name": "bias", "dtype": "float32", "shape": [64], "bytes": BIAS, "stored": "float32"},
        {"name": "weight", "dtype": "float32", "shape": [64, 7], "bytes": WEIGHT, "stored": "float16"},
    ]
    assert value["manifest"]["mechanisms"]["shape"]["storage"] == {"dtype": "float16", "offset": 256}


def test_a_half_plan_is_written_again_as_it_was(golden_half_plan: Path, tmp_path: Path) -> None:
    with Plan.open(golden_half_plan) as plan:
        members = {name: plan.member(name) for name in plan.members}
        for manifest in (plan.manifest, plan.manifest.to_dict()):
            write_plan(tmp_path / "again.plan", manifest, members, force=True)
            assert (tmp_path / "again.plan").read_bytes() == golden_half_plan.read_bytes()


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(positions=st.lists(st.tuples(st.integers(0, 15_000), st.integers(1, 255)), min_size=1, max_size=3))
def test_damage_is_refused_or_gives_finite_numbers(
    positions: list[tuple[int, int]], golden_half_plan: Path, tmp_path: Path
) -> None:
    raw = bytearray(golden_half_plan.read_bytes())
    for position, value in positions:
        raw[position] ^= value
    path = tmp_path / "damaged.plan"
    path.unlink(missing_ok=True)  # a new inode: the old one may still be mapped
    path.write_bytes(raw)
    try:
        plan = Plan.open(path, verify=False)
    except PlanError:
        return
    with plan:
        for mechanism in plan.mechanisms.values():
            storage = mechanism.spec.storage
            assert storage is not None
            found = np.frombuffer(mechanism.weights or b"", np.uint8)[storage.offset :].view("<f4")
            assert np.isfinite(found).all()
