"""Listening on nodes of either family of addresses, and naming where in a URL."""

import socket

import pytest

from onnx_operator.common.listening import listen, shown_host


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_all_addresses_are_those_of_both_families(address):
    with listen("::", 0) as listener, socket.create_connection((address, listener.getsockname()[1]), 5):
        pass


def test_a_node_without_ipv6_is_served_by_ipv4(monkeypatch):
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listen("::", 0) as listener:
        assert listener.family == socket.AF_INET


def test_an_address_of_ipv6_alone_is_listened_on():
    with listen("::1", 0) as listener, socket.create_connection(("::1", listener.getsockname()[1]), 5):
        pass


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("::", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "[::1]"),
        ("fd00::7", "[fd00::7]"),
        ("10.0.0.7", "10.0.0.7"),
        ("localhost", "localhost"),
    ],
)
def test_a_url_names_an_address_of_ipv6_in_brackets(host, shown):
    assert shown_host(host) == shown
