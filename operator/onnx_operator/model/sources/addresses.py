"""Which network addresses a URL chosen by a user may lead to."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

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
