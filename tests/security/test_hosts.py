"""A model served on somebody's own machine is not for the web pages that they happen to look at."""

from collections.abc import Iterator

import pytest

from onnx_operator.server.http.hosts import host_check, host_name, is_loopback
from tests.unit.server.serving import Process, linear, serving

BODY = b'{"data":[[1,0,0,0]]}'


@pytest.fixture(scope="module")
def local() -> Iterator[Process]:
    with serving(linear(), "--page", "--allowed-host", "workstation.example") as process:
        yield process


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:8080", "m.localhost:1", "127.0.0.1:8080", "127.8.9.1", "[::1]:8080", "[::1]"),
        *("localhost.", "workstation.example:8080", "WORKSTATION.example"),
    ],
)
def test_this_machines_own_names_are_answered(local: Process, host: str) -> None:
    for path in ("/", "/v2", "/v2/health/live"):
        assert local.request("GET", path, Host=host).status == 200
    assert local.post("/score", BODY, Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1", "[::2]"),
        *("0.0.0.0", "[::1].evil.example", "2130706433", "localhost@evil.example"),
        "[::ffff:10.0.0.1]",
    ],
)
def test_a_name_that_was_made_to_resolve_here_is_told_what_to_do(local: Process, host: str) -> None:
    for path in ("/", "/v2", "/metrics", "/page/facts.json", "/nowhere"):
        refused = local.request("GET", path, Host=host)
        assert refused.status == 421
        assert "--allowed-host" in refused.json["error"]
    assert local.post("/score", BODY, Host=host).status == 421


def test_a_page_of_another_origin_scores_nothing(local: Process) -> None:
    host = "127.0.0.1:8080"
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9090", "https://127.0.0.1:8080.evil.example"):
        refused = local.post("/score", BODY, Host=host, Origin=origin, Content_Type="text/plain")
        assert refused.status == 403
        assert "not this server's own" in refused.json["error"]
    assert local.post("/score", BODY, Host=host, Origin=f"http://{host}").status == 200


def test_in_a_pod_any_name_is_answered() -> None:
    with serving(linear(), "--page") as process:
        assert process.request("GET", "/v2", Host="m.models.svc").status == 200


def test_programs_may_use_a_short_name_and_browsers_may_not(local: Process) -> None:
    assert local.post("/score", BODY, Host="neighbour:8080").status == 200
    # A browser's POST tells its origin, and what it reads it asks for by GET.
    assert local.post("/score", BODY, Host="neighbour", Origin="http://neighbour").status == 421
    assert local.post("/score", BODY, Host="my-neighbour").status == 200
    for host in ("neighbour", "evillocalhost"):
        assert local.request("GET", "/page/facts.json", Host=host).status == 421
    for host in ("evil.example", "10.0.0.1", "2130706433", "", "a@b", "a/b"):
        assert local.post("/score", BODY, Host=host).status == 421


def test_servers_for_others_may_be_named_by_their_address() -> None:
    check = host_check((), addresses=True)
    assert check(b"GET", {b"host": b"192.168.1.5:8080"}) is None
    assert check(b"GET", {b"host": b"[fe80::1]:8080"}) is None
    assert check(b"GET", {b"host": b"evil.example"}) is not None
    assert check(b"GET", {}) is not None
    assert host_check(("*",), addresses=False)(b"GET", {b"host": b"any.example"}) is None


def test_names_are_read_as_browsers_write_them() -> None:
    assert host_name(b"[::1]:80") == "::1"
    assert host_name(b"A.Example.:80") == "a.example"
    assert is_loopback("127.1.2.3")
    assert not is_loopback("128.0.0.1")
