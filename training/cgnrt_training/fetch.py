"""Check data files against known hashes, and fetch the missing ones from an address that the user names.

Written by hand and not with pooch, because pooch knows only one form of each file, and stores whatever a server sends,
however much and however slowly, before it looks at the hash. Neither continues a file in the middle: a command that is
started again fetches the files that are still missing.
"""

from __future__ import annotations

import hashlib
import http.client
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from cgnrt._support.files import written_beside
from cgnrt._support.reading import open_file
from cgnrt._support.terminal import progress_bar
from cgnrt.errors import CgnrtError

from .data_files import Catalogue, DataFile, Form

TIMEOUT_S = 30.0  # without a byte
LIMIT_S = 900.0  # for one file: a server that sends a byte now and then is given up
_CHUNK_BYTES = 1 << 16

State = Literal["good", "damaged", "missing"]


class FetchError(CgnrtError):
    """A file could not be fetched completely and correctly; nothing was left behind."""


class NotThereError(FetchError):
    """The address has no such file."""


@dataclass(frozen=True)
class Finding:
    """What was found of one data file.

    Attributes:
      path: of the form that was found, or of the one to fetch.
      state: "damaged" if any form of it has other content than expected, since a job might read that one.
      detail: what is wrong, or how it came; may be empty.
      failed: the address has it, but it could not be fetched.
    """

    file: DataFile
    path: str
    state: State
    detail: str = ""
    failed: bool = False


def check(folder: Path, catalogue: Catalogue) -> list[Finding]:
    """Look at every file of the catalogue; reads only regular files of the right size."""
    return [_look(folder, file) for file in catalogue]


def fetch(
    folder: Path,
    base: str,
    catalogue: Catalogue,
    *,
    force: bool = False,
    timeout_s: float = TIMEOUT_S,
    limit_s: float = LIMIT_S,
) -> list[Finding]:
    """Check every file; fetch those that are missing, and with `force` those that are damaged.

    A file is written beside its place, and gets its name when its size and SHA-256 are right. A file that cannot be
    fetched keeps its state, and its finding says why; the other files are fetched all the same.

    Args:
      folder: of the data; made where it is missing.
      base: http://, https:// or file:// address of a folder that has the files under the catalogue's paths.
      timeout_s: how long to wait for a server's next byte.
      limit_s: how long one file may take.
    Raises:
      ValueError: `base` is not such an address.
    """
    source = _Source(base, timeout_s, limit_s)
    return [_get_if_needed(folder, source, finding, force) for finding in check(folder, catalogue)]


def _look(folder: Path, file: DataFile) -> Finding:
    found = None
    for form in file.forms:
        fault = _fault(folder / form.path, form)
        if fault:
            return Finding(file, form.path, "damaged", fault)
        if fault is not None and found is None:
            found = form.path
    return Finding(file, found, "good") if found else Finding(file, file.forms[0].path, "missing")


def _fault(path: Path, form: Form) -> str | None:
    """What is wrong with a file: "" if nothing is, None if it is not there."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "is not a regular file"
        if form.size_bytes is not None and status.st_size != form.size_bytes:
            return f"size is {status.st_size}, expected {form.size_bytes} bytes"
        with open_file(path) as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return "is a link to nothing" if path.is_symlink() else None
    except OSError as error:
        return f"is unreadable ({error.strerror})"
    return (
        "" if digest.startswith(form.sha256) else f"SHA-256 is {digest[:12]}.., expected {form.sha256[:12]}.."
    )


def _get_if_needed(folder: Path, source: _Source, finding: Finding, force: bool) -> Finding:
    form = finding.file.forms[0]
    if finding.state == "good":
        return finding
    if finding.state == "damaged" and finding.path != form.path:
        return replace(finding, detail=f"{finding.detail}; remove it to fetch {form.path}")
    if finding.state == "damaged" and not force:
        return replace(finding, detail=f"{finding.detail}; pass --force to replace it")
    try:
        with source.open(form) as content, written_beside(folder / form.path, force=force) as beside:
            _copy(content, beside, form, source)
    except NotThereError:
        return replace(finding, detail=f"not at {source.base}")
    except CgnrtError as error:
        return replace(finding, detail=str(error), failed=True)
    return Finding(finding.file, form.path, "good", "fetched")


def _copy(content: IO[bytes], target: Path, form: Form, source: _Source) -> None:
    """Write what the server sends as long as it can still be the file; check its hash at the end."""
    size, received, digest = form.size_bytes or 0, 0, hashlib.sha256()
    deadline = time.monotonic() + source.limit_s
    with (
        target.open("wb") as file,
        progress_bar(size, unit="B", unit_scale=True, desc=form.path, leave=False) as bar,
    ):
        while chunk := source.read(content, form):
            received += len(chunk)
            if received > size:
                raise FetchError(
                    f"fetch '{source.address(form)}': more than {size} bytes came, expected no more. "
                    "It is another file."
                )
            if time.monotonic() > deadline:
                raise FetchError(
                    f"fetch '{source.address(form)}': {received} of {size} bytes came in {source.limit_s:g} s, "
                    "expected all. Try again, or from elsewhere."
                )
            file.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
    if received != size:
        raise FetchError(
            f"fetch '{source.address(form)}': size is {received}, expected {size} bytes. Try again."
        )
    if digest.hexdigest() != form.sha256:
        raise FetchError(
            f"fetch '{source.address(form)}': SHA-256 is {digest.hexdigest()[:12]}.., expected "
            f"{form.sha256[:12]}... It is another file; try elsewhere."
        )


class _Source:
    """The address that the user names. Redirects are followed: the hash tells whether the content is right."""

    def __init__(self, base: str, timeout_s: float, limit_s: float) -> None:
        self.timeout_s, self.limit_s = timeout_s, limit_s
        self.base = base if base.endswith("/") else f"{base}/"
        try:
            parts = urlsplit(base)
            has_place = parts.path.startswith("/") if parts.scheme == "file" else parts.hostname
            good = (
                parts.scheme in ("http", "https", "file") and has_place and (parts.port is None or parts.port)
            )
        except ValueError:  # a port that is not a number, a broken IPv6 address
            good = False
        if not good or parts.query or parts.fragment or "@" in parts.netloc or not base.isprintable():
            raise ValueError(
                f"fetch: --from is {base!r}, expected an http://, https:// or file:// address of a folder, with "
                "neither a user name nor a query."
            )
        if parts.scheme == "file" and parts.hostname not in (None, "localhost"):
            raise ValueError(f"fetch: --from is {base!r}, expected file:///folder, of this machine.")
        self._folder = Path(url2pathname(parts.path)) if parts.scheme == "file" else None
        # No handler of other schemes, which a redirect could name.
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
        ):
            self._opener.add_handler(handler)

    def address(self, form: Form) -> str:
        return self.base + quote(form.path)

    @contextmanager
    def open(self, form: Form) -> Iterator[IO[bytes]]:
        """The content from its start. A wrong size is an error before anything is read."""
        address = self.address(form)
        if self._folder is not None:
            path = self._folder / form.path
            if not path.is_file():
                raise NotThereError(f"fetch '{address}': file is missing, expected it there.")
            try:
                content: IO[bytes] = open_file(path)
            except OSError as error:
                raise self._failed(form, error) from error
            length: str | None = str(path.stat().st_size)
        else:
            try:
                content = self._opener.open(address, timeout=self.timeout_s)
            except urllib.error.HTTPError as error:
                with closing(error):
                    kind = NotThereError if error.code in (404, 410) else FetchError
                    raise kind(
                        f"fetch '{address}': answer is {error.code} {error.reason}, expected 200."
                    ) from error
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise self._failed(form, error) from error
            length = content.headers["Content-Length"]  # type: ignore[attr-defined]
        with closing(content):
            if length is not None and length != str(form.size_bytes):
                raise FetchError(
                    f"fetch '{address}': size is {length}, expected {form.size_bytes} bytes. It is another file."
                )
            yield content

    def read(self, content: IO[bytes], form: Form) -> bytes:
        """Some bytes, as soon as there are any; none at the end."""
        try:
            return content.read1(_CHUNK_BYTES)  # type: ignore[attr-defined,no-any-return]
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(form, error) from error

    def _failed(self, form: Form, error: Exception) -> FetchError:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError):
            reason = f"nothing came for {self.timeout_s:g} s"
        return FetchError(
            f"fetch '{self.address(form)}': transfer failed ({reason or type(error).__name__}), expected the file. "
            "Check the address, or try again."
        )
