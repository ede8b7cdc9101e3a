"""Connections of the gRPC library, which has no way to close one."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat


def close_connection(peer: str) -> bool:
    """Close the connection of this process to a peer, "ipv4:127.0.0.1:5000" or "ipv6:[::1]:5000".

    Returns:
      Whether there was one.
    """
    kind, _, address = peer.partition(":")
    host, _, port = address.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return False
    wanted = (_plain(host.replace("%5B", "[").replace("%5D", "]").strip("[]")), int(port))
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError, ValueError):
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as found:
                where = found.getpeername()
                if (
                    found.family in (socket.AF_INET, socket.AF_INET6)
                    and (_plain(where[0]), where[1]) == wanted
                ):
                    found.shutdown(socket.SHUT_RDWR)
                    return True
    return False


def _plain(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(host.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
