"""Which addresses are read: URLs, and the network addresses that they lead to."""

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from yarl import URL

from onnx_operator.api.conditions import Reason
from onnx_operator.model.sources.base import SourceError

_NAT64 = IPv6Network("64:ff9b::/96")


class AddressGuard:
    """Refuses addresses that are not public, unless a setting allows their network.

    ``allowed_networks`` are CIDRs; raises ValueError for a malformed one.
    """

    def __init__(self, allowed_networks: Iterable[str]) -> None:
        self._allowed = [ip_network(network, strict=False) for network in allowed_networks]

    def allows(self, address: str) -> bool:
        """Tell whether a connection to this literal address may be opened."""
        try:
            ip = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        # An address in the disguise of another reaches the inner one: both must be fit to be reached.
        return all(self._allows_one(each) for each in (_embedded(ip) or (ip,)))

    def _allows_one(self, ip: IPv4Address | IPv6Address) -> bool:
        if any(ip in network for network in self._allowed):
            return True
        return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback)


def _embedded(ip: IPv4Address | IPv6Address) -> tuple[IPv4Address, ...]:
    """IPv4 addresses that a packet to this IPv6 address really goes to: mapped, NAT64, 6to4, Teredo."""
    if isinstance(ip, IPv4Address):
        return ()
    if ip.ipv4_mapped:
        return (ip.ipv4_mapped,)
    if ip in _NAT64:
        return (IPv4Address(int(ip) & 0xFFFFFFFF),)
    if ip.sixtofour:
        return (ip.sixtofour,)
    return ip.teredo or ()


def shown_url(url: URL) -> str:
    """Write a URL as messages may show it: no user, password, query or fragment."""
    port = "" if url.explicit_port is None else f":{url.explicit_port}"
    host = url.raw_host or ""
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}{port}{url.raw_path}"


def parse_url(text: str, *, plain_http: Collection[URL] = ()) -> URL:
    """Read a URL that is to be sent as it was given: a presigned link breaks by any normalisation.

    Raises :class:`SourceError` (``SourceRefused``) as :func:`check_url` does, and ValueError where it is malformed.
    """
    return check_url(URL(text, encoded=text.isascii()), plain_http=plain_http)


def check_url(url: URL, *, plain_http: Collection[URL] = ()) -> URL:
    """Return the URL without its fragment.

    ``plain_http`` are the origins that may be asked without TLS. Raises :class:`SourceError` (``SourceRefused``)
    for another scheme than https and for a password in the URL, and ValueError for a URL that leads nowhere.
    """
    if url.scheme != "https" and not (url.scheme == "http" and url.raw_host and url.origin() in plain_http):
        raise SourceError(Reason.SOURCE_REFUSED, f"{shown_url(url)} is not an https address; only https is read.")
    if not url.raw_host or any(c <= " " or c == "\x7f" for c in str(url)):
        raise ValueError("no host")
    if url.raw_user or url.raw_password:
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"{shown_url(url)} carries a user or password in the address, where everybody can read them; put them"
            " into the Secret named in spec.model.credentials.secretName.",
        )
    return url.with_fragment(None) if url.raw_fragment else url
