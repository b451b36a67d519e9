"""Networks that are not the public Internet, as data.

Those of the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890, RFC 8190;
https://www.iana.org/assignments/iana-ipv4-special-registry and …/iana-ipv6-special-registry, as of 2025-10) which
they do not call globally reachable, and what the registries leave out: multicast, networks of older standards, and
addresses at which clouds answer their own machines. Python's ``is_global`` is not asked: it differs from version to
version, and knows none of the latter.
"""

from ipaddress import IPv4Network, IPv6Network

REFUSED_V4: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "this network (RFC 791)"),
    ("10.0.0.0/8", "private use (RFC 1918)"),
    # Alibaba Cloud's metadata service, 100.100.100.200, is in it.
    ("100.64.0.0/10", "shared address space (RFC 6598)"),
    ("127.0.0.0/8", "loopback (RFC 1122)"),
    ("168.63.129.16/32", "Azure's platform, a public address which each machine there reaches"),
    # The metadata services of most clouds, 169.254.169.254, are in it.
    ("169.254.0.0/16", "link local (RFC 3927)"),
    ("172.16.0.0/12", "private use (RFC 1918)"),
    # The few in it that are globally reachable are anycast addresses of protocols. Oracle's metadata service of old,
    # 192.0.0.192, is in it.
    ("192.0.0.0/24", "protocol assignments (RFC 6890)"),
    ("192.0.2.0/24", "documentation (RFC 5737)"),
    ("192.88.99.0/24", "6to4 relays, deprecated (RFC 7526)"),
    ("192.168.0.0/16", "private use (RFC 1918)"),
    ("198.18.0.0/15", "benchmarking (RFC 2544)"),
    ("198.51.100.0/24", "documentation (RFC 5737)"),
    ("203.0.113.0/24", "documentation (RFC 5737)"),
    ("224.0.0.0/4", "multicast (RFC 5771)"),
    ("240.0.0.0/4", "reserved, and the broadcast address (RFC 1112, RFC 919)"),
)

PUBLIC_V6 = IPv6Network("2000::/3")
"""All that was ever given to networks of the public Internet (RFC 4291); whatever lies outside is refused.

So are loopback, unique local (fc00::/7, with the metadata services fd00:ec2::254 and fd20:ce::254), link local
(fe80::/10), site local of old (fec0::/10), multicast (ff00::/8), segment routing (5f00::/16), discard only (100::/64),
dummy (100:0:0:1::/64), translation (64:ff9b:1::/48), and what nobody has been given yet.
"""

REFUSED_V6: tuple[tuple[str, str], ...] = (
    # Teredo is in it. The few in it that are globally reachable are no hosts: anycast of protocols, identifiers.
    ("2001::/23", "protocol assignments (RFC 2928)"),
    ("2001:db8::/32", "documentation (RFC 3849)"),
    ("2002::/16", "6to4, deprecated (RFC 7526)"),
    ("3ffe::/16", "6bone, given back (RFC 3701)"),
    ("3fff::/20", "documentation (RFC 9637)"),
)

INSIDE_V4: tuple[str, ...] = (
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
)
"""What no address of a public IPv6 network may end in: a translator (NAT64) with a prefix of its own leads there.

Not all that is refused: hosts whose addresses end in small numbers (…::1, …::443) are public.
"""

refused_v4 = tuple(IPv4Network(network) for network, _ in REFUSED_V4)
refused_v6 = tuple(IPv6Network(network) for network, _ in REFUSED_V6)
inside_v4 = tuple(IPv4Network(network) for network in INSIDE_V4)
