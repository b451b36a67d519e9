from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_operator.model.sources.web.addresses import AddressGuard

REFUSED = [
    "127.0.0.1",
    "127.255.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "198.18.0.1",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "ff0e::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2001:db8::1",
    "localhost",
    "127.1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_refuses_what_is_not_public(address: str) -> None:
    assert not AddressGuard([]).allows(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_allows_public_ones(address: str) -> None:
    assert AddressGuard([]).allows(address)


def test_allows_what_the_settings_allow_and_nothing_beside() -> None:
    guard = AddressGuard(["10.1.0.0/16", "fd00::/8"])
    assert guard.allows("10.1.2.3")
    assert guard.allows("::ffff:10.1.2.3")
    assert guard.allows("fd00::1")
    assert not guard.allows("10.2.0.1")
    assert not guard.allows("127.0.0.1")


@given(st.integers(0, 2**32 - 1))
def test_a_disguise_changes_no_verdict(number: int) -> None:
    guard = AddressGuard(["10.0.0.0/9"])
    plain = guard.allows(str(IPv4Address(number)))
    assert guard.allows(str(IPv6Address(0xFFFF00000000 | number))) == plain
    assert guard.allows(str(IPv6Address((0x64FF9B << 96) | number))) == plain


@given(st.text())
def test_anything_else_is_refused_without_an_error(text: str) -> None:
    AddressGuard([]).allows(text)
