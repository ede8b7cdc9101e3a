"""Engines that were built on this machine, kept for the next time.

An entry is one file: a line that says what it is, and the engine. It is written beside and renamed, so that processes
may share the folder; a damaged one is as good as none. Engines run native code, so an entry that belongs to another
user is not used.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from cgnrt._support.files import cache_folder, open_own, written_beside
from cgnrt.backends.tensorrt.library import log
from cgnrt.backends.tensorrt.target import Batches, Target
from cgnrt.errors import CgnrtError

_MAGIC = b"cgnrt-engine 1 "


@dataclass(frozen=True)
class CacheKey:
    """All that an engine depends on.

    Attributes:
      mechanism: its name, for people.
      digest: of its graph and weights.
      fp32_layers: the layers that a plan keeps in float32.
    """

    mechanism: str
    digest: str
    precision: str
    batches: Batches
    target: Target
    fp32_layers: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The key as JSON, the same for the same key."""
        fields = {
            "mechanism": self.mechanism,
            "digest": self.digest,
            "precision": self.precision,
            "batches": self.batches.sizes,
            "library": self.target.library,
            "version": self.target.version,
            "architecture": self.target.architecture,
            "device": self.target.device,
            "fp32_layers": sorted(self.fp32_layers),
        }
        return json.dumps(fields, sort_keys=True)

    @property
    def path(self) -> Path:
        """Where its entry lies."""
        short = hashlib.sha256(self.text.encode()).hexdigest()[:24]
        return folder() / f"{self.mechanism}-{self.precision}-{short}.engine"


def folder() -> Path:
    """`CGNRT_CACHE`, or `cgnrt` in the user's cache folder; with a folder of its own for engines in it."""
    return cache_folder("tensorrt")


def timing_cache(target: Target) -> Path:
    """Where the tactics that were measured for a target lie."""
    return folder() / f"{target.library}-{target.version}-{target.architecture}-{target.slug}.timings"


def read_entry(key: CacheKey) -> bytes | None:
    """The engine of a key; None if the cache has none that can be used: the log says why."""
    try:
        with os.fdopen(open_own(key.path, os.O_RDONLY), "rb") as file:
            owner = os.fstat(file.fileno()).st_uid
            raw = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("cache entry '%s' is not readable (%s): it is built again", key.path, error.strerror)
        return None
    if hasattr(os, "getuid") and owner != os.getuid():
        log.warning("cache entry '%s' belongs to user %d: it is not used", key.path, owner)
        return None
    line, _, data = raw.partition(b"\n")
    if line != _line(key, data):
        log.warning("cache entry '%s' is damaged: it is built again", key.path)
        return None
    return data


def write_entry(key: CacheKey, data: bytes) -> None:
    """Keep an engine. A cache that cannot be written is not an error: the engine is built again the next time."""
    try:
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        with written_beside(key.path, force=True) as beside, beside.open("xb") as file:
            file.write(_line(key, data) + b"\n")
            file.write(data)
    except (CgnrtError, OSError) as error:
        log.warning("the engine was not kept: %s", error)


def _line(key: CacheKey, data: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(data).hexdigest().encode() + b" " + key.text.encode()
