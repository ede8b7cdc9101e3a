"""System shared memory: regions under /dev/shm that clients on this machine name, read from and written to."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgnrt._support.forking import ForkLock
from cgnrt.serve.protocol import InferRequest, Parameter, ServeError, Tensor, short
from cgnrt.serve.tensors import ITEM_BYTES, check_header, from_raw, to_raw

REGION = "shared_memory_region"  # the parameter of a tensor that is in one

_FOLDER = Path("/dev/shm")
_KEY = re.compile(r"/?([A-Za-z0-9_-][A-Za-z0-9_.-]{0,254})", re.ASCII)
_OWNER = stat.S_IRUSR | stat.S_IWUSR
_ALL = stat.S_IROTH | stat.S_IWOTH
_LONGEST_NAME = 256
_LONGEST_VALUE = 512  # of BYTES, with its length


@dataclass(frozen=True)
class RegionSlice:
    """A part of a region: where the parameters of a tensor say that it is."""

    region: str
    offset: int
    byte_size: int

    def after(self, used: int) -> RegionSlice:
        """The rest behind `used` bytes."""
        return RegionSlice(self.region, self.offset + used, max(0, self.byte_size - used))


def region_slice(tensor: str, parameters: Mapping[str, Parameter]) -> RegionSlice | None:
    """The shared memory that the parameters of an input or output name; None if its bytes are in the message.

    Raises:
      ServeError: a parameter has a wrong type.
    """
    region = parameters.get(REGION)
    if region is None:
        return None
    if not isinstance(region, str):
        raise ServeError(
            "invalid", f"find '{tensor}': shared_memory_region is {region!r}, expected a string."
        )
    numbers: dict[str, Any] = {
        "shared_memory_offset": parameters.get("shared_memory_offset", 0),
        "shared_memory_byte_size": parameters.get("shared_memory_byte_size"),
    }
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ServeError("invalid", f"find '{tensor}': {key} is {value!r}, expected an int of 0 or more.")
    return RegionSlice(region, *numbers.values())


def check_regions(request: InferRequest, regions: Regions) -> None:
    """Refuse outputs into shared memory that does not exist, before they are made."""
    for output in request.outputs:
        where = region_slice(output.name, output.parameters)
        if where is not None:
            regions.check(where.region, where.offset, where.byte_size)


def from_region(
    name: Any, datatype: Any, shape: Any, where: RegionSlice, regions: Regions, *, most_values: int
) -> Tensor:
    """Read a tensor from shared memory, no more bytes than its header says.

    Raises:
      ServeError: the region or its bytes do not fit the header.
    """
    count = check_header(name, datatype, shape, most_values)
    most = count * ITEM_BYTES.get(datatype, _LONGEST_VALUE)
    if where.byte_size > most:
        raise ServeError(
            "invalid", f"read '{name[:60]}': bytes are {where.byte_size}, expected at most {most}."
        )
    raw = regions.read(where.region, where.offset, where.byte_size)
    return from_raw(name, datatype, shape, raw, most_values=most_values)


def to_region(tensor: Tensor, where: RegionSlice, regions: Regions) -> dict[str, Parameter]:
    """Write a tensor to shared memory.

    Returns:
      The parameters that say where it is.
    Raises:
      ServeError: the tensor is larger than the slice, or the region cannot be written.
    """
    raw = to_raw(tensor)
    if len(raw) > where.byte_size:
        raise ServeError(
            "invalid", f"write '{tensor.name}': bytes are {len(raw)}, expected at most {where.byte_size}."
        )
    regions.write(where.region, where.offset, raw)
    return {
        "shared_memory_region": where.region,
        "shared_memory_offset": where.offset,
        "shared_memory_byte_size": len(raw),
    }


@dataclass(frozen=True)
class _Region:
    key: str
    offset: int
    byte_size: int
    file: int


class Regions:
    """Registered regions by name.

    A key is the plain name of a file in /dev/shm; others are refused. Files are read and written by system calls and
    never mapped: if the owner makes a file shorter meanwhile, that is an error and does not end the server.

    Args:
      allowed: False refuses to register any region, for servers that other machines reach.
      trusted: whether clients have shown a token. Those that have not may be any user of this machine, so that they get
        no region that is not open to all users.
      most: limit of the number of regions; each holds a file open.
    """

    def __init__(self, *, allowed: bool = True, trusted: bool = True, most: int = 128) -> None:
        self._allowed = allowed
        self._trusted = trusted
        self._most = most
        self._regions: dict[str, _Region] = {}
        self._lock = ForkLock()

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open the region `byte_size` bytes long at `offset` of the memory `key`.

        Raises:
          ServeError: shared memory is off, the name is taken, or the key, offset or size is refused.
        """
        if not self._allowed:
            raise ServeError(
                "invalid",
                "register region: shared memory is off: the server does not listen on a loopback address.",
            )
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
            raise ServeError(
                "invalid",
                f"register region: name is {short(name)}, expected 1 to {_LONGEST_NAME} characters.",
            )
        found = _KEY.fullmatch(key) if isinstance(key, str) else None
        if found is None:
            raise ServeError(
                "invalid",
                f"register region: key is {short(key)}, expected a name of letters, digits, '_', '-' and '.'.",
            )
        for field, value, least in (("offset", offset, 0), ("byte_size", byte_size, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ServeError(
                    "invalid",
                    f"register region: {field} is {short(value)}, expected an int of {least} or more.",
                )
        with self._lock:
            if name in self._regions:
                raise ServeError(
                    "invalid",
                    f"register region: name is {short(name)}, expected an unused one. Unregister it first.",
                )
            if len(self._regions) >= self._most:
                raise ServeError(
                    "unavailable",
                    f"register region: {self._most} are registered, expected fewer. Unregister one.",
                )
            file = _open(found[1], offset + byte_size, trusted=self._trusted)
            self._regions[name] = _Region(key, offset, byte_size, file)

    def unregister(self, name: str | None = None) -> None:
        """Forget a region, or all. One that is not registered is not an error, as in Triton."""
        with self._lock:
            names = list(self._regions) if name is None else [name]
            for each in names:
                region = self._regions.pop(each, None)
                if region is not None:
                    os.close(region.file)

    def status(self, name: str | None = None) -> list[dict[str, Any]]:
        """Name, key, offset and byte_size of a region, or of all.

        Raises:
          ServeError: it is not registered.
        """
        with self._lock:
            found = dict(self._regions) if name is None else {name: self._find(name)}
        return [
            {"name": each, "key": r.key, "offset": r.offset, "byte_size": r.byte_size}
            for each, r in found.items()
        ]

    def check(self, name: str, offset: int, size: int) -> None:
        """Refuse a part outside the region."""
        with self._lock:
            self._part(name, offset, size)

    def read(self, name: str, offset: int, size: int) -> bytes:
        """The bytes of a part of a region.

        Raises:
          ServeError: the part is outside the region, or the memory was made shorter since it was registered.
        """
        with self._lock:
            region, at = self._part(name, offset, size)
            found = os.pread(region.file, size, at)
        if len(found) < size:
            raise ServeError(
                "invalid", f"read region {short(name)}: bytes are {len(found)}, expected {size}."
            )
        return found

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None:
        """Write to a part of a region.

        Raises:
          ServeError: the part is outside the region, the memory was made shorter since it was registered, or is full.
        """
        left = memoryview(data).cast("B")
        with self._lock:
            region, at = self._part(name, offset, len(left))
            there = os.fstat(region.file).st_size
            if at + len(left) > there:  # writing would make it longer
                raise ServeError(
                    "invalid", f"write region {short(name)}: bytes are {there}, expected {at + len(left)}."
                )
            try:
                while left:
                    written = os.pwrite(region.file, left, at)
                    left, at = left[written:], at + written
            except OSError as error:
                raise ServeError(
                    "unavailable", f"write region {short(name)}: {error.strerror}. Free some shared memory."
                ) from error

    def close(self) -> None:
        """Forget all."""
        self.unregister()

    def _find(self, name: str) -> _Region:
        region = self._regions.get(name)
        if region is None:
            raise ServeError(
                "not_found", f"find region: name is {short(name)}, expected one that is registered."
            )
        return region

    def _part(self, name: str, offset: int, size: int) -> tuple[_Region, int]:
        """A region, and where in its file a part of it begins."""
        region = self._find(name)
        if offset < 0 or size < 0 or offset + size > region.byte_size:
            raise ServeError(
                "invalid",
                f"find region {short(name)}: part is {offset}..{offset + size}, expected 0..{region.byte_size}.",
            )
        return region, region.offset + offset


def _open(key: str, least: int, *, trusted: bool) -> int:
    """Open the memory `key`, a plain file of at least `least` bytes that clients may use."""
    try:
        # NONBLOCK: opening a FIFO would wait for its other end.
        file = os.open(_FOLDER / key, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ServeError(
            "invalid", f"register region: key '{key}' cannot be opened ({error.strerror}). Create it first."
        ) from error
    found = os.fstat(file)
    # Whatever the server may open: it may run as root, and acts for whoever reaches it.
    own = trusted and found.st_uid == os.geteuid() and found.st_mode & _OWNER == _OWNER
    usable = own or found.st_mode & _ALL == _ALL
    if stat.S_ISREG(found.st_mode) and usable and found.st_size >= least:
        return file
    os.close(file)
    if not stat.S_ISREG(found.st_mode):
        raise ServeError("invalid", f"register region: key '{key}' is not a plain file.")
    if not usable:
        raise ServeError(
            "invalid",
            f"register region: mode of '{key}' is {stat.S_IMODE(found.st_mode):04o}, expected 0666"
            + (", or a region of the server's own user." if trusted else ". Or give the server a token."),
        )
    raise ServeError(
        "invalid", f"register region: bytes of '{key}' are {found.st_size}, expected at least {least}."
    )
