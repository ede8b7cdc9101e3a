"""The manifest: what a finished data set consists of. The journal of an unfinished one has the same parts."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cgnrt._support.files import written_beside
from cgnrt._support.machine import describe_machine
from cgnrt._support.reading import read_text
from cgnrt.errors import CgnrtError
from cgnrt.request.place import Place
from cgnrt.sampling import MECHANISMS
from cgnrt.shards.formats import FORMATS, Storage
from cgnrt.shards.job import shard_name

# The names that manifests have or had: where there are two, the first is the later one.
MANIFESTS = tuple(sorted({found.manifest for found in FORMATS.values()} | {"manifest.json"}))
FORMAT = "cgnrt-data-set"
FORMAT_VERSION = 1

_SHA256 = re.compile("[0-9a-f]{64}")
_SHARD = re.compile(r"shard-([0-9]{6,20})\.[a-z0-9]+")
# The fields that a header must have, and their types.
_NUMBER, _NUMBER_OR_NONE = (int,), (int, type(None))
_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "plan": {"name": (str,), "sha256": (str,), "resolution": (list,)},
    "engine": {"backend": (str,), "device": (str,), "precision": (str,), "threads": _NUMBER},
    "samples": {"n": _NUMBER, "start": _NUMBER, "seed": _NUMBER},
    "storage": {
        "format": (str,),
        "image": (str,),
        "quality": _NUMBER_OR_NONE,
        "masks": (bool,),
        "shard_size": _NUMBER,
        "cut": _NUMBER,
    },
    "classes": dict.fromkeys(MECHANISMS, (list,)),
}


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard: samples `first` to `first + count - 1`."""

    name: str
    first: int
    count: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class DataSetManifest:
    """A data set: what it is (`Job.header`), what it was made with, and its shards in order.

    The public name is `cgnrt.shards.Manifest`.

    Attributes:
      header: plan, engine, samples, storage, classes.
      made_with: the machine and libraries of the runs that made it, each once.
      shards: the finished ones.
    """

    header: Mapping[str, Any]
    made_with: tuple[Mapping[str, str], ...] = ()
    shards: tuple[ShardRecord, ...] = field(default=())

    @property
    def expected(self) -> int:
        """Shards of the finished data set."""
        samples, storage = self.header["samples"], self.header["storage"]
        return -(-int(samples["n"]) // int(storage["shard_size"]))

    @property
    def storage(self) -> Storage:
        found = self.header["storage"]
        return Storage(**{name: found[name] for name in Storage.__dataclass_fields__})

    def name(self, number: int) -> str:
        """The file of a shard."""
        return shard_name(number, self.expected, self.header["storage"]["format"])

    def has(self, name: str) -> bool:
        """Whether a file is one of the finished data set's. It may have any number of them."""
        found = _SHARD.fullmatch(name)
        return found is not None and (k := int(found[1])) < self.expected and name == self.name(k)

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into the folder, under the name that the format's readers leave alone."""
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **self.header,
            "made_with": [dict(found) for found in self.made_with],
            "shards": [asdict(record) for record in self.shards],
        }
        name = FORMATS[self.header["storage"]["format"]].manifest
        with written_beside(folder / name, force=True) as beside:
            beside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        for other in MANIFESTS:  # an earlier version may have written it
            if other != name and is_manifest(folder / other):
                (folder / other).unlink()

    @classmethod
    def read(cls, folder: Path) -> DataSetManifest:
        """The manifest of a finished data set.

        Raises:
          CgnrtError: it is missing or damaged, or has a later version.
        """
        path = find_manifest(folder) or folder / "manifest.json"
        try:
            content = json.loads(read_text(path))
        except FileNotFoundError:
            raise refuse(path, "file", "missing", "the manifest of a data set") from None
        except OSError as error:
            raise refuse(path, "file", f"unreadable ({error.strerror or error})", "a manifest") from None
        except (ValueError, RecursionError) as error:
            raise refuse(path, "content", f"not JSON ({error})", "a manifest") from None
        header, rest = split_header(path, content, ("made_with", "shards"))
        made_with, shards = rest["made_with"], rest["shards"]
        if not isinstance(made_with, list) or not isinstance(shards, list):
            raise refuse(path, "shards", "not a list", "a list")
        if not all(isinstance(found, dict) for found in made_with):
            raise refuse(path, "made_with", "not objects", "a list of objects")
        records = tuple(parse_record(path, f"shards[{k}]", record) for k, record in enumerate(shards))
        return cls(header, tuple(made_with), records)


def find_manifest(folder: Path) -> Path | None:
    """The manifest in a folder; None without one."""
    return next((folder / name for name in MANIFESTS if (folder / name).exists()), None)


def is_manifest(path: Path) -> bool:
    """Whether a file is a manifest, of any version."""
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def split_header(path: Path, content: Any, others: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check a header; give it and the other fields."""
    if not isinstance(content, dict):
        raise refuse(path, "content", "not an object", "a JSON object")
    if content.get("format") != FORMAT:
        raise refuse(path, "format", ascii(content.get("format"))[:60], repr(FORMAT))
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise refuse(path, "format version", str(version), f"{FORMAT_VERSION}", "Upgrade cgnrt.")
    header: dict[str, Any] = {}
    for part, fields in _FIELDS.items():
        found = content.get(part)
        if not isinstance(found, dict):
            raise refuse(path, part, "missing", "an object")
        for name, kinds in fields.items():
            if type(found.get(name)) not in kinds:
                raise refuse(path, f"{part}.{name}", ascii(found.get(name))[:60], f"{kinds[0].__name__}")
        header[part] = found
    storage, samples = header["storage"], header["samples"]
    if "place" in samples:
        try:
            Place.from_dict(samples["place"])
        except (TypeError, ValueError) as error:
            raise refuse(path, "samples.place", f"damaged ({error})", "what places are drawn from") from None
    if storage["format"] not in FORMATS:
        raise refuse(path, "storage.format", storage["format"][:60], f"one of {', '.join(FORMATS)}")
    if storage["shard_size"] < 1 or samples["n"] < 0:
        raise refuse(path, "storage.shard_size or samples.n", "too small", "at least 1, and at least 0")
    if storage["cut"] < 1 or samples["start"] < 0:
        raise refuse(path, "storage.cut or samples.start", "too small", "at least 1, and at least 0")
    images = FORMATS[storage["format"]].images
    if storage["image"] not in images:
        raise refuse(path, "storage.image", ascii(storage["image"])[:60], f"one of {', '.join(images)}")
    resolution = header["plan"]["resolution"]
    if len(resolution) != 2 or any(type(side) is not int or side < 1 for side in resolution):
        raise refuse(path, "plan.resolution", ascii(resolution)[:60], "two sizes of at least 1")
    for name, labels in header["classes"].items():
        if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
            raise refuse(path, f"classes.{name}"[:60], ascii(labels)[:60], "a list of names")
    missing = [name for name in others if name not in content]
    if missing:
        raise refuse(path, missing[0], "missing", "a field of the manifest")
    return header, {name: content[name] for name in others}


def parse_record(path: Path, field: str, value: Any) -> ShardRecord:
    """A shard's record. Its name is a plain file name, never a path."""
    fields = {"name": str, "first": int, "count": int, "size_bytes": int, "sha256": str}
    if not isinstance(value, dict) or {k: type(v) for k, v in value.items()} != fields:
        raise refuse(path, field, "not a record", f"an object of {', '.join(fields)}")
    if not _SHARD.fullmatch(value["name"]) or not _SHA256.fullmatch(value["sha256"]):
        raise refuse(path, field, ascii(value["name"])[:60], "the name and checksum of a shard")
    return ShardRecord(**value)


def environment(header: Mapping[str, Any]) -> dict[str, str]:
    """What the last bits of a shard depend on beside the header: the processor, and the versions of the libraries."""
    from PIL import features

    packages = ["cgnrt", "numpy"]
    engine, storage = header["engine"], header["storage"]
    if engine["backend"] != "native":
        packages += [name for name in (engine["backend"], f"{engine['backend']}-gpu") if _version(name)]
    packages += filter(None, [FORMATS[storage["format"]].package])
    found = {"cpu": str(describe_machine()["cpu"])}
    found |= {name: _version(name) or "unknown" for name in packages}
    if storage["image"] != "raw" or storage["masks"]:
        found["pillow"] = _version("pillow") or "unknown"
    codec = {"webp": "webp", "png": "zlib", "jpeg": "jpg"}.get(storage["image"])
    if codec is not None:
        found[codec] = str(features.version(codec))
    return found


def refuse(path: Path, field: str, got: str, rule: str, next_step: str = "") -> CgnrtError:
    return CgnrtError(f"read '{path}': {field} is {got}, expected {rule}. {next_step}".rstrip())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
