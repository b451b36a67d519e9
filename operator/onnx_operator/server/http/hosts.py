"""Whom a server on somebody's own machine answers: requests that name this machine, and no web page from elsewhere.

A browser runs pages of strangers beside the server's own. One whose name is made to resolve to this machine's address
(DNS rebinding) would be of the same origin as the server, could read everything and ask for anything; its requests give
it away by the name in their Host header. A page of another origin can send simple requests without reading the answer;
those carry its Origin. Addresses cannot be rebound. RFC 9110, section 7.2 and 15.5.20; https://fetch.spec.whatwg.org/.
"""

import ipaddress
from collections.abc import Callable, Iterable

from onnx_operator.server.errors import RequestError, quote
from onnx_operator.server.http.cors import CrossOrigin
from onnx_operator.server.http.heads import Headers

_MAX_KNOWN = 64
ANY = "*"
"""The host that stands for all."""

Check = Callable[[bytes, Headers], RequestError | None]
"""Takes the method and the headers of a request."""


def host_check(allowed: Iterable[str], *, addresses: bool, cross_origin: CrossOrigin | None = None) -> Check:
    """The refusal of a request that comes under another name than this machine's loopback ones or ``allowed``.

    Pages of the origins of ``cross_origin`` may ask. With ``addresses`` any address may be named: for servers that
    others on the network are to reach. A POST without Origin may also name a host of one label (a container's, a
    neighbour's): no browser sends one, and no stranger on the internet owns such a name (RFC 7085).
    """
    names = {name.lower().rstrip(".") for name in allowed}
    known: dict[tuple[bool, bytes, bytes | None], RequestError | None] = {}

    def check(method: bytes, headers: Headers) -> RequestError | None:
        key = method == b"POST", headers.get(b"host", b""), headers.get(b"origin")
        if key not in known:
            if len(known) >= _MAX_KNOWN:
                known.clear()
            known[key] = _verify(*key, names, addresses, cross_origin)
        return known[key]

    return check


def _verify(
    post: bool,
    host: bytes,
    origin: bytes | None,
    names: set[str],
    addresses: bool,
    cross_origin: CrossOrigin | None,
) -> RequestError | None:
    name = host_name(host)
    known = ANY in names or name in names or is_loopback(name)
    short = post and origin is None and name.isascii() and name.replace("-", "").isalnum() and not name.isdigit()
    if not (known or short or (addresses and _address(name))):
        return RequestError(
            f"this server answers to localhost, not to {quote(host.decode('latin-1'))}; "
            "if that is a name of yours for it, start it with --allowed-host NAME",
            421,
        )
    if origin is None or origin.lower() in (b"http://" + host.lower(), b"https://" + host.lower()):
        return None
    if cross_origin is not None and cross_origin.allows(origin):
        return None
    return RequestError(
        f"a page of {quote(origin.decode('latin-1'))} asks, and it is not this server's own; "
        "if it may, start the server with --cors-allow-origin ORIGIN",
        403,
    )


def host_name(host: bytes) -> str:
    """The name or address in a Host header, without its port and brackets, in small letters."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        return address if not port or port.startswith(":") else text
    return text.partition(":")[0].rstrip(".")


def is_loopback(name: str) -> bool:
    """Whether only this machine can be meant: localhost and names below it (RFC 6761), 127.0.0.0/8, ::1."""
    address = _address(name)
    if address is not None:
        return address.is_loopback
    return name == "localhost" or name.endswith(".localhost")


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
