"""Which addresses are read: URLs, and the network addresses that they lead to."""

import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from yarl import URL

from onnx_operator.api.conditions import Reason
from onnx_operator.model.sources.base import SourceError
from onnx_operator.model.sources.web.networks import PUBLIC_V6, inside_v4, refused_v4, refused_v6

_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_LOW_HALF = (IPv6Network("::/96"), IPv6Network("::ffff:0:0:0/96"))
"""IPv4-compatible (RFC 4291) and IPv4-translated (RFC 2765)."""
_ISATAP = 0x5EFE
_GROUP_AND_UNIVERSAL = 0x03000000


class AddressGuard:
    """Refuses addresses that are not public, unless a setting allows their network.

    An address in the disguise of another reaches the inner one: both must be fit to be reached. ``allowed_networks``
    are CIDRs; raises ValueError for a malformed one.
    """

    def __init__(self, allowed_networks: Iterable[str]) -> None:
        self._allowed = [ip_network(network, strict=False) for network in allowed_networks]

    def allows(self, address: str) -> bool:
        """Tell whether a connection to this literal address may be opened."""
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        if isinstance(ip, IPv4Address):
            return self._allows_v4(ip)
        outer = ip in _MAPPED or ip in _NAT64 or self._is_allowed(ip) or _is_public_v6(ip)
        return outer and all(self._allows_v4(inner) for inner in _embedded(ip))

    def _allows_v4(self, ip: IPv4Address) -> bool:
        return self._is_allowed(ip) or not any(ip in network for network in refused_v4)

    def _is_allowed(self, ip: IPv4Address | IPv6Address) -> bool:
        return any(ip in network for network in self._allowed)


def _is_public_v6(ip: IPv6Address) -> bool:
    # A public address needs no interface's name behind a %.
    if ip.scope_id or ip not in PUBLIC_V6 or any(ip in network for network in refused_v6):
        return False
    low = int(ip) & 0xFFFFFFFF_FFFFFFFF
    return low >> 32 != 0 or not any(IPv4Address(low) in network for network in inside_v4)


def _embedded(ip: IPv6Address) -> tuple[IPv4Address, ...]:
    """IPv4 addresses that a packet to this one may go to: mapped, NAT64, compatible, 6to4, Teredo, ISATAP."""
    number = int(ip)
    last = IPv4Address(number & 0xFFFFFFFF)
    found: tuple[IPv4Address, ...] = ()
    # ::1 is no 0.0.0.1.
    if ip in _MAPPED or ip in _NAT64 or (number > 1 and any(ip in network for network in _LOW_HALF)):
        found += (last,)
    if ip.sixtofour:
        found += (ip.sixtofour,)
    if ip.teredo:
        found += ip.teredo
    if number >> 32 & 0xFFFFFFFF & ~_GROUP_AND_UNIVERSAL == _ISATAP:
        found += (last,)
    return found


def shown_url(url: URL) -> str:
    """Write a URL as messages may show it: no user, password, query or fragment."""
    port = "" if url.explicit_port is None else f":{url.explicit_port}"
    host = url.raw_host or ""
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}{port}{url.raw_path}"


def read_url(text: str, *, encoded: bool = False) -> URL:
    """Read a URL that somebody outside wrote, ``encoded`` as it stands. Raises ValueError where it is malformed."""
    try:
        return URL(text, encoded=encoded)
    except IndexError:  # yarl 1.25 reads past the end of an authority like ``[]@``
        raise ValueError("not a URL") from None


Destination = tuple[str, int]
"""A host, in lower case and as DNS has it (IDNA), and a port."""


def destination(url: URL) -> Destination:
    """Where a request to this address goes. Raises ValueError for one that names no host."""
    host = (url.raw_host or "").lower().removesuffix(".")
    if not is_host(host):
        raise ValueError("no host")
    with suppress(ValueError):
        host = str(ip_address(host))
    return host, 443 if url.port is None else url.port


def parse_url(text: str, *, plain_http: Collection[Destination] = ()) -> URL:
    """Read a URL that is to be sent as it was given: a presigned link breaks by any normalisation.

    Raises :class:`SourceError` (``SourceRefused``) as :func:`check_url` does, and ValueError where it is malformed.
    """
    return check_url(read_url(text, encoded=text.isascii()), plain_http=plain_http)


_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")


def is_host(host: str) -> bool:
    """Tell an address or a name as DNS takes it (RFC 1035, 2.3.4), in ASCII: the resolver raises for others."""
    if ":" in host:
        return True
    return len(host) <= 254 and all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split("."))


def check_url(url: URL, *, plain_http: Collection[Destination] = ()) -> URL:
    """Return the URL without its fragment.

    ``plain_http`` is whatever may be asked without TLS. Raises :class:`SourceError` (``SourceRefused``)
    for another scheme than https and for a password in the URL, and ValueError for a URL that leads nowhere.
    """
    if url.scheme != "https" and not (url.scheme == "http" and url.raw_host and destination(url) in plain_http):
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"{shown_url(url)} is not an https address; plain http is read only from hosts that the settings name.",
        )
    if not is_host(url.raw_host or "") or any(c <= " " or c == "\x7f" for c in str(url)):
        raise ValueError("no host")
    if url.raw_user or url.raw_password:
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"{shown_url(url)} carries a user or password in the address, where everybody can read them; put them"
            " into the Secret named in spec.model.credentials.secretName.",
        )
    return url.with_fragment(None) if url.raw_fragment else url
