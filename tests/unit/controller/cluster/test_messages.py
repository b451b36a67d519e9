"""What others say is told without what differs from try to try."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_operator.controller.cluster.answers import api_error
from onnx_operator.controller.cluster.messages import steady

CALL = 'failed calling webhook "a.example.com": failed to call webhook: Post "https://a.b.svc:443/check?timeout=10s": '


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("dial tcp 10.96.3.7:443: connect: connection refused", "dial tcp ADDRESS: connect: connection refused"),
        ("read tcp 10.0.0.1:53412->10.96.3.7:443: read: reset", "read tcp ADDRESS: read: reset"),
        ("dial tcp [fd00::7]:443: connect: refused", "dial tcp ADDRESS: connect: refused"),
        ("read tcp [fd00::1]:53412->[fd00::7]:443: read: reset", "read tcp ADDRESS: read: reset"),
        (
            "dial tcp: lookup a.b.svc on 10.96.0.10:53: no such host",
            "dial tcp: lookup a.b.svc on ADDRESS: no such host",
        ),
        ("dial udp 10.96.0.10: i/o timeout", "dial udp ADDRESS: i/o timeout"),
    ],
)
def test_where_a_connection_led_is_left_out_and_whose_it_was_is_told(said, told):
    assert steady(CALL + said) == CALL + told


@pytest.mark.parametrize(
    "said",
    [
        'spec.hostAliases[0].ip: Invalid value: "10.0.0.7": must be something else',
        "image registry.example.com:5000/a:1.2.3.4 cannot be pulled",
        "version 1.2.3.4 is not served",
        "spec.ports[0]: Invalid value: 70000",
        "999.1.1.1:80 is no address",
        "https://10.0.0.7:9000/models is refused",
    ],
)
def test_what_somebody_wrote_into_an_object_is_told_as_it_is(said):
    assert steady(said) == said


@given(st.text(max_size=200))
def test_a_message_that_was_made_steady_stays_as_it_is(said):
    assert steady(steady(said)) == steady(said)


@given(st.ip_addresses(), st.ip_addresses(), st.integers(1, 65535), st.integers(1, 65535))
def test_the_same_trouble_by_another_address_and_port_is_told_in_the_same_words(one, other, port, another):
    def said(address, number):
        host = f"[{address}]" if address.version == 6 else address
        return f"{CALL}read tcp {host}:{number}->{host}:443: read: connection reset by peer"

    assert steady(said(one, port)) == steady(said(other, another))


def test_refusals_of_the_api_server_are_steady():
    body = '{"kind": "Status", "message": "dial tcp 10.96.3.7:443: refused", "reason": "InternalError"}'
    assert api_error(500, "", body).message == "dial tcp ADDRESS: refused"
