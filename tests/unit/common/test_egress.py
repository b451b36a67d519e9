"""The files that say how the outside is reached."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_operator.common.egress import MAX_BYTES, NONE, Egress, EgressError, read_egress


def test_nothing_is_said_where_there_are_no_files(tmp_path):
    assert read_egress(tmp_path) == read_egress(tmp_path / "nowhere") == NONE
    assert NONE.proxy_for("https", "example.com", 443) == ""


def test_files_are_read_with_the_line_breaks_that_people_leave_in_them(tmp_path):
    (tmp_path / "HTTPS_PROXY").write_text("http://proxy.example.com:3128\n")
    (tmp_path / "NO_PROXY").write_text("localhost,.svc\n10.0.0.0/8")
    (tmp_path / "PROXIED_HOSTS").write_text("Models.example.com.\n*.hf.co")
    (tmp_path / "ca-bundle.crt").write_text("PEM")
    found = read_egress(tmp_path)
    assert found == Egress(
        https_proxy="http://proxy.example.com:3128",
        no_proxy=("localhost", ".svc", "10.0.0.0/8"),
        proxied_hosts=("models.example.com", "*.hf.co"),
        ca_bundle="PEM",
    )


@pytest.mark.parametrize(
    ("entry", "host", "port", "excluded"),
    [
        ("example.com", "example.com", 443, True),
        ("example.com", "a.example.com", 443, True),
        ("example.com", "badexample.com", 443, False),
        (".example.com", "a.example.com", 443, True),
        ("*.example.com", "a.example.com", 443, True),
        ("example.com:8443", "example.com", 443, False),
        ("example.com:8443", "example.com", 8443, True),
        ("*", "anything", 1, True),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8", "ten.example.com", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("fd00::/8", "fd00::7", 443, True),
        ("[fd00::7]:9000", "fd00::7", 9000, True),
        ("[fd00::7]:9000", "fd00::7", 443, False),
        ("fd00::7", "fd00::7", 443, True),
        ("EXAMPLE.com", "example.com", 443, True),
    ],
)
def test_no_proxy_is_read_as_other_programs_read_it(entry, host, port, excluded):
    found = Egress(https_proxy="http://p:1", no_proxy=(entry,))
    assert (found.proxy_for("https", host, port) == "") is excluded


@pytest.mark.parametrize(
    "entry", ["*", "*.com", "*.*", "10.0.0.1", "::1", "a/b", "http://a.example.com", "a b:80", "1"]
)
def test_hosts_that_could_lead_anywhere_cannot_be_named(tmp_path, entry):
    (tmp_path / "PROXIED_HOSTS").write_text(f"ok.example.com {entry}")
    with pytest.raises(EgressError, match="PROXIED_HOSTS"):
        read_egress(tmp_path)


def test_a_wildcard_covers_what_is_below_and_nothing_beside():
    found = Egress(proxied_hosts=("*.example.com",))
    assert found.may_proxy("a.example.com")
    assert found.may_proxy("a.b.example.com")
    assert not found.may_proxy("example.com")
    assert not found.may_proxy("badexample.com")
    assert not found.may_proxy("example.com.evil.org")


@pytest.mark.parametrize(
    "text", ["proxy:3128", "socks5://p:1", "http://", "http://p:99999", "http://p:0", "http://p/path", "http://p q"]
)
def test_what_is_no_proxys_address_is_named_and_not_shown(tmp_path, text):
    (tmp_path / "HTTP_PROXY").write_text(text)
    with pytest.raises(EgressError, match="HTTP_PROXY") as refused:
        read_egress(tmp_path)
    assert len(text) < 8 or text not in str(refused.value)


def test_a_file_beyond_all_measure_is_not_read(tmp_path):
    (tmp_path / "ca.crt").write_bytes(b"x" * (MAX_BYTES + 1))
    with pytest.raises(EgressError, match=r"ca\.crt"):
        read_egress(tmp_path)


@given(st.binary(max_size=200))
def test_whatever_a_file_holds_is_read_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("egress")
    for name in ("HTTP_PROXY", "NO_PROXY", "PROXIED_HOSTS", "ca.crt"):
        (folder / name).write_bytes(data)
        try:
            found = read_egress(folder)
        except EgressError:
            continue
        finally:
            (folder / name).unlink()
        found.proxy_for("https", "example.com", 443)
        found.may_proxy("example.com")
