"""Every field of the manifest: what is refused, and with which words."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgnrt.errors import PlanError
from cgnrt.plan import Plan, write_plan

REMOVE = object()


def change(manifest: dict[str, Any], path: str, value: Any) -> None:
    """Set, add or remove the field at a dotted path."""
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place: Any = manifest
    for part in parents:
        place = place[part]
    if value is REMOVE:
        del place[last]
    else:
        place[last] = value


def tensor(name: str, shape: list[Any], dtype: str = "float32") -> dict[str, Any]:
    return {"name": name, "shape": shape, "dtype": dtype}


NOISE, LABEL = tensor("noise", ["n", 4]), tensor("class_embedding", ["n", 3])
MASK = tensor("mask", ["n", 1, 8, 8])

CASES: list[tuple[str, Any, str]] = [
    (
        "format_version",
        5,
        r"format version is 5, expected <= 4\. Upgrade cgnrt, or export again with cgnrt-export\.",
    ),
    ("format_version", 0, r"format version is 0, expected an integer in 1\.\.4"),
    ("format_version", True, r"format version is True"),
    ("format_version", 1.0, r"format version is 1\.0"),
    ("format_version", "1", r"format version is '1'"),
    ("format_version", REMOVE, r"format_version is missing"),
    ("kind", "gan", r"kind is 'gan', expected 'cgn' or 'saliency'"),
    ("kind", 1, r"kind is 1, expected 'cgn' or 'saliency'"),
    ("kind", "saliency", r"manifest field is 'stream_version', expected one of format_version, kind, family"),
    ("kind", REMOVE, r"kind is missing, expected a field of the manifest"),
    ("stream_version", 2, r"stream version is 2, expected <= 1\. Upgrade cgnrt"),
    ("stream_version", REMOVE, r"stream_version is missing"),
    ("family", REMOVE, r"family is missing, expected a field of the manifest"),
    ("family", "", r"family is '', expected a string of 1\.\.256 characters"),
    ("family", 7, r"family is 7, expected a string"),
    ("family", "x" * 257, r"family is 'xxx.*\.\.\., expected a string of 1\.\.256 characters"),
    (
        "family",
        "\x1b[31mred",
        r"manifest string is '\\x1b\[31mred', expected text without control characters",
    ),
    ("family", "a\u202eb", r"manifest string is 'a\\u202eb'"),
    ("training_data", "x" * 4097, r"manifest string is 4097 characters long, expected <= 4096"),
    ("training_data", 3, r"training_data is 3, expected a string"),
    ("famly", "x", r"manifest field is 'famly', expected one of .* \(close: family\)\. Upgrade cgnrt"),
    ("zzz", 1, r"manifest field is 'zzz', expected one of format_version, .*parity\. "),
    ("exported_by", None, r"exported_by is null, expected a string"),
    ("resolution", [8], r"length of resolution is 1, expected 2"),
    ("resolution", [8, 0], r"resolution\[1\] is 0, expected an integer in 1\.\.8192"),
    ("resolution", [8, 8193], r"resolution\[1\] is 8193"),
    ("resolution", [8.0, 8], r"resolution\[0\] is 8\.0, expected an integer"),
    ("resolution", "8x8", r"resolution is '8x8', expected a list"),
    ("resolution", [8, 9], r"mechanisms\.shape\.outputs\[0\]\.shape is \[.*\], expected \['n', 1, 8, 9\]"),
    ("noise_mode", "both", r"noise_mode is 'both', expected 'independent' or 'shared'"),
    ("noise_mode", [], r"noise_mode is a list, expected 'independent' or 'shared'"),
    ("precision", "int8", r"precision is 'int8', expected 'fp32' or 'bf16' or 'fp16'"),
    (
        "truncation",
        {"minimum": 0, "maximum": 1, "default": 1},
        r"truncation is minimum 0\.0, .*expected 0 < minimum",
    ),
    ("truncation", {"minimum": 0.5, "maximum": 1, "default": 2}, r"truncation is minimum 0\.5, default 2\.0"),
    ("truncation", {"minimum": 0.5, "maximum": 1}, r"truncation\.default is missing"),
    (
        "truncation",
        {"minimum": "a", "maximum": 1, "default": 1},
        r"truncation\.minimum is 'a', expected a number",
    ),
    ("truncation", 1, r"truncation is 1, expected an object"),
    ("sources", {}, r"sources is an object, expected a list"),
    ("sources", [{}] * 65, r"length of sources is 65, expected 0\.\.64"),
    ("sources.0", {"name": "x"}, r"sources\[0\]\.sha256 is missing"),
    ("sources.0.sha256", "A" * 64, r"sources\[0\]\.sha256 is 'AAA.*expected 64 lower-case hex digits"),
    ("sources.0.size", 3, r"sources\[0\]\['size'\] is 3, expected a string"),
    ("parity", [], r"parity is a list, expected an object"),
    ("parity", None, r"parity is null, expected an object"),
    (
        "parity",
        {"x": 2**63},
        r"manifest number is over 9223372036854775808, expected a signed 64-bit integer",
    ),
    ("mechanisms", [], r"mechanisms is a list, expected an object"),
    ("mechanisms.shape", REMOVE, r"mechanisms\.shape is missing"),
    (
        "mechanisms.foreground",
        {},
        r"mechanisms field is 'foreground', expected one of shape, texture, background",
    ),
    ("mechanisms.shape.rolls", False, r"mechanisms\.shape field is 'rolls', .*\(close: roll\)"),
    ("mechanisms.shape.roll", 0, r"mechanisms\.shape\.roll is 0, expected true or false"),
    ("mechanisms.shape.graph", "../x.onnx", r"mechanisms\.shape\.graph: member name is '\.\./x\.onnx'"),
    (
        "mechanisms.shape.graph",
        "shape.onnx",
        r"mechanisms\.shape\.graph is 'shape\.onnx', expected mechanisms/<stem>",
    ),
    (
        "mechanisms.shape.graph",
        "mechanisms/none.onnx",
        r"mechanisms\.shape\.weights is .*expected .* or null",
    ),
    (
        "mechanisms.shape.weights",
        "mechanisms/texture.weights",
        r"mechanisms\.shape\.weights is .*expected .* or null",
    ),
    ("mechanisms.shape.weights", REMOVE, r"mechanisms\.shape\.weights is missing"),
    ("mechanisms.shape.weights", None, r"member 'mechanisms/shape\.weights' is used by no mechanism"),
    ("mechanisms.shape.embedding.member", "manifest.json", r"expected another member than the manifest"),
    (
        "mechanisms.shape.embedding.member",
        "none",
        r"mechanisms\.shape\.embedding is 'none', expected one of the",
    ),
    (
        "mechanisms.shape.embedding.member",
        "mechanisms/shape.onnx",
        r"expected a member that nothing else uses",
    ),
    (
        "mechanisms.shape.embedding.shape",
        [3, 4],
        r"mechanisms\.shape\.inputs\[1\]\.shape is \[.*\], expected \['n', 4\]",
    ),
    (
        "mechanisms.shape.embedding.shape",
        [4, 3],
        r"length of mechanisms\.shape\.classes is 3, expected 4 \(rows",
    ),
    (
        "mechanisms.shape.embedding.shape",
        [0, 3],
        r"embedding\.shape\[0\] is 0, expected an integer in 1\.\.65536",
    ),
    ("mechanisms.shape.embedding.shape", [3, 10**12], r"embedding\.shape\[1\] is 1000000000000"),
    ("mechanisms.shape.classes", ["a", "b", "a"], r"classes is a list with 'a' twice, expected unique names"),
    ("mechanisms.shape.classes", [], r"length of mechanisms\.shape\.classes is 0"),
    ("mechanisms.shape.classes", ["a", "b", ""], r"classes\[2\] is '', expected a string of 1\.\.200"),
    ("mechanisms.shape.classes", ["a", "b", 3], r"classes\[2\] is 3, expected a string"),
    ("mechanisms.shape.noise.size", 0, r"noise\.size is 0, expected an integer in 1\.\.65536"),
    ("mechanisms.shape.noise.size", True, r"noise\.size is True, expected an integer"),
    (
        "mechanisms.shape.noise.size",
        5,
        r"mechanisms\.shape\.inputs\[0\]\.shape is \[.*\], expected \['n', 5\]",
    ),
    (
        "mechanisms.shape.noise.distribution",
        "uniform",
        r"distribution is 'uniform', expected 'normal' or 'trunc",
    ),
    ("mechanisms.shape.range", [1, 0], r"range is \[1\.0, 0\.0\], expected \[low, high\] with low < high"),
    ("mechanisms.shape.range", [-1, 1], r"range is \[-1\.0, 1\.0\], expected within \[0, 1\] \(a mask\)"),
    ("mechanisms.texture.range", [0, 0], r"mechanisms\.texture\.range is \[0\.0, 0\.0\]"),
    ("mechanisms.shape.inputs", [NOISE], r"mechanisms\.shape\.inputs is without 'class_embedding'"),
    ("mechanisms.shape.inputs", [], r"length of mechanisms\.shape\.inputs is 0, expected 1\.\.3"),
    ("mechanisms.shape.inputs", [NOISE, NOISE], r"inputs\[1\]\.name is 'noise', expected each name once"),
    (
        "mechanisms.shape.inputs.0.name",
        "z",
        r"inputs\[0\]\.name is 'z', expected 'noise' or 'class_embedding' or 'trunc",
    ),
    ("mechanisms.shape.inputs.0.dtype", "float16", r"inputs\[0\]\.dtype is 'float16', expected 'float32'"),
    ("mechanisms.shape.inputs.0.shape", [1, 4], r"inputs\[0\]\.shape is \[.*\], expected \['n', 4\]"),
    ("mechanisms.shape.inputs.0.shape", ["n", 4.0], r"inputs\[0\]\.shape is \[.*\], expected \['n', 4\]"),
    (
        "mechanisms.shape.inputs",
        [NOISE, LABEL, tensor("truncation", ["n", 1])],
        r"inputs is with 'truncation'",
    ),
    (
        "mechanisms.shape.outputs.0.name",
        "foreground",
        r"outputs\[0\]\.name is 'foreground', expected 'mask' or 'pre_mask'",
    ),
    (
        "mechanisms.shape.outputs",
        [tensor("pre_mask", ["n", 3, 8, 8]), MASK],
        r"outputs\[0\]\.name is 'pre_mask', expected 'mask'",
    ),
    (
        "mechanisms.texture.outputs.0.shape",
        ["n", 1, 8, 8],
        r"outputs\[0\]\.shape is \[.*\], expected \['n', 3, 8, 8\]",
    ),
]


@pytest.mark.parametrize(
    ("path", "value", "message"), CASES, ids=[f"{path}-{n}" for n, (path, _, _) in enumerate(CASES)]
)
def test_a_wrong_field_is_named(parts: Any, path: str, value: Any, message: str, tmp_path: Path) -> None:
    change(parts.manifest, path, value)
    assert re.search(message, parts.refusal())
    filled_in = path == "kind" or "version" in path  # by the writer, where they are left out
    if value is not REMOVE or not filled_in:
        target = tmp_path / "new.plan"
        with pytest.raises(PlanError, match=message) as caught:
            write_plan(target, parts.manifest, parts.members)
        assert str(caught.value).startswith(f"write '{target}': ")
        assert not target.exists()


def raw_manifest(parts: Any, pack: Callable[[dict[str, bytes]], bytes], raw: bytes) -> str:
    return str(parts.refusal(pack({"manifest.json": raw, **parts.members})))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", r"manifest is not JSON \(Expecting value, line 1 column 1\)"),
        (b"[]", r"manifest is a list, expected a JSON object"),
        (b"null", r"manifest is null, expected a JSON object"),
        (b'{"a":1', r"manifest is not JSON"),
        (b'{"a":1}x', r"manifest is not JSON \(Extra data"),
        (b"\xef\xbb\xbf{}", r"manifest is not JSON"),
        ('{"a":1}'.encode("utf-16"), r"manifest is not UTF-8 at byte 0"),
        (b'{"a":"\xff"}', r"manifest is not UTF-8 at byte 6"),
        (b'{"a":1,"a":2}', r"manifest key is 'a' twice in one object"),
        (b'{"x":{"b":1,"b":1}}', r"manifest key is 'b' twice in one object"),
        (b'{"a":NaN}', r"manifest number is NaN, expected finite"),
        (b'{"a":-Infinity}', r"manifest number is -Infinity, expected finite"),
        (b'{"a":1e999}', r"manifest number is '1e999', expected finite"),
        (b'{"a":' + b"9" * 5000 + b"}", r"manifest number is 5000 characters long, expected <= 19 digits"),
        (b'{"a":' + b"1" * 20 + b"}", r"manifest number is 20 characters long"),
        (b'{"a":"\\ud800"}', r"manifest string is '\\ud800'"),
        (b'{"\\u0007":1}', r"manifest string is '\\x07'"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, r"manifest nesting is over 16 levels"),
        (b"[" * 200_000, r"manifest nesting is over 16 levels|manifest is not JSON"),
        (b'{"a":' * 100_000, r"manifest nesting is over 16 levels|manifest is not JSON"),
        (b"[" + b"0," * 400_000 + b"0]", r"manifest is over 400000 values"),
        (b'{"a":"' + b"x" * 4097 + b'"}', r"manifest string is 4097 characters long"),
        (b" " * (4 << 20) + b"{}", r"manifest size is 4194306 bytes, expected <= 4194304"),
    ],
    ids=range(23),
)
def test_hostile_json(
    parts: Any, pack_members: Callable[[dict[str, bytes]], bytes], raw: bytes, message: str
) -> None:
    assert re.search(message, raw_manifest(parts, pack_members, raw))


def member_entry(data: bytes, **other: Any) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), **other}


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        (
            "mechanisms/shape.weights",
            None,
            r"mechanisms\.shape\.weights is '.*', expected one of the manifest's members",
        ),
        (
            "engines/x",
            None,
            r"member 'engines/x' is not in the manifest, expected only members of the manifest",
        ),
        (
            "engines/y",
            member_entry(b""),
            r"member 'engines/y' is missing, expected every member of the manifest",
        ),
        ("other", member_entry(b""), r"member 'other' is used by no mechanism"),
        ("../x", member_entry(b""), r"member name is '\.\./x'"),
        ("engines/x", {"size": 3}, r"members\['engines/x'\]\.sha256 is missing"),
        ("engines/x", {"size": -1, "sha256": "0" * 64}, r"members\['engines/x'\]\.size is -1"),
        ("engines/x", {"size": 2**45, "sha256": "0" * 64}, r"members\['engines/x'\]\.size is 35184372088832"),
        ("engines/x", {"size": 4, "sha256": "0" * 63}, r"members\['engines/x'\]\.sha256 is '000"),
        (
            "engines/x",
            {"size": 4, "sha256": "0" * 64},
            r"member 'engines/x' is 5 bytes, expected 4 bytes \(its size in",
        ),
        (
            "engines/x",
            member_entry(b"hellO"),
            r"SHA-256 of member 'engines/x' is 2cf24dba5fb0a30e\.\.\., expected ",
        ),
        (
            "mechanisms/shape.embedding",
            {"size": 35, "sha256": "0" * 64},
            r"size of member '.*' is 35, expected 36 \(3 x 3",
        ),
    ],
)
def test_members_of_the_manifest(
    parts: Any, pack_members: Callable[[dict[str, bytes]], bytes], name: str, entry: Any, message: str
) -> None:
    parts.members["engines/x"] = b"hello"
    manifest = parts.manifest | {"members": {key: member_entry(data) for key, data in parts.members.items()}}
    if entry is None:
        del manifest["members"][name]
    else:
        manifest["members"][name] = entry
    assert re.search(message, raw_manifest(parts, pack_members, json.dumps(manifest).encode()))


def test_hashes_are_skipped_without_verify(parts: Any) -> None:
    raw = parts.pack()
    weights = parts.members["mechanisms/shape.weights"]
    raw = raw.replace(weights, weights[:-1] + bytes([weights[-1] ^ 1]))
    assert "SHA-256 of member 'mechanisms/shape.weights' is" in parts.refusal(raw)
    Plan.open(parts.save(raw), verify=False).close()


def test_a_damaged_manifest_is_found_by_its_crc(parts: Any) -> None:
    raw = parts.pack().replace(b"golden", b"goldem")
    for verify in (True, False):
        assert "manifest CRC is 0x" in parts.refusal(raw, verify=verify)


def test_shared_noise_needs_like_noise(parts: Any) -> None:
    parts.manifest["noise_mode"] = "shared"
    Plan.open(parts.save()).close()
    parts.manifest["mechanisms"]["shape"]["noise"]["distribution"] = "truncated_normal"
    assert (
        "noise_mode is 'shared', expected 'independent' where the mechanisms' noise differs"
        in parts.refusal()
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_embedding_tables_are_finite(parts: Any, value: float) -> None:
    import numpy as np

    parts.members["mechanisms/shape.embedding"] = np.full(9, value, "<f4").tobytes()
    assert "mechanism 'shape': embedding is a table with NaN or infinity" in parts.refusal()


def test_two_mechanisms_cannot_share_a_graph(parts: Any) -> None:
    for role in ("graph", "weights"):
        member = f"mechanisms/shape.{'onnx' if role == 'graph' else role}"
        parts.manifest["mechanisms"]["texture"][role] = member
    assert (
        "mechanisms.texture.graph is 'mechanisms/shape.onnx', expected a member that nothing else"
        in parts.refusal()
    )


def test_writer_refuses_values_that_json_cannot_hold(parts: Any, tmp_path: Path) -> None:
    for value, message in [
        (float("nan"), "manifest number is nan, expected finite"),
        (object(), "manifest value is 'object', expected a JSON value"),
        ({1: 2}, "manifest key is 1, expected a string"),
    ]:
        parts.manifest["parity"] = {"x": value}
        with pytest.raises(PlanError, match=message):
            write_plan(tmp_path / "x.plan", parts.manifest, parts.members)
