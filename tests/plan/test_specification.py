"""The page and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path

from cgnrt.plan import limits
from cgnrt.plan.onnx.rules import RULES
from cgnrt.plan.onnx.shapes import MAX_VALUES
from cgnrt.plan.onnx.wire import DATA_TYPES


def page(root: Path) -> str:
    return re.sub(r"\s+", " ", (root / "docs" / "plan-format.md").read_text())


def test_operators(root: Path) -> None:
    found = re.search(r"Operators: ([A-Za-z0-9 ]+)\.", page(root))
    assert found is not None
    assert found[1].split() == sorted(RULES)


def test_element_types(root: Path) -> None:
    found = re.search(r"element types ([a-z0-9, ]+);", page(root))
    assert found is not None
    assert sorted(found[1].split(", ")) == sorted(kind.name for kind in DATA_TYPES.values())


def test_numbers(root: Path) -> None:
    text = page(root)
    for words in [
        f"The plan file, format version {limits.FORMAT_VERSION}",
        f"a plan has 1..{limits.MAX_MEMBERS} members",
        f"A name is up to {limits.MAX_NAME_BYTES} bytes",
        f"up to {limits.MAX_MANIFEST_BYTES >> 20} MiB | | `mechanisms/<stem>.onnx`",
        f"up to {limits.MAX_GRAPH_BYTES >> 20} MiB",
        f"at most {limits.MAX_JSON_DEPTH} levels deep and {limits.MAX_JSON_VALUES:,} values",
        f"a string has up to {limits.MAX_STRING_CHARS:,} characters",
        f"each 1..{limits.MAX_RESOLUTION} |",
        f"classes and e 1..{limits.MAX_CLASSES};",
        f"z 1..{limits.MAX_VECTOR};",
        f"{limits.MAX_NODES:,} nodes, {limits.MAX_TENSORS:,} initializers",
        f"{limits.MAX_NODE_LINKS:,} inputs and outputs of a node",
        f"rank {limits.MAX_RANK}",
        f"set {limits.MIN_OPSET}..{limits.MAX_OPSET}",
        f"more than 2^{limits.MAX_ELEMENTS.bit_length() - 1} elements",
        f"no other tensor n * 2^{limits.MAX_ELEMENTS.bit_length() - 1}",
        f"n * 2^{limits.MAX_LIVE_ELEMENTS.bit_length() - 1} together",
        f"n is at most {limits.MAX_BATCH:,}",
        f"{limits.MAX_LINKS:,} inputs and outputs of all nodes",
        f"{limits.MAX_NUMBERS:,} numbers in attributes and typed data",
        f"{limits.MAX_ATTRIBUTES} attributes of a node",
        f"{limits.MAX_METADATA} entries of metadata",
        f"up to {MAX_VALUES} elements",
        f"multiple of {limits.ALIGNMENT}",
        f"at most {limits.MAX_SMALL_FILE_BYTES:#X} bytes".replace("0X", "0x"),
        f"up to 2^{limits.MAX_FILE_BYTES.bit_length() - 1} bytes",
        f"count 1..2^{limits.MAX_ENTRIES.bit_length() - 1}",
        f"chunks of 2^{limits.CHUNK_BYTES.bit_length() - 1} bytes",
    ]:
        assert words in text, words
