"""Web browsers: the page of `cgnrt serve --ui`, and which requests they may send.

A browser sends requests for any page that it shows, also to this machine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from importlib.resources import files
from urllib.parse import urlsplit

from cgnrt.serve.protocol import ServeError

_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

# Nothing from other sites, nothing inline, no frames; blobs are the images that the page offers for download.
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


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def public_origin(url: str) -> str:
    """The origin that browsers send for the pages of a server behind a reverse proxy at this address.

    Raises:
      ValueError: it is not an address of http or https.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError(
            f"serve: public URL is {url[:100]!r}, expected one like https://images.example/cgn/."
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = port is None or port == {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" if usual else f"{parts.scheme}://{host}:{port}"


def check_host(host: str | None, public: Sequence[str] = ()) -> None:
    """Refuse a request under a foreign name: another site may have given it this machine's address (DNS rebinding).

    Args:
      host: the value of the header, which every browser sends.
      public: origins of a proxy, whose hosts are allowed too.
    Raises:
      ServeError: it is not this machine.
    """
    if host is None or any(origin.partition("://")[2] == host.lower() for origin in public):
        return
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        name = None
    if name is None or not is_loopback(name):
        raise ServeError(
            "invalid",
            f"check host: it is {host[:100]!r}, expected localhost or a loopback address. "
            "Use one of these, or give the server a token.",
        )


def check_origin(origin: str | None, host: str | None, public: Sequence[str] = ()) -> None:
    """Refuse requests that the page of another site makes a browser send; the arguments are the headers' values."""
    if origin is not None and origin.partition("://")[2] != host and origin.lower() not in public:
        raise ServeError(
            "invalid", f"check origin: it is {origin[:100]!r}, expected this server's own pages."
        )
