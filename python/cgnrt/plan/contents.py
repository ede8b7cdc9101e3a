"""What is in a plan's archive, compared with what its manifest says of it."""

from __future__ import annotations

import hashlib
import mmap
import zlib
from collections.abc import Mapping

from cgnrt.errors import COPY_AGAIN, PlanError, refuse
from cgnrt.plan.archive import Content, Entry, index_members, open_content
from cgnrt.plan.fields import parse_json
from cgnrt.plan.limits import MANIFEST_NAME, MAX_MANIFEST_BYTES
from cgnrt.plan.manifest import BankSpec, CgnManifest, MemberSpec, SaliencyManifest
from cgnrt.plan.schema import parse_manifest

_COPIED_BYTES = 64 << 20  # of a bank's pictures; more stay in the file of a private plan
_HASH_STEP = 64 << 20  # bytes that are resident at a time while a large member is hashed


def has_large_banks(path: str) -> bool:
    """Whether a plan has more pictures than are copied; False for a file that is refused, as its reader will say."""
    content = open_content(path, False)
    try:
        entries = index_plan(content.data)
        first = entries[MANIFEST_NAME]
        raw = manifest_bytes(first, content.data[first.start : first.start + first.size])
        pictures = pictures_of(parse_manifest(parse_json(raw)))
        return sum(entries[name].size for name in pictures if name in entries) > _COPIED_BYTES
    except PlanError:
        return False
    finally:
        content.close()


def pictures_of(manifest: CgnManifest | SaliencyManifest) -> set[str]:
    """The members with pictures of banks."""
    if isinstance(manifest, SaliencyManifest):
        return set()
    return {spec.pictures for spec in manifest.mechanisms.values() if isinstance(spec, BankSpec)}


def index_plan(data: memoryview) -> dict[str, Entry]:
    """Where each member lies; the error for a file of another kind says what it is."""
    try:
        entries = index_members(data)
        if (first := next(iter(entries))) != MANIFEST_NAME:
            raise refuse("first member", repr(first), repr(MANIFEST_NAME))
    except PlanError as error:
        from cgnrt.plan.foreign import recognize  # here, because it is needed only for errors

        raise (recognize(data) or error) from None
    return entries


def manifest_bytes(entry: Entry, data: memoryview) -> bytes:
    if entry.size > MAX_MANIFEST_BYTES:
        raise refuse("manifest size", f"{entry.size} bytes", f"<= {MAX_MANIFEST_BYTES}")
    raw = bytes(data)
    # Nothing in the plan holds the manifest's hash, so its CRC is what finds damage in it.
    if zlib.crc32(raw) != entry.crc:
        raise refuse("manifest CRC", f"{zlib.crc32(raw):#010x}", f"{entry.crc:#010x}", COPY_AGAIN)
    return raw


def check_members(listed: Mapping[str, MemberSpec], entries: Mapping[str, Entry]) -> None:
    """The archive and the manifest list the same members, of the same sizes."""
    for name in entries:
        if name != MANIFEST_NAME and name not in listed:
            raise refuse(f"member {name!r}", "not in the manifest", "only members of the manifest")
    for name, spec in listed.items():
        if name not in entries:
            raise refuse(f"member {name!r}", "missing", "every member of the manifest", COPY_AGAIN)
        if entries[name].size != spec.size:
            found = f"{entries[name].size} bytes"
            raise refuse(
                f"member {name!r}", found, f"{spec.size} bytes (its size in the manifest)", COPY_AGAIN
            )


def hashed_whole(manifest: CgnManifest | SaliencyManifest) -> Mapping[str, MemberSpec]:
    """The members of a manifest without pictures of banks, whose hashes are by chunk."""
    chunked = pictures_of(manifest)
    return {name: spec for name, spec in manifest.members.items() if name not in chunked}


def copied_but_pictures(
    members: Mapping[str, memoryview], manifest: CgnManifest | SaliencyManifest
) -> dict[str, memoryview]:
    """The members in memory of their own, except for pictures of banks."""
    pictures = pictures_of(manifest)
    return {name: view if name in pictures else _copied(view) for name, view in members.items()}


def _copied(data: memoryview) -> memoryview:
    """A read-only copy, aligned as members are."""
    if not data.nbytes:
        return data
    memory = mmap.mmap(-1, data.nbytes)
    memory[:] = data
    return memoryview(memory).toreadonly()


def check_hashes(
    listed: Mapping[str, MemberSpec],
    members: Mapping[str, memoryview],
    content: Content,
    next_step: str = COPY_AGAIN,
) -> None:
    for name, spec in listed.items():
        digest = hashlib.sha256()
        data = members[name]
        for first in range(0, len(data), _HASH_STEP):
            digest.update(data[first : first + _HASH_STEP])
            if len(data) > _HASH_STEP:
                content.release_pages()
        found = digest.hexdigest()
        if found != spec.sha256:
            raise refuse(
                f"SHA-256 of member {name!r}",
                f"{found[:16]}...",
                f"{spec.sha256[:16]}... (the manifest's)",
                next_step,
            )
