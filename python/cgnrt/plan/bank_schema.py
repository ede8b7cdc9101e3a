"""From JSON values to the checked entry of a bank in the manifest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from cgnrt.errors import refuse, show
from cgnrt.plan.bank_streams import STREAMS, longest_stream
from cgnrt.plan.fields import JsonNode
from cgnrt.plan.limits import CHUNK_BYTES, MAX_CLASSES, MAX_ENTRIES, MAX_STRING_CHARS, PICTURES
from cgnrt.plan.manifest import BankSource, BankSpec, MechanismSpec, MemberSpec, Store, TensorSpec
from cgnrt.plan.names import check_classes

_FIELDS = (
    "kind",
    "pictures",
    "hashes",
    "index",
    "labels",
    "weights",
    "count",
    "store",
    "follows",
    "classes",
    "roll",
    "sources",
)


def is_bank(node: JsonNode) -> bool:
    """Whether a mechanism is a bank, from its field `kind`."""
    if "kind" not in node.mapping():
        raise refuse(f"{node.path}.kind", "missing", "a field of the manifest")
    return JsonNode(node.mapping()["kind"], f"{node.path}.kind").choice("graph", "bank") == "bank"


def parse_bank(
    name: str,
    node: JsonNode,
    resolution: tuple[int, int],
    members: Mapping[str, MemberSpec],
) -> BankSpec:
    """A bank from a mechanism's node; `members` are the manifest's."""
    part = node.fields(_FIELDS)
    store = part["store"].choice("raw", *STREAMS)
    follows = _parse_follows(name, part)
    count = part["count"].integer(1, MAX_ENTRIES)
    classes = tuple(label.text(200) for label in part["classes"].list(1, MAX_CLASSES))
    check_classes(part["classes"].path, classes)
    channels = 1 if name == "shape" else 3
    found = {}
    left_out = {"index"} if store == "raw" else set()
    if follows is not None:
        left_out |= {"labels", "weights"}
    for role in ("pictures", "hashes", "index", "labels", "weights"):
        field = part[role]
        if role in left_out:
            if field.value is not None:
                field.fail(
                    "null for raw pictures" if role == "index" else f"null, since {name} follows {follows}"
                )
            continue
        if role == "weights" and field.value is None:
            continue
        found[role] = field.member()
        if not re.fullmatch(rf"banks/[^/]+\.{role}", found[role]):
            field.fail(f"banks/<stem>.{role}")
    sizes = {role: members[member].size for role, member in found.items() if member in members}
    _check_sizes(sizes, found, store, count, channels * resolution[0] * resolution[1])
    pictures, listed = members.get(found["pictures"]), members.get(found["hashes"])
    if pictures is not None and listed is not None and pictures.sha256 != listed.sha256:
        rule = f"that of {found['hashes']!r}, which has the hashes of its chunks"
        raise refuse(f"SHA-256 of member {found['pictures']!r}", f"{pictures.sha256[:16]}...", rule)
    return BankSpec(
        pictures=found["pictures"],
        hashes=found["hashes"],
        labels=found.get("labels"),
        weights=found.get("weights"),
        count=count,
        classes=classes,
        roll=part["roll"].flag(),
        sources=tuple(_parse_bank_source(node) for node in part["sources"].list(0, 64)),
        outputs=(TensorSpec(PICTURES[name], ("n", channels, *resolution)),),
        store=cast(Store, store),
        index=found.get("index"),
        follows=follows,
    )


def _check_sizes(
    sizes: Mapping[str, int], found: Mapping[str, str], store: str, count: int, picture_bytes: int
) -> None:
    """Compare the sizes of a bank's members, by role, with what so many pictures take, before anything is read.

    Args:
      sizes: of the members in `found` that the manifest lists; a missing one is reported by `check_uses`.
    """
    raw = count * picture_bytes
    least, most = (raw, raw) if store == "raw" else (count, count * longest_stream(picture_bytes))
    pictures = sizes.get("pictures", least)
    chunks = -(-pictures // CHUNK_BYTES)
    exact = {"hashes": 32 * chunks, "index": 8 * (count + 1), "labels": 4 * count, "weights": 4 * count}
    for role, size in sizes.items():
        low, high = (least, most) if role == "pictures" else (exact[role], exact[role])
        if not low <= size <= high:
            rule = f"{low}" if low == high else f"{low}..{high}"
            raise refuse(f"size of member {found[role]!r}", size, f"{rule} (for {count} pictures)")


def check_beside_banks(mechanisms: Mapping[str, MechanismSpec | BankSpec]) -> None:
    """Refuse mechanisms that do not go together with the banks beside them."""
    _check_ranges(mechanisms)
    _check_following(mechanisms)


def _parse_follows(name: str, part: Mapping[str, JsonNode]) -> str | None:
    node = part["follows"]
    if node.value is None:
        return None
    if name != "texture":
        node.fail("null: only texture may follow shape")
    if part["roll"].value is not False:
        part["roll"].fail("false, since texture follows shape, whose masks belong to its pictures")
    return node.choice("shape")


def _check_following(mechanisms: Mapping[str, MechanismSpec | BankSpec]) -> None:
    """A bank that follows another one has an entry for each of its entries."""
    for name, spec in mechanisms.items():
        if not isinstance(spec, BankSpec) or spec.follows is None:
            continue
        leader, field = mechanisms[spec.follows], f"mechanisms.{name}"
        if not isinstance(leader, BankSpec):
            raise refuse(f"{field}.follows", show(spec.follows), f"null, since {spec.follows} is a network")
        if spec.count != leader.count:
            rule = f"{leader.count}, as many as {spec.follows} has, which {name} follows"
            raise refuse(f"{field}.count", spec.count, rule)
        if spec.classes != leader.classes:
            rule = f"those of {spec.follows}, which {name} follows"
            raise refuse(f"{field}.classes", "other names", rule)


def _parse_bank_source(node: JsonNode) -> BankSource:
    part = node.fields(("name", "count", "sha256", "licence"))
    licence = part["licence"]
    return BankSource(
        part["name"].text(1024),
        part["count"].integer(0, MAX_ENTRIES),
        part["sha256"].sha256(),
        None if licence.value is None else licence.text(MAX_STRING_CHARS),
    )


def _check_ranges(mechanisms: Mapping[str, MechanismSpec | BankSpec]) -> None:
    """Beside a bank, whose range is fixed, a foreground or background has the same range: they are blended."""
    for name, other in (("texture", "background"), ("background", "texture")):
        spec = mechanisms[name]
        if isinstance(mechanisms[other], BankSpec) and spec.range != mechanisms[other].range:
            rule = f"[-1, 1], since {other} is a bank"
            raise refuse(f"mechanisms.{name}.range", f"[{spec.range[0]:g}, {spec.range[1]:g}]", rule)
