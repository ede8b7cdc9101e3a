"""The manifest of kind "saliency": one network that finds the object of a photo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from cgnrt.errors import refuse
from cgnrt.plan.fields import (
    JsonNode,
    check_uses,
    network_fields,
    parse_files,
    parse_member,
    parse_resolution,
    parse_source,
    parse_storage,
    parse_tensors,
)
from cgnrt.plan.manifest import DivideBy, MemberSpec, Precision, SaliencyManifest, SaliencySpec

_FIELDS = (
    "format_version",
    "kind",
    "family",
    "exported_by",
    "resolution",
    "precision",
    "saliency",
    "sources",
    "training_data",
    "members",
    "parity",
)
_NETWORK_FIELDS = ("graph", "weights", "storage", "inputs", "outputs", "divide_by", "mean", "std", "stretch")


def parse_saliency(root: JsonNode, version: int) -> SaliencyManifest:
    """Check the fields of a manifest whose version and kind are known."""
    part = root.fields(_FIELDS)
    resolution = parse_resolution(part["resolution"])
    members = {name: parse_member(name, node) for name, node in part["members"].items().items()}
    spec = _parse_network(part["saliency"], resolution, members, version)
    check_uses(
        members, (("saliency.graph", "graph", spec.graph), ("saliency.weights", "weights", spec.weights))
    )
    training_data = part["training_data"]
    return SaliencyManifest(
        format_version=version,
        family=part["family"].text(),
        exported_by=part["exported_by"].text(),
        resolution=resolution,
        saliency=spec,
        precision=cast(Precision, part["precision"].choice("fp32", "bf16", "fp16")),
        sources=tuple(parse_source(node) for node in part["sources"].list(0, 64)),
        training_data=None if training_data.value is None else training_data.text(4096),
        members=members,
        parity=part["parity"].mapping(),
    )


def _parse_network(
    node: JsonNode, resolution: tuple[int, int], members: Mapping[str, MemberSpec], version: int
) -> SaliencySpec:
    part = node.fields(network_fields(_NETWORK_FIELDS, version))
    graph, weights = parse_files(part)
    image: dict[str, tuple[int | str, ...]] = {"image": ("n", 3, *resolution)}
    mask: dict[str, tuple[int | str, ...]] = {"mask": ("n", 1, *resolution)}
    std = _per_channel(part["std"])
    if min(std) <= 0:
        raise refuse(part["std"].path, f"{list(std)}", "positive numbers")
    return SaliencySpec(
        graph=graph,
        weights=weights,
        inputs=parse_tensors(part["inputs"], image, [image]),
        outputs=parse_tensors(part["outputs"], mask, [mask]),
        divide_by=cast(DivideBy, part["divide_by"].choice("maximum", "range")),
        mean=_per_channel(part["mean"]),
        std=std,
        stretch=part["stretch"].flag(),
        storage=parse_storage(part, weights, members),
    )


def _per_channel(node: JsonNode) -> tuple[float, float, float]:
    red, green, blue = (channel.number() for channel in node.list(3, 3))
    return red, green, blue
