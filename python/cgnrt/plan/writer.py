"""`write_plan`: a plan appears whole under its name, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgnrt.errors import PlanError, refuse, within
from cgnrt.plan.archive import archive_layout
from cgnrt.plan.fields import check_json
from cgnrt.plan.limits import FORMAT_VERSION, MANIFEST_NAME, STREAM_VERSION
from cgnrt.plan.manifest import CgnManifest, SaliencyManifest
from cgnrt.plan.reader import open_plan
from cgnrt.plan.schema import parse_manifest

Buffer = bytes | bytearray | memoryview


def write_plan(
    path: str | os.PathLike[str],
    manifest: CgnManifest | SaliencyManifest | Mapping[str, Any],
    members: Mapping[str, Buffer],
    *,
    force: bool = False,
) -> str:
    """Write a plan file. Equal arguments give equal bytes.

    The file is written beside the target, checked by the code that reads plans, and renamed: a full disk, a
    kill or a refusal leaves the target as it was. A kill may leave a hidden `.<name>.<random>.tmp` behind.

    Args:
      path: the plan to make.
      manifest: all fields but `members`; the versions may be left out of a mapping, and the kind of a CGN's and of
        its graphs, and the storage of weights in full. One of an older version is written as such.
      members: contents by member name, written in this order after the manifest. NumPy arrays that are
        C-contiguous will do.
      force: replace an existing file.

    Returns:
      The plan's digest: SHA-256 (hex) of its manifest.

    Raises:
      PlanError: the target exists, the disk is full, or the contents are not a valid plan.
      TypeError: a member is not a buffer.
    """
    target = os.fsdecode(path)
    operation = f"write {target!r}"
    try:
        return _write(target, manifest, members, force, operation)
    except OSError as error:
        found = f"not writable ({error.strerror or error})"
        step = "Nothing was left behind; make room, or give another path."
        raise within(
            operation, refuse("file", found, "a place with room and the right to write", step)
        ) from error


def _write(
    target: str,
    manifest: CgnManifest | SaliencyManifest | Mapping[str, Any],
    members: Mapping[str, Buffer],
    force: bool,
    operation: str,
) -> str:
    views = {name: _view(name, data) for name, data in members.items()}
    try:
        if not force and os.path.lexists(target):
            raise _exists()
        raw = _manifest_bytes(manifest, views)
        layout = [(MANIFEST_NAME, memoryview(raw)), *views.items()]
        headers, ending = archive_layout(layout)
    except PlanError as error:
        raise within(operation, error) from None
    folder, name = os.path.split(target)
    # Cut, so that the temporary name fits wherever the target's does.
    temporary = os.path.join(folder, f".{name[:60]}.{os.urandom(4).hex()}.tmp")
    from cgnrt._support.files import (  # programs that only read plans start faster
        discard,
        flush_names,
        publish,
    )

    try:
        with open(temporary, "xb") as file:
            for header, (_, data) in zip(headers, layout, strict=True):
                file.write(header)
                file.write(data)
            file.write(ending)
            file.flush()
            os.fsync(file.fileno())
        with open_plan(temporary, True, operation) as plan:
            digest = plan.digest
        try:
            publish(Path(temporary), Path(target), force=force)
        except FileExistsError:
            raise within(operation, _exists()) from None
        flush_names(Path(folder))
    finally:
        discard(Path(temporary))
    return digest


def _view(name: str, data: Buffer) -> memoryview:
    """The bytes of a member, in place."""
    try:
        view = memoryview(data)
        return view.cast("B") if view.nbytes else memoryview(b"")
    except TypeError:
        rule = "a C-contiguous buffer (bytes, memoryview, NumPy array)"
        raise TypeError(f"write_plan: member {name!r} is {type(data).__name__}, expected {rule}.") from None


def _manifest_bytes(
    manifest: CgnManifest | SaliencyManifest | Mapping[str, Any], views: Mapping[str, memoryview]
) -> bytes:
    given = dict(manifest) if isinstance(manifest, Mapping) else manifest.to_dict()
    value: dict[str, Any] = {"format_version": FORMAT_VERSION, **given}
    if value["format_version"] != 1:
        value.setdefault("kind", "cgn")
    if value["format_version"] == FORMAT_VERSION:
        _fill_in(value)
    if value.get("kind", "cgn") == "cgn":
        value.setdefault("stream_version", STREAM_VERSION)
    value["members"] = {
        name: {"size": data.nbytes, "sha256": _hash(name, data, value, views)} for name, data in views.items()
    }
    check_json(value)
    # Through JSON and back: tuples become lists, as the reader will see them.
    checked = parse_manifest(json.loads(json.dumps(value, allow_nan=False)))
    return (json.dumps(checked.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _hash(name: str, data: memoryview, manifest: Mapping[str, Any], views: Mapping[str, memoryview]) -> str:
    """The SHA-256 of a member; of a bank's pictures that of the hashes of their chunks."""
    mechanisms = manifest.get("mechanisms")
    for spec in mechanisms.values() if isinstance(mechanisms, Mapping) else ():
        bank = isinstance(spec, Mapping) and spec.get("kind") == "bank" and spec.get("pictures") == name
        if bank and spec.get("hashes") in views:
            data = views[spec["hashes"]]
    return hashlib.sha256(data).hexdigest()


def _fill_in(manifest: dict[str, Any]) -> None:
    """Fill in, in copies, that mechanisms are graphs and weights stored in full where nothing is said of them."""
    if isinstance(mechanisms := manifest.get("mechanisms"), Mapping):
        manifest["mechanisms"] = {name: _filled(spec) for name, spec in mechanisms.items()}
    if isinstance(spec := manifest.get("saliency"), Mapping):
        manifest["saliency"] = {"storage": None, **spec}


def _filled(spec: Any) -> Any:
    if not isinstance(spec, Mapping) or spec.get("kind") == "bank":
        return spec
    return {"kind": "graph", "storage": None, **spec}


def _exists() -> PlanError:
    return refuse(
        "path", "the name of an existing file", "a new name", "Give another name, or force=True (--force)."
    )
