"""Which web pages may ask: browsers let any page send requests, also to this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from cgnrt.serve.protocol import ServeError


def is_loopback(host: str) -> bool:
    """Whether this machine alone reaches a server there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_host(host: str | None) -> None:
    """Refuse a name that somebody else gave to this machine's address, for pages of theirs to pass for the server's.

    Args:
      host: the value of that header, which every browser sends.
    """
    if host is None:
        return
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        name = None
    if name is None or not is_loopback(name):
        raise ServeError(
            "invalid",
            f"check host: it is {host[:100]!r}, expected localhost or a loopback address. "
            "Ask for one of these, or give the server a token.",
        )


def check_origin(origin: str | None, host: str | None) -> None:
    """Refuse what a page of another site makes its reader's browser ask; arguments are those headers' values."""
    if origin is not None and origin.partition("://")[2] != host:
        raise ServeError(
            "invalid", f"check origin: it is {origin[:100]!r}, expected this server's own pages."
        )
