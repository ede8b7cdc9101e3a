"""Property tests: a damaged plan is refused or gives the same content; no crash, no other exception."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgnrt.errors import PlanError
from cgnrt.plan import Plan, external_initializers, validate_graph
from cgnrt.plan.manifest import TensorSpec
from cgnrt.plan.onnx import wire

ROOT = Path(__file__).parent
GOLDEN = (ROOT / "golden" / "v4.plan").read_bytes()
with Plan.open(ROOT / "golden" / "v4.plan") as _plan:
    CONTENT = {name: bytes(_plan.member(name)) for name in ("manifest.json", *_plan.members)}
    DIGEST = _plan.digest
GRAPH = CONTENT["mechanisms/shape.onnx"]

FUZZ = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def walk(path: Path, verify: bool) -> dict[str, bytes] | None:
    """Everything in a plan, or None where it is refused."""
    message = ""
    try:
        plan = Plan.open(path, verify=verify)
    except PlanError as error:
        message = str(error)
    if message:
        assert message.startswith(f"load '{path}': ")
        assert len(message) < 2000
        return None
    with plan:
        for mechanism in plan.mechanisms.values():
            external_initializers(mechanism.model)
            assert mechanism.embedding.shape == mechanism.spec.embedding.shape
        return {name: bytes(plan.member(name)) for name in ("manifest.json", *plan.members)}


def check(raw: bytes, folder: Path) -> None:
    """With hashes: refused, or the very content. Without: refused, or readable from end to end."""
    path = folder / "fuzzed.plan"
    path.unlink(missing_ok=True)  # a new inode: the old one may still be mapped
    path.write_bytes(raw)
    found = walk(path, True)
    assert found is None or found == CONTENT
    walk(path, False)


@FUZZ
@given(cut=st.integers(0, len(GOLDEN) - 1))
def test_truncation(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.plan"
    path.unlink(missing_ok=True)
    path.write_bytes(GOLDEN[:cut])
    assert walk(path, True) is None
    assert walk(path, False) is None


@FUZZ
@given(
    positions=st.lists(st.tuples(st.integers(0, len(GOLDEN) - 1), st.integers(0, 7)), min_size=1, max_size=4)
)
def test_bit_flips(positions: list[tuple[int, int]], tmp_path: Path) -> None:
    raw = bytearray(GOLDEN)
    for position, bit in positions:
        raw[position] ^= 1 << bit
    check(bytes(raw), tmp_path)


def test_every_byte_of_the_structure_matters(tmp_path: Path) -> None:
    """Each byte outside the members' data, and each of the manifest's, one bit flipped: all are refused."""
    inside: set[int] = set()
    for name, data in CONTENT.items():
        if name != "manifest.json":
            start = GOLDEN.index(data)
            inside |= set(range(start, start + len(data)))
    outside = sorted(set(range(len(GOLDEN))) - inside)
    chosen = random.Random(0).sample(outside, 800)
    path = tmp_path / "flipped.plan"
    for position in chosen:
        raw = bytearray(GOLDEN)
        raw[position] ^= 1 << position % 8
        path.unlink(missing_ok=True)
        path.write_bytes(raw)
        assert walk(path, False) is None, position


@FUZZ
@given(
    start=st.integers(0, len(GOLDEN)),
    length=st.integers(0, 64),
    new=st.binary(max_size=64),
)
def test_splices(start: int, length: int, new: bytes, tmp_path: Path) -> None:
    check(GOLDEN[:start] + new + GOLDEN[start + length :], tmp_path)


@FUZZ
@given(
    raw=st.binary(max_size=300),
    prefix=st.sampled_from([b"", b"PK\x03\x04", b"\x08\x08", b"\x80\x02", GOLDEN[:200]]),
)
def test_arbitrary_bytes(raw: bytes, prefix: bytes, tmp_path: Path) -> None:
    check(prefix + raw, tmp_path)


def graph_is_refused_or_fine(raw: bytes) -> None:
    with contextlib.suppress(PlanError):
        model = validate_graph(
            raw,
            inputs=[TensorSpec("noise", ("n", 4)), TensorSpec("class_embedding", ("n", 3))],
            outputs=[TensorSpec("mask", ("n", 1, 8, 8))],
            location="shape.weights",
            weights=CONTENT["mechanisms/shape.weights"],
        )
        external_initializers(model)


@settings(FUZZ, max_examples=600)
@given(
    positions=st.lists(st.tuples(st.integers(0, len(GRAPH) - 1), st.integers(1, 255)), min_size=1, max_size=3)
)
def test_damaged_graphs_with_right_hashes(positions: list[tuple[int, int]]) -> None:
    raw = bytearray(GRAPH)
    for position, value in positions:
        raw[position] ^= value
    graph_is_refused_or_fine(bytes(raw))


@settings(FUZZ, max_examples=300)
@given(start=st.integers(0, len(GRAPH)), length=st.integers(0, 40), new=st.binary(max_size=40))
def test_spliced_graphs(start: int, length: int, new: bytes) -> None:
    graph_is_refused_or_fine(GRAPH[:start] + new + GRAPH[start + length :])


def test_every_byte_of_a_graph() -> None:
    for position in range(len(GRAPH)):
        for value in (0x01, 0x80, 0xFF):
            raw = bytearray(GRAPH)
            raw[position] ^= value
            graph_is_refused_or_fine(bytes(raw))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(FUZZ, max_examples=200)
@given(data=st.data())
def test_a_manifest_with_any_value_anywhere(data: st.DataObject, parts: Any) -> None:
    """One value of the manifest replaced by any other JSON value: PlanError, or a plan that opens."""
    manifest = parts.copy()
    place: Any = manifest.manifest
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    walk(manifest.save(), True)


@settings(FUZZ, max_examples=300)
@given(value=st.integers(0, 2**64 - 1), tail=st.binary(max_size=4))
def test_varints_round_trip(value: int, tail: bytes) -> None:
    raw = wire.varint(value)
    assert wire.read_varint(raw + tail, 0, len(raw) + len(tail)) == (value, len(raw))


@settings(FUZZ, max_examples=300)
@given(raw=st.binary(max_size=60))
def test_any_bytes_as_protobuf(raw: bytes) -> None:
    with contextlib.suppress(PlanError):
        for field in wire.fields(raw, 0, len(raw)):
            assert field.end <= len(raw)


@pytest.mark.parametrize("size", [0, 1, 21, 22, 4095, 4096, 4097])
def test_zeros(size: int, tmp_path: Path) -> None:
    check(bytes(size), tmp_path)
