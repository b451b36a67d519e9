"""A model's address never leads into the cluster, the node or the cloud: what is connected to is public, or allowed."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_operator.model.sources.web.addresses import AddressGuard
from onnx_operator.model.sources.web.networks import PUBLIC_V6, REFUSED_V4, REFUSED_V6
from tests.security.fuzzing import Fuzz

# IANA IPv4 Special-Purpose Address Registry, as of 2025-10-09: what is not "Globally Reachable: True".
# https://www.iana.org/assignments/iana-ipv4-special-registry
IANA_V4 = """
0.0.0.0/8            "This network"
0.0.0.0/32           "This host on this network"
10.0.0.0/8           Private-Use
100.64.0.0/10        Shared Address Space
127.0.0.0/8          Loopback
169.254.0.0/16       Link Local
172.16.0.0/12        Private-Use
192.0.0.0/24         IETF Protocol Assignments
192.0.0.0/29         IPv4 Service Continuity Prefix
192.0.0.8/32         IPv4 dummy address
192.0.0.170/32       NAT64/DNS64 Discovery
192.0.0.171/32       NAT64/DNS64 Discovery
192.0.2.0/24         Documentation (TEST-NET-1)
192.88.99.0/24       Deprecated (6to4 Relay Anycast)
192.88.99.2/32       6a44-relay anycast address
192.168.0.0/16       Private-Use
198.18.0.0/15        Benchmarking
198.51.100.0/24      Documentation (TEST-NET-2)
203.0.113.0/24       Documentation (TEST-NET-3)
240.0.0.0/4          Reserved
255.255.255.255/32   Limited Broadcast
"""
# IANA IPv6 Special-Purpose Address Registry, as of 2025-10-09: the same; N/A (Teredo, 6to4) is not reachable either.
# https://www.iana.org/assignments/iana-ipv6-special-registry
IANA_V6 = """
::1/128              Loopback Address
::/128               Unspecified Address
64:ff9b:1::/48       IPv4-IPv6 Translat.
100::/64             Discard-Only Address Block
100:0:0:1::/64       Dummy IPv6 Prefix
2001::/23            IETF Protocol Assignments
2001::/32            TEREDO
2001:2::/48          Benchmarking
2001:10::/28         Deprecated (previously ORCHID)
2001:db8::/32        Documentation
2002::/16            6to4
3fff::/20            Documentation
5f00::/16            Segment Routing (SRv6) SIDs
fc00::/7             Unique-Local
fe80::/10            Link-Local Unicast
"""
# What the registries leave out, of other standards: multicast, site local, 6bone, compatible and translated addresses.
OTHERS = ["224.0.0.0/4", "ff00::/8", "fec0::/10", "3ffe::/16", "::/96", "::ffff:0:0:0/96", "4000::/2", "8000::/1"]
# Where clouds answer their machines: AWS, Azure and Google, Alibaba, Oracle; AWS and Google by IPv6.
METADATA = ["169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"]


def words(text: str) -> list[str]:
    return text.split()


REFUSED = words("""
127.0.0.1 127.1.2.3 127.255.0.1 0.0.0.0 0.1.2.3 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 169.254.170.2
100.64.0.1 192.0.0.1 192.0.0.9 198.18.0.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 192.88.99.1
::1 :: fe80::1 fe80::1%eth0 fe80::1%1 fc00::1 fd00::1 fec0::1 ff02::1 ff0e::1 2606:4700::1111%eth0
::ffff:127.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 ::8.8.8.8 ::ffff:0:127.0.0.1 ::ffff:0:8.8.8.8
64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::7f00:1 64:ff9b:1:ffff::169.254.169.254 64:ff9b:1::808:808
2002:7f00:1:: 2002:a9fe:a9fe::1 2002:808:808:: 2001:0:7f00:1:: 2001::1 2001:0:808:808::f7f7:f7f7
2001:db8::1 2001:2::1 2001:20::1 2001:1::1 100::1 100:0:0:1::1 5f00::1 3fff::1 3ffe::1 4000::1
fe80::5efe:7f00:1 2a00:1450::5efe:7f00:1 2a00:1450::5efe:a9fe:a9fe 2a00:1450::200:5efe:7f00:1 2a00::300:5efe:a00:1
2001:67c:27e4::a9fe:a9fe 2a00:1450::7f00:1 2a00:1450::c0a8:101
""")
ALLOWED = words("""
8.8.8.8 1.1.1.1 168.63.129.15 168.63.129.17 192.88.98.1 192.0.1.1 100.63.255.255 100.128.0.1 172.32.0.1 223.255.255.255
2606:4700::1111 2a00:1450:4001:80b::200e 2a00::1 2a00::443 2001:4860:4860::8888 3ffd::1 3fff:1000::1
::ffff:8.8.8.8 64:ff9b::808:808 2a00::5efe:808:808
""")


def rows(text: str) -> list[str]:
    return [line.split()[0] for line in text.strip().splitlines()]


def edges(network: str) -> list[IPv4Address | IPv6Address]:
    found = IPv6Network(network) if ":" in network else IPv4Network(network)
    return [found[0], found[found.num_addresses // 3], found[-1]]


@pytest.mark.parametrize("address", [*REFUSED, *METADATA])
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not AddressGuard([]).allows(address)


@pytest.mark.parametrize("address", ALLOWED)
def test_a_public_address_is_allowed(address: str) -> None:
    assert AddressGuard([]).allows(address)


@pytest.mark.parametrize("network", [*rows(IANA_V4), *rows(IANA_V6), *OTHERS])
def test_what_the_registries_do_not_call_globally_reachable_is_refused(network: str) -> None:
    for address in edges(network):
        assert not AddressGuard([]).allows(str(address)), address


def test_every_refused_network_is_one_of_the_registries_or_of_the_others_named_here() -> None:
    v4 = [IPv4Network(row) for row in [*rows(IANA_V4), *OTHERS, *METADATA] if ":" not in row]
    for network, _ in REFUSED_V4:
        assert any(IPv4Network(network).subnet_of(known) for known in v4), network
    v6 = [IPv6Network(row) for row in [*rows(IANA_V6), *OTHERS] if ":" in row]
    for network, _ in REFUSED_V6:
        assert IPv6Network(network).subnet_of(PUBLIC_V6)
        assert any(IPv6Network(network).subnet_of(known) for known in v6), network


def inner(ip: IPv6Address) -> bool:
    """Whether the address is one under which the connection goes to an IPv4 address, which alone counts."""
    return ip.ipv4_mapped is not None or ip in IPv6Network("64:ff9b::/96")


@given(st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address))
def test_what_this_python_calls_private_is_refused(ip: IPv4Address | IPv6Address) -> None:
    if not ip.is_global and not (isinstance(ip, IPv6Address) and inner(ip)):
        assert not AddressGuard([]).allows(str(ip))


# `_private_networks` of CPython 3.14's ipaddress.py, which earlier versions hold in part.
CPYTHON = words("""
0.0.0.0/8 10.0.0.0/8 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/29 192.0.0.170/31 192.0.2.0/24 192.168.0.0/16
198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 255.255.255.255/32
::1/128 ::/128 64:ff9b:1::/48 100::/64 2001::/23 2001:db8::/32 2002::/16 3fff::/20 fc00::/7 fe80::/10
""")


@pytest.mark.parametrize("network", CPYTHON)
def test_what_other_versions_of_python_call_private_is_refused(network: str) -> None:
    for address in edges(network):
        assert not AddressGuard([]).allows(str(address)), address


def disguises(number: int) -> list[IPv6Address]:
    """All ways to write an IPv4 address as an IPv6 one that may lead there."""
    prefix = 0x2A00_1450 << 96
    return [
        IPv6Address(number),
        IPv6Address(0xFFFF << 32 | number),
        IPv6Address(0xFFFF << 48 | number),
        IPv6Address(0x64FF9B << 96 | number),
        IPv6Address(0x0064FF9B0001 << 80 | number),
        IPv6Address(0x2002 << 112 | number << 80 | 1),
        IPv6Address(0x2001_0000 << 96 | number << 64 | 0x1234),
        IPv6Address(0x2001_0000 << 96 | 0x08080808 << 64 | (number ^ 0xFFFFFFFF)),
        IPv6Address(prefix | 0x5EFE << 32 | number),
        IPv6Address(prefix | 0x0200_5EFE << 32 | number),
        IPv6Address(0xFE80 << 112 | 0x5EFE << 32 | number),
    ]


@given(st.sampled_from(rows(IANA_V4) + METADATA[:4]), st.integers(0, 2**32 - 1))
def test_no_disguise_of_a_refused_address_is_allowed(network: str, offset: int) -> None:
    found = IPv4Network(network)
    for disguise in disguises(int(found[offset % found.num_addresses])):
        assert not AddressGuard([]).allows(str(disguise)), disguise


def test_allows_what_the_settings_allow_and_nothing_beside() -> None:
    guard = AddressGuard(["10.1.0.0/16", "fd00::/8", "::1/128"])
    assert guard.allows("10.1.2.3")
    assert guard.allows("::ffff:10.1.2.3")
    assert guard.allows("fd00::1")
    assert guard.allows("::1")
    for address in ("10.2.0.1", "127.0.0.1", "2002:a01:203::", "::10.1.2.3", "fd00::5efe:7f00:1", "::2", "fe80::1%lo"):
        assert not guard.allows(address), address
    # A prefix of the platform team's own for NAT64, and a machine on its link.
    assert AddressGuard(["2a00:64::/96"]).allows("2a00:64::a00:1")
    assert AddressGuard(["fe80::/10"]).allows("fe80::1%eth0")


@given(st.integers(0, 2**32 - 1))
def test_a_disguise_of_the_same_host_changes_no_verdict(number: int) -> None:
    guard = AddressGuard(["10.0.0.0/9"])
    plain = guard.allows(str(IPv4Address(number)))
    assert guard.allows(str(IPv6Address(0xFFFF00000000 | number))) == plain
    assert guard.allows(str(IPv6Address((0x64FF9B << 96) | number))) == plain


@given(st.text() | st.sampled_from(["localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1%lo"]))
def test_anything_that_is_no_literal_address_is_refused_without_an_error(text: str) -> None:
    try:
        ip_address(text)
    except ValueError:
        assert not AddressGuard(["0.0.0.0/0", "::/0"]).allows(text)


@pytest.mark.fuzz
def test_fuzzed_addresses_are_refused_where_they_or_what_they_carry_are_not_public(fuzz: Fuzz) -> None:
    guard = AddressGuard([])
    refused = [*rows(IANA_V4), *rows(IANA_V6), *OTHERS, *METADATA]
    for rng in fuzz(2000):
        network = rng.choice(refused)
        found = IPv6Network(network) if ":" in network else IPv4Network(network)
        ip = found[rng.randrange(found.num_addresses)]
        texts = [str(ip), ip.exploded] + ([] if ip.version == 6 else [str(each) for each in disguises(int(ip))])
        for text in texts:
            assert not guard.allows(text), text
            assert not guard.allows(f"{text}%{rng.choice(['1', 'lo', 'eth0', ''])}"), text
