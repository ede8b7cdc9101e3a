"""The page of `cgnrt serve --ui`: static files of this package, and the headers that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

# Nothing from elsewhere, nothing inline, in nobody's frame; blobs are the pictures that it offers for download.
HEADERS: Mapping[str, str] = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def read_pages() -> dict[str, tuple[str, bytes]]:
    """Content type and bytes by path below /ui/."""
    found = {}
    for entry in files("cgnrt.serve").joinpath("ui").iterdir():
        kind = _KINDS.get(entry.name.rpartition(".")[2])
        if kind is not None:
            found[entry.name] = (kind, entry.read_bytes())
    return found
