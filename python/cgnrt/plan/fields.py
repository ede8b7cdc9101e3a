"""A manifest's JSON: read strictly, as nodes that check themselves, and the fields that several schemas have.

The file may be hostile. Python's own parser reads it; what is checked here by hand is what that parser and other JSON
packages accept without an error: a key that comes twice (readers differ in which one they take), NaN and Infinity,
numbers of any length, any depth, characters that steer a terminal. A schema package would check none of these.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, cast

from cgnrt.errors import COPY_AGAIN, EXPORT_AGAIN, PlanError, refuse, show, within
from cgnrt.plan.archive import check_name
from cgnrt.plan.limits import (
    ALIGNMENT,
    MANIFEST_NAME,
    MAX_FILE_BYTES,
    MAX_INTEGER_DIGITS,
    MAX_JSON_DEPTH,
    MAX_JSON_VALUES,
    MAX_MANIFEST_BYTES,
    MAX_RESOLUTION,
    MAX_SMALL_FILE_BYTES,
    MAX_STRING_CHARS,
)
from cgnrt.plan.manifest import HalfStorage, MemberSpec, TensorSpec
from cgnrt.plan.names import refused_character

UPGRADE = "Upgrade cgnrt, or export again with cgnrt-export."
_SHA256 = re.compile("[0-9a-f]{64}")


def parse_json(raw: bytes) -> Any:
    """Parse one JSON document.

    Raises:
      PlanError: too large, too deep, not UTF-8, not JSON, a doubled key, a number that is not finite or does
        not fit 64 bits, or a string that is too long or holds control characters.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise refuse("manifest size", f"{len(raw)} bytes", f"<= {MAX_MANIFEST_BYTES}")
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_constant,
        )
    except UnicodeDecodeError as error:
        raise refuse("manifest", f"not UTF-8 at byte {error.start}", "JSON in UTF-8", COPY_AGAIN) from None
    except json.JSONDecodeError as error:
        found = f"not JSON ({error.msg}, line {error.lineno} column {error.colno})"
        raise refuse("manifest", found, "one JSON object", COPY_AGAIN) from None
    except RecursionError:
        raise _too_deep() from None
    check_json(value)
    return value


def check_json(value: Any, what: str = "manifest") -> None:
    """Refuse values that JSON or a terminal cannot carry. Iterative: depth must not be able to hurt."""
    pending: list[tuple[Any, int]] = [(value, 1)]
    count = 0
    while pending:
        item, depth = pending.pop()
        count += 1
        if count > MAX_JSON_VALUES:
            raise refuse(what, f"over {MAX_JSON_VALUES} values", f"<= {MAX_JSON_VALUES}")
        if depth > MAX_JSON_DEPTH:
            raise _too_deep()
        if isinstance(item, str):
            _check_text(item, what)
        elif isinstance(item, dict):
            for key in item:
                if not isinstance(key, str):
                    raise refuse(f"{what} key", key, "a string")
                _check_text(key, what)
            pending += [(part, depth + 1) for part in item.values()]
        elif isinstance(item, list | tuple):
            pending += [(part, depth + 1) for part in item]
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise refuse(f"{what} number", item, "finite")
        elif isinstance(item, int):
            if not -(2**63) <= item < 2**63:
                raise refuse(f"{what} number", f"over {2**63}", "a signed 64-bit integer")
        elif item is not None:
            raise refuse(f"{what} value", show(type(item).__name__), "a JSON value")


def _check_text(text: str, what: str) -> None:
    if len(text) > MAX_STRING_CHARS:
        raise refuse(f"{what} string", f"{len(text)} characters long", f"<= {MAX_STRING_CHARS}")
    if (character := refused_character(text)) is not None:
        place = max(0, text.index(character) - 30)
        rule = "text without control characters and such that cannot be seen"
        raise refuse(f"{what} string", ascii(text[place : place + 60]), rule)


def _too_deep() -> PlanError:
    return refuse("manifest nesting", f"over {MAX_JSON_DEPTH} levels", f"<= {MAX_JSON_DEPTH}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise refuse("manifest key", f"{key[:60]!a} twice in one object", "each key once")
            seen.add(key)
    return result


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > MAX_INTEGER_DIGITS:
        raise refuse("manifest number", f"{len(text)} characters long", f"<= {MAX_INTEGER_DIGITS} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise refuse("manifest number", show(text), "finite")
    return value


def _constant(text: str) -> float:
    raise refuse("manifest number", text, "finite (JSON has no NaN or Infinity)")


class JsonNode:
    """A JSON value with its path, and the checks that it is what a field must be."""

    __slots__ = ("path", "value")

    def __init__(self, value: Any, path: str) -> None:
        self.value = value
        self.path = path

    def fail(self, rule: str, next_step: str = EXPORT_AGAIN) -> NoReturn:
        raise refuse(self.path, kind_of(self.value), rule, next_step)

    def fields(self, names: tuple[str, ...]) -> dict[str, JsonNode]:
        """The parts of an object that must have exactly these fields."""
        value = self.mapping()
        for key in value:
            if key not in names:
                import difflib  # here, because it is needed only for errors

                close = difflib.get_close_matches(key[:60], names, n=3, cutoff=0.6)
                hint = f" (close: {', '.join(close)})" if close else ""
                place = f"{self.path} field" if self.path else "manifest field"
                raise refuse(place, ascii(key[:60]), f"one of {', '.join(names)}{hint}", UPGRADE)
        for name in names:
            if name not in value:
                raise refuse(self._join(name), "missing", "a field of the manifest")
        return {name: JsonNode(value[name], self._join(name)) for name in names}

    def items(self) -> dict[str, JsonNode]:
        return {key: JsonNode(value, f"{self.path}[{key!a}]") for key, value in self.mapping().items()}

    def mapping(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            self.fail("an object")
        return cast(dict[str, Any], self.value)

    def list(self, low: int, high: int) -> list[JsonNode]:
        if not isinstance(self.value, list):
            self.fail("a list")
        count = len(self.value)
        if not low <= count <= high:
            rule = f"{low}" if low == high else f"{low}..{high}"
            raise refuse(f"length of {self.path}", count, rule)
        return [JsonNode(value, f"{self.path}[{index}]") for index, value in enumerate(self.value)]

    def integer(self, low: int, high: int) -> int:
        if type(self.value) is not int or not low <= self.value <= high:
            self.fail(f"an integer in {low}..{high}")
        return self.value

    def number(self) -> float:
        if type(self.value) not in (int, float):
            self.fail("a number")
        return float(self.value)

    def flag(self) -> bool:
        if type(self.value) is not bool:
            self.fail("true or false")
        return self.value

    def text(self, limit: int = 256) -> str:
        if not isinstance(self.value, str) or not 1 <= len(self.value) <= limit:
            self.fail(f"a string of 1..{limit} characters")
        return self.value

    def choice(self, *options: str) -> str:
        if self.value not in options or not isinstance(self.value, str):
            self.fail(" or ".join(repr(option) for option in options))
        return self.value

    def sha256(self) -> str:
        if not isinstance(self.value, str) or not _SHA256.fullmatch(self.value):
            self.fail("64 lower-case hex digits")
        return self.value

    def member(self) -> str:
        name = self.text()
        try:
            check_name(name)
        except PlanError as error:
            raise within(self.path, error) from None
        if name == MANIFEST_NAME:
            self.fail("another member than the manifest")
        return name

    def _join(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


_KINDS: dict[type, str] = {dict: "an object", list: "a list", type(None): "null"}


def kind_of(value: Any) -> str:
    """What a JSON value is, for messages: its kind, or itself where it is short."""
    return _KINDS.get(type(value), show(value))


def parse_resolution(node: JsonNode) -> tuple[int, int]:
    """(height, width) in pixels."""
    height, width = (side.integer(1, MAX_RESOLUTION) for side in node.list(2, 2))
    return height, width


def parse_member(name: str, node: JsonNode) -> MemberSpec:
    JsonNode(name, node.path).member()
    part = node.fields(("size", "sha256"))
    size = part["size"].integer(0, MAX_FILE_BYTES)
    return MemberSpec(size, part["sha256"].sha256())


def parse_source(node: JsonNode) -> dict[str, str]:
    source = {key: value.text(1024) for key, value in node.items().items()}
    for key in ("name", "sha256"):
        if key not in source:
            raise refuse(f"{node.path}.{key}", "missing", "a field of a source")
    if not _SHA256.fullmatch(source["sha256"]):
        raise refuse(f"{node.path}.sha256", show(source["sha256"]), "64 lower-case hex digits")
    return source


def parse_tensors(
    node: JsonNode,
    rules: Mapping[str, tuple[int | str, ...]],
    shapes: list[dict[str, tuple[int | str, ...]]],
) -> tuple[TensorSpec, ...]:
    tensors: list[TensorSpec] = []
    for item in node.list(1, len(rules)):
        part = item.fields(("name", "shape", "dtype"))
        name = part["name"].choice(*rules)
        if any(tensor.name == name for tensor in tensors):
            raise refuse(part["name"].path, show(name), "each name once")
        part["dtype"].choice("float32")
        shape = part["shape"].value
        options = [option[name] for option in shapes]
        if not isinstance(shape, list) or not any(_same(shape, option) for option in options):
            rule = " or ".join(dict.fromkeys(show(list(option)) for option in options))
            raise refuse(part["shape"].path, show(shape), rule)
        tensors.append(TensorSpec(name, tuple(shape)))
    return tuple(tensors)


def _same(found: list[Any], rule: tuple[int | str, ...]) -> bool:
    """Equal in value and type: in Python 1.0 and true are equal to 1, but they are not dimensions."""
    return len(found) == len(rule) and all(
        type(a) is type(b) and a == b for a, b in zip(found, rule, strict=True)
    )


def network_fields(names: tuple[str, ...], version: int) -> tuple[str, ...]:
    """The fields of a network in a manifest of this version."""
    later = {"storage": 3, "kind": 4}
    return tuple(name for name in names if version >= later.get(name, 1))


def parse_files(part: Mapping[str, JsonNode]) -> tuple[str, str | None]:
    """The members with a network's graph and weights, from its fields `graph` and `weights`."""
    graph = part["graph"].member()
    if not re.fullmatch(r"mechanisms/[^/]+\.onnx", graph):
        part["graph"].fail("mechanisms/<stem>.onnx")
    weights = None
    if part["weights"].value is not None:
        weights = part["weights"].member()
        if weights != graph.removesuffix(".onnx") + ".weights":
            part["weights"].fail(
                f"{graph.removesuffix('.onnx') + '.weights'!r} (beside its own graph) or null"
            )
    return graph, weights


def parse_storage(
    part: Mapping[str, JsonNode], weights: str | None, members: Mapping[str, MemberSpec]
) -> HalfStorage | None:
    """How a weights member stores its numbers, from the field `storage`, which older versions do not have."""
    node = part.get("storage")
    if node is None or node.value is None:
        return None
    # Before the other fields, which another type may need.
    if node.mapping().get("dtype", "float16") != "float16":
        raise refuse(f"{node.path}.dtype", show(node.mapping()["dtype"]), "'float16'", UPGRADE)
    offset = node.fields(("dtype", "offset"))["offset"]
    start = offset.integer(0, MAX_SMALL_FILE_BYTES)
    if weights is None:
        node.fail("null where the network has no weights member")
    if start % ALIGNMENT:
        offset.fail(f"a multiple of {ALIGNMENT}")
    size = (
        members[weights].size if weights in members else None
    )  # a missing member is reported by `check_uses`
    if size is not None and (start > size or (size - start) % 2):
        offset.fail(f"a byte of {weights!r} with an even number of its {size} bytes behind it")
    return HalfStorage(start)


def check_uses(members: Mapping[str, MemberSpec], uses: Iterable[tuple[str, str, str | None]]) -> None:
    """Every member that is named exists, every one that exists is named, and graphs are not shared.

    Args:
      members: the manifest's.
      uses: (field, role, member or None) of everything that names one.
    """
    used: dict[str, str] = {}
    for field, role, member in uses:
        if member is None:
            continue
        if member not in members:
            raise refuse(field, show(member), "one of the manifest's members")
        # Mechanisms may share an embedding table (as the MNIST CGN does) and nothing else.
        if member in used and not (role == used[member] == "embedding"):
            raise refuse(field, show(member), "a member that nothing else uses")
        used[member] = role
    for name in members:
        if name not in used and not name.startswith("engines/"):
            raise refuse(
                f"member {name!r}", "used by no mechanism", "a mechanism's member or one under engines/"
            )
