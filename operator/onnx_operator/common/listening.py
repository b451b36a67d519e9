"""Listening sockets, on nodes of either family of addresses."""

import socket
from ipaddress import IPv6Address, ip_address

ANY_V6, ANY_V4 = "::", "0.0.0.0"  # noqa: S104 - a pod's own network namespace


def listen(host: str, port: int, reuse: bool = False) -> socket.socket:
    """Open a listening socket. ``::`` serves both families, and IPv4 alone on a node without IPv6. Raises OSError."""
    if host == ANY_V6 and not socket.has_dualstack_ipv6():
        host = ANY_V4
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server(
        (host, port), family=family, backlog=2048, dualstack_ipv6=host == ANY_V6, reuse_port=reuse
    )


def shown_host(host: str) -> str:
    """How a URL names the host that somebody listens on: an IPv6 address in brackets, all addresses by loopback's."""
    if host in (ANY_V6, ANY_V4):
        return "127.0.0.1"
    try:
        return f"[{host}]" if isinstance(ip_address(host), IPv6Address) else host
    except ValueError:
        return host
