"""From JSON values to a checked `Manifest`. Every message names the field by its path."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, NoReturn, cast

from cgnrt.errors import PlanError
from cgnrt.plan.archive import check_name
from cgnrt.plan.limits import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    MAX_CLASSES,
    MAX_FILE_BYTES,
    MAX_RESOLUTION,
    MAX_VECTOR,
    MECHANISM_NAMES,
    PICTURE_NAMES,
    STREAM_VERSION,
)
from cgnrt.plan.manifest import (
    Distribution,
    EmbeddingSpec,
    Manifest,
    MechanismSpec,
    MemberSpec,
    NoiseMode,
    NoiseSpec,
    Precision,
    TensorSpec,
    Truncation,
)
from cgnrt.plan.refusal import EXPORT_AGAIN, refuse, show, within

_UPGRADE = "Upgrade cgnrt, or export again with cgnrt-export."
_SHA256 = re.compile("[0-9a-f]{64}")
_FIELDS = (
    "format_version",
    "stream_version",
    "family",
    "exported_by",
    "resolution",
    "noise_mode",
    "truncation",
    "precision",
    "mechanisms",
    "sources",
    "training_data",
    "members",
    "parity",
)
_MECHANISM_FIELDS = (
    "graph",
    "weights",
    "embedding",
    "classes",
    "noise",
    "inputs",
    "outputs",
    "range",
    "roll",
)


class _Node:
    """A JSON value with its path, and the checks that it is what a field must be."""

    __slots__ = ("path", "value")

    def __init__(self, value: Any, path: str) -> None:
        self.value = value
        self.path = path

    def fail(self, rule: str, next_step: str = EXPORT_AGAIN) -> NoReturn:
        value = self.value
        found = _KINDS[type(value)] if type(value) in _KINDS else show(value)
        raise refuse(self.path, found, rule, next_step)

    def fields(self, names: tuple[str, ...]) -> dict[str, _Node]:
        """The parts of an object that must have exactly these fields."""
        value = self.mapping()
        for key in value:
            if key not in names:
                close = difflib.get_close_matches(key, names, n=3, cutoff=0.6)
                hint = f" (close: {', '.join(close)})" if close else ""
                place = f"{self.path} field" if self.path else "manifest field"
                raise refuse(place, ascii(key[:60]), f"one of {', '.join(names)}{hint}", _UPGRADE)
        for name in names:
            if name not in value:
                raise refuse(self._join(name), "missing", "a field of the manifest")
        return {name: _Node(value[name], self._join(name)) for name in names}

    def items(self) -> dict[str, _Node]:
        return {key: _Node(value, f"{self.path}[{key!a}]") for key, value in self.mapping().items()}

    def mapping(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            self.fail("an object")
        return cast(dict[str, Any], self.value)

    def list(self, low: int, high: int) -> list[_Node]:
        if not isinstance(self.value, list):
            self.fail("a list")
        count = len(self.value)
        if not low <= count <= high:
            rule = f"{low}" if low == high else f"{low}..{high}"
            raise refuse(f"length of {self.path}", count, rule)
        return [_Node(value, f"{self.path}[{index}]") for index, value in enumerate(self.value)]

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


def parse_manifest(value: Any) -> Manifest:
    """Check JSON values against the schema of format version 1.

    Raises:
      PlanError: a field is missing, unknown, of the wrong type or out of range, or two fields contradict each
        other. A version that is too high is reported before anything else: later fields may be unknown.
    """
    root = _Node(value, "")
    if not isinstance(value, dict):
        raise refuse("manifest", _KINDS.get(type(value), show(value)), "a JSON object")
    _check_version(value, "format_version", "format version", FORMAT_VERSION)
    _check_version(value, "stream_version", "stream version", STREAM_VERSION)
    part = root.fields(_FIELDS)
    height, width = (side.integer(1, MAX_RESOLUTION) for side in part["resolution"].list(2, 2))
    truncation = _parse_truncation(part["truncation"])
    members = {name: _parse_member(name, node) for name, node in part["members"].items().items()}
    mechanisms = {
        name: _parse_mechanism(name, node, (height, width), truncation is not None)
        for name, node in part["mechanisms"].fields(MECHANISM_NAMES).items()
    }
    noise_mode = part["noise_mode"].choice("independent", "shared")
    if noise_mode == "shared" and len({spec.noise for spec in mechanisms.values()}) != 1:
        raise refuse("noise_mode", "'shared'", "'independent' where the mechanisms' noise differs")
    _check_members(members, mechanisms)
    training_data = part["training_data"]
    return Manifest(
        format_version=FORMAT_VERSION,
        stream_version=STREAM_VERSION,
        family=part["family"].text(),
        exported_by=part["exported_by"].text(),
        resolution=(height, width),
        noise_mode=cast(NoiseMode, noise_mode),
        truncation=truncation,
        precision=cast(Precision, part["precision"].choice("fp32", "bf16", "fp16")),
        mechanisms=mechanisms,
        sources=tuple(_parse_source(node) for node in part["sources"].list(0, 64)),
        training_data=None if training_data.value is None else training_data.text(4096),
        members=members,
        parity=part["parity"].mapping(),
    )


def _check_version(manifest: Mapping[str, Any], key: str, words: str, supported: int) -> None:
    if key not in manifest:
        raise refuse(key, "missing", "a field of the manifest")
    version = manifest[key]
    if type(version) is not int or version < 1:
        raise refuse(words, show(version), f"an integer in 1..{supported}")
    if version > supported:
        raise refuse(words, version, f"<= {supported}", _UPGRADE)


def _parse_truncation(node: _Node) -> Truncation | None:
    if node.value is None:
        return None
    part = node.fields(("minimum", "maximum", "default"))
    minimum, maximum, default = (part[name].number() for name in ("minimum", "maximum", "default"))
    if not 0 < minimum <= default <= maximum <= 100:
        found = f"minimum {minimum}, default {default}, maximum {maximum}"
        raise refuse(node.path, found, "0 < minimum <= default <= maximum <= 100")
    return Truncation(minimum, maximum, default)


def _parse_member(name: str, node: _Node) -> MemberSpec:
    _Node(name, node.path).member()
    part = node.fields(("size", "sha256"))
    size = part["size"].integer(0, MAX_FILE_BYTES)
    if not isinstance(part["sha256"].value, str) or not _SHA256.fullmatch(part["sha256"].value):
        part["sha256"].fail("64 lower-case hex digits")
    return MemberSpec(size, part["sha256"].value)


def _parse_source(node: _Node) -> dict[str, str]:
    source = {key: value.text(1024) for key, value in node.items().items()}
    for key in ("name", "sha256"):
        if key not in source:
            raise refuse(f"{node.path}.{key}", "missing", "a field of a source")
    if not _SHA256.fullmatch(source["sha256"]):
        raise refuse(f"{node.path}.sha256", show(source["sha256"]), "64 lower-case hex digits")
    return source


def _parse_mechanism(
    name: str, node: _Node, resolution: tuple[int, int], has_truncation: bool
) -> MechanismSpec:
    part = node.fields(_MECHANISM_FIELDS)
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
    embedding = part["embedding"].fields(("member", "shape"))
    rows, columns = embedding["shape"].list(2, 2)
    shape = (rows.integer(1, MAX_CLASSES), columns.integer(1, MAX_VECTOR))
    classes = tuple(label.text(200) for label in part["classes"].list(1, MAX_CLASSES))
    seen: set[str] = set()
    for label in classes:
        if label in seen:
            raise refuse(part["classes"].path, f"a list with {show(label)} twice", "unique names")
        seen.add(label)
    if len(classes) != shape[0]:
        raise refuse(f"length of {part['classes'].path}", len(classes), f"{shape[0]} (rows of the embedding)")
    noise = part["noise"].fields(("size", "distribution"))
    noise_size = noise["size"].integer(1, MAX_VECTOR)
    low, high = (bound.number() for bound in part["range"].list(2, 2))
    if not low < high:
        raise refuse(part["range"].path, f"[{low}, {high}]", "[low, high] with low < high")
    if name == "shape" and not 0 <= low < high <= 1:
        raise refuse(part["range"].path, f"[{low}, {high}]", "within [0, 1] (a mask)")
    return MechanismSpec(
        graph=graph,
        weights=weights,
        embedding=EmbeddingSpec(embedding["member"].member(), shape),
        classes=classes,
        noise=NoiseSpec(
            noise_size, cast(Distribution, noise["distribution"].choice("normal", "truncated_normal"))
        ),
        inputs=_parse_inputs(part["inputs"], noise_size, shape[1], has_truncation),
        outputs=_parse_outputs(part["outputs"], name, resolution),
        range=(low, high),
        roll=part["roll"].flag(),
    )


def _parse_inputs(
    node: _Node, noise_size: int, embedding_size: int, has_truncation: bool
) -> tuple[TensorSpec, ...]:
    rules: dict[str, tuple[int | str, ...]] = {
        "noise": ("n", noise_size),
        "class_embedding": ("n", embedding_size),
        "truncation": ("n", 1),
    }
    tensors = _parse_tensors(node, rules, [rules])
    names = {tensor.name for tensor in tensors}
    for required in ("noise", "class_embedding"):
        if required not in names:
            raise refuse(node.path, f"without {required!r}", "noise and class_embedding")
    if "truncation" in names and not has_truncation:
        raise refuse(node.path, "with 'truncation'", "none where the manifest's truncation is null")
    return tensors


def _parse_outputs(node: _Node, mechanism: str, resolution: tuple[int, int]) -> tuple[TensorSpec, ...]:
    picture = PICTURE_NAMES[mechanism]
    size = ("n", 1 if mechanism == "shape" else 3, *resolution)
    rules: dict[str, tuple[int | str, ...]] = {picture: size}
    other = dict(rules)
    if mechanism == "shape":
        rules["pre_mask"] = ("n", 3, *resolution)
        other["pre_mask"] = ("n", 1, *resolution)
    tensors = _parse_tensors(node, rules, [rules, other])
    if tensors[0].name != picture:
        raise refuse(f"{node.path}[0].name", show(tensors[0].name), f"{picture!r} (the picture comes first)")
    return tensors


def _parse_tensors(
    node: _Node,
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
    """Equal in value and type: 1.0 and true are equal to 1 in Python, but are no dimensions."""
    return len(found) == len(rule) and all(
        type(a) is type(b) and a == b for a, b in zip(found, rule, strict=True)
    )


def _check_members(members: Mapping[str, MemberSpec], mechanisms: Mapping[str, MechanismSpec]) -> None:
    """Every member that is named exists, every one that exists is named, and graphs are not shared."""
    used: dict[str, str] = {}
    for name, spec in mechanisms.items():
        for role, member in (
            ("graph", spec.graph),
            ("weights", spec.weights),
            ("embedding", spec.embedding.member),
        ):
            if member is None:
                continue
            field = f"mechanisms.{name}.{role}"
            if member not in members:
                raise refuse(field, show(member), "one of the manifest's members")
            # Mechanisms may share an embedding table (as the MNIST CGN does) and nothing else.
            if member in used and not (role == used[member] == "embedding"):
                raise refuse(field, show(member), "a member that nothing else uses")
            used[member] = role
        rows, columns = spec.embedding.shape
        size = members[spec.embedding.member].size
        if size != rows * columns * 4:
            rule = f"{rows * columns * 4} ({rows} x {columns} float32)"
            raise refuse(f"size of member {spec.embedding.member!r}", size, rule)
    for name in members:
        if name not in used and not name.startswith("engines/"):
            raise refuse(
                f"member {name!r}", "used by no mechanism", "a mechanism's member or one under engines/"
            )
