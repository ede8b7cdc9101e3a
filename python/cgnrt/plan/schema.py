"""From JSON values to a checked manifest. Every message names the field by its path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from cgnrt.errors import refuse, show
from cgnrt.plan.bank_schema import check_beside_banks, is_bank, parse_bank
from cgnrt.plan.fields import (
    UPGRADE,
    JsonNode,
    check_uses,
    kind_of,
    network_fields,
    parse_files,
    parse_member,
    parse_resolution,
    parse_source,
    parse_storage,
    parse_tensors,
)
from cgnrt.plan.limits import (
    FORMAT_VERSION,
    MAX_CLASSES,
    MAX_VECTOR,
    MECHANISMS,
    PICTURES,
    PRE_MASK,
    STREAM_VERSION,
)
from cgnrt.plan.manifest import (
    BankSpec,
    CgnManifest,
    Distribution,
    EmbeddingSpec,
    MechanismSpec,
    MemberSpec,
    NoiseMode,
    NoiseSpec,
    Precision,
    SaliencyManifest,
    TensorSpec,
    Truncation,
)
from cgnrt.plan.names import check_classes

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
    "kind",
    "graph",
    "weights",
    "storage",
    "embedding",
    "classes",
    "noise",
    "inputs",
    "outputs",
    "range",
    "roll",
)


def parse_manifest(value: Any) -> CgnManifest | SaliencyManifest:
    """Check JSON values against the schema of their format version and kind.

    Raises:
      PlanError: a field is missing, unknown, of the wrong type or out of range, or two fields contradict each
        other. A version that is too high is reported before anything else: later fields may be unknown.
    """
    if not isinstance(value, dict):
        raise refuse("manifest", kind_of(value), "a JSON object")
    root = JsonNode(value, "")
    version = _check_version(value, "format_version", "format version", FORMAT_VERSION)
    if version == 1:  # knew no other kind
        return _parse_cgn(root, version, _FIELDS)
    if "kind" not in value:
        raise refuse("kind", "missing", "a field of the manifest")
    if JsonNode(value["kind"], "kind").choice("cgn", "saliency") == "saliency":
        from cgnrt.plan.saliency_schema import parse_saliency  # few plans are of this kind

        return parse_saliency(root, version)
    return _parse_cgn(root, version, ("format_version", "kind", *_FIELDS[1:]))


def _parse_cgn(root: JsonNode, version: int, fields: tuple[str, ...]) -> CgnManifest:
    # A plan of an older stream is sound and can be inspected; a Generator, which would draw other samples, refuses it.
    stream_version = _check_version(root.mapping(), "stream_version", "stream version", STREAM_VERSION)
    part = root.fields(fields)
    height, width = parse_resolution(part["resolution"])
    truncation = _parse_truncation(part["truncation"])
    members = {name: parse_member(name, node) for name, node in part["members"].items().items()}
    mechanisms = {
        name: parse_bank(name, node, (height, width), members)
        if version >= 4 and is_bank(node)
        else _parse_mechanism(
            name,
            node.fields(network_fields(_MECHANISM_FIELDS, version)),
            (height, width),
            truncation,
            members,
        )
        for name, node in part["mechanisms"].fields(MECHANISMS).items()
    }
    check_beside_banks(mechanisms)
    noise_mode = part["noise_mode"].choice("independent", "shared")
    if noise_mode == "shared" and len({spec.noise for spec in mechanisms.values()}) != 1:
        raise refuse("noise_mode", "'shared'", "'independent' where the mechanisms' noise differs")
    _check_members(members, mechanisms)
    training_data = part["training_data"]
    return CgnManifest(
        format_version=version,
        stream_version=stream_version,
        family=part["family"].text(),
        exported_by=part["exported_by"].text(),
        resolution=(height, width),
        noise_mode=cast(NoiseMode, noise_mode),
        truncation=truncation,
        precision=cast(Precision, part["precision"].choice("fp32", "bf16", "fp16")),
        mechanisms=mechanisms,
        sources=tuple(parse_source(node) for node in part["sources"].list(0, 64)),
        training_data=None if training_data.value is None else training_data.text(4096),
        members=members,
        parity=part["parity"].mapping(),
    )


def _check_version(manifest: Mapping[str, Any], key: str, words: str, supported: int) -> int:
    if key not in manifest:
        raise refuse(key, "missing", "a field of the manifest")
    version = manifest[key]
    if type(version) is not int or version < 1:
        raise refuse(words, show(version), f"an integer in 1..{supported}")
    if version > supported:
        raise refuse(words, version, f"<= {supported}", UPGRADE)
    return version


def _parse_truncation(node: JsonNode) -> Truncation | None:
    if node.value is None:
        return None
    part = node.fields(("minimum", "maximum", "default"))
    minimum, maximum, default = (part[name].number() for name in ("minimum", "maximum", "default"))
    if not 0 < minimum <= default <= maximum <= 100:
        found = f"minimum {minimum}, default {default}, maximum {maximum}"
        raise refuse(node.path, found, "0 < minimum <= default <= maximum <= 100")
    return Truncation(minimum, maximum, default)


def _parse_mechanism(
    name: str,
    part: Mapping[str, JsonNode],
    resolution: tuple[int, int],
    truncation: Truncation | None,
    members: Mapping[str, MemberSpec],
) -> MechanismSpec:
    graph, weights = parse_files(part)
    embedding = part["embedding"].fields(("member", "shape"))
    rows, columns = embedding["shape"].list(2, 2)
    shape = (rows.integer(1, MAX_CLASSES), columns.integer(1, MAX_VECTOR))
    classes = tuple(label.text(200) for label in part["classes"].list(1, MAX_CLASSES))
    check_classes(part["classes"].path, classes)
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
        inputs=_parse_inputs(part["inputs"], noise_size, shape[1], truncation is not None),
        outputs=_parse_outputs(part["outputs"], name, resolution),
        range=(low, high),
        roll=part["roll"].flag(),
        storage=parse_storage(part, weights, members),
    )


def _parse_inputs(
    node: JsonNode, noise_size: int, embedding_size: int, has_truncation: bool
) -> tuple[TensorSpec, ...]:
    rules: dict[str, tuple[int | str, ...]] = {
        "noise": ("n", noise_size),
        "class_embedding": ("n", embedding_size),
        "truncation": ("n", 1),
    }
    tensors = parse_tensors(node, rules, [rules])
    names = {tensor.name for tensor in tensors}
    for required in ("noise", "class_embedding"):
        if required not in names:
            raise refuse(node.path, f"without {required!r}", "noise and class_embedding")
    if "truncation" in names and not has_truncation:
        raise refuse(node.path, "with 'truncation'", "none where the manifest's truncation is null")
    return tensors


def _parse_outputs(node: JsonNode, mechanism: str, resolution: tuple[int, int]) -> tuple[TensorSpec, ...]:
    picture = PICTURES[mechanism]
    size = ("n", 1 if mechanism == "shape" else 3, *resolution)
    rules: dict[str, tuple[int | str, ...]] = {picture: size}
    other = dict(rules)
    if mechanism == "shape":
        rules[PRE_MASK] = ("n", 3, *resolution)
        other[PRE_MASK] = ("n", 1, *resolution)
    tensors = parse_tensors(node, rules, [rules, other])
    if tensors[0].name != picture:
        raise refuse(f"{node.path}[0].name", show(tensors[0].name), f"{picture!r} (the picture comes first)")
    return tensors


def _check_members(
    members: Mapping[str, MemberSpec], mechanisms: Mapping[str, MechanismSpec | BankSpec]
) -> None:
    """The members are used as they should be, and tables have the size of their shape."""
    check_uses(
        members,
        (
            (f"mechanisms.{name}.{role}", role, member)
            for name, spec in mechanisms.items()
            for role, member in _uses(spec)
        ),
    )
    for spec in mechanisms.values():
        if isinstance(spec, BankSpec):
            continue
        rows, columns = spec.embedding.shape
        size = members[spec.embedding.member].size
        if size != rows * columns * 4:
            rule = f"{rows * columns * 4} ({rows} x {columns} float32)"
            raise refuse(f"size of member {spec.embedding.member!r}", size, rule)


def _uses(spec: MechanismSpec | BankSpec) -> Iterator[tuple[str, str | None]]:
    """(role, member) of what a mechanism uses."""
    if isinstance(spec, BankSpec):
        for role in ("pictures", "hashes", "index", "labels", "weights"):
            yield f"bank {role}", getattr(spec, role)
        return
    yield "graph", spec.graph
    yield "weights", spec.weights
    yield "embedding", spec.embedding.member
