"""Proxies and private authorities: what the platform team has named is asked that way, and nothing else."""

import os

import pytest
from proxykit import proxied
from webkit import FileServer, Server, make_authority, read, settings

from onnx_operator.api.conditions import Reason
from onnx_operator.common import egress
from onnx_operator.model.sources.base import SourceError
from onnx_operator.model.sources.https import HttpsSource
from onnx_operator.model.sources.s3 import S3Source

BODY = os.urandom(200_001)
HOST = "models.example.com"


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    return make_authority(tmp_path_factory.mktemp("private"), HOST, "intranet")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Writes the files as they are mounted."""
    monkeypatch.setenv(egress.VARIABLE, str(tmp_path))

    def write(**contents):
        for name, text in contents.items():
            (tmp_path / name.replace("ca_crt", "ca.crt")).write_text(text)

    return write


async def content(uri, **changes):
    async with HttpsSource(uri, credentials={}, settings=settings(None, **changes)) as source:
        return (await read(source, "m.onnx"))[0]


async def refusal(uri, **changes):
    with pytest.raises(SourceError) as caught:
        await content(uri, **changes)
    return caught.value


async def test_a_host_that_is_named_is_read_through_the_proxy_with_the_authority_that_is_given(private, files):
    async with Server(FileServer(BODY), private.server) as server, proxied() as proxy:
        files(HTTPS_PROXY=proxy.url + "\n", PROXIED_HOSTS=HOST, ca_crt=private.pem)
        # No network of this machine is allowed: the proxy connects.
        assert await content(f"https://{HOST}:{server.port}/m.onnx", allowed_networks=[]) == BODY
        assert set(proxy.asked) == {f"{HOST}:{server.port}"}


async def test_a_change_counts_for_the_next_model_without_any_restart(private, files):
    async with Server(FileServer(BODY), private.server) as server, proxied() as old, proxied() as new:
        uri = f"https://{HOST}:{server.port}/m.onnx"
        files(HTTPS_PROXY=old.url, PROXIED_HOSTS="*.example.com", ca_crt=private.pem)
        assert await content(uri) == BODY
        files(HTTPS_PROXY=new.url)
        assert await content(uri) == BODY
        assert (bool(old.asked), bool(new.asked)) == (True, True)


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("localhost", "*.example.com"),
        ("127.0.0.1", HOST),
        ("[::1]", HOST),
        ("169.254.169.254", HOST),
        ("intranet", "*.example.com"),
        ("models.example.com.", "other.example.com"),
    ],
)
async def test_the_proxy_is_never_asked_for_a_host_that_nobody_named(private, files, host, named):
    """It connects in our place: neither would be refused that is refused without it."""
    async with Server(FileServer(BODY), private.server) as server, proxied() as proxy:
        files(HTTPS_PROXY=proxy.url, PROXIED_HOSTS=named, ca_crt=private.pem)
        error = await refusal(f"https://{host}:{server.port}/m.onnx", allowed_networks=[])
        assert proxy.asked == []
        assert error.reason in (Reason.SOURCE_REFUSED, Reason.SOURCE_UNREACHABLE)


async def test_a_redirect_from_a_named_host_does_not_make_the_proxy_connect_elsewhere(private, files):
    async with Server(FileServer(BODY), private.server) as inside, proxied() as proxy:

        async def lead_in(request):
            await request.answer(302, {"Location": f"https://127.0.0.1:{inside.port}/m.onnx"})

        async with Server(lead_in, private.server) as server:
            files(HTTPS_PROXY=proxy.url, PROXIED_HOSTS=HOST, ca_crt=private.pem)
            error = await refusal(f"https://{HOST}:{server.port}/m.onnx", allowed_networks=[])
            assert error.reason is Reason.SOURCE_REFUSED
            assert set(proxy.asked) == {f"{HOST}:{server.port}"}
            assert inside.requests == []


async def test_what_needs_no_proxy_is_connected_to_and_checked_as_ever(private, files):
    async with Server(FileServer(BODY), private.server) as server, proxied() as proxy:
        files(HTTPS_PROXY=proxy.url, PROXIED_HOSTS="localhost", NO_PROXY="localhost", ca_crt=private.pem)
        uri = f"https://localhost:{server.port}/m.onnx"
        assert await content(uri) == BODY
        assert (await refusal(uri, allowed_networks=[])).reason is Reason.SOURCE_REFUSED
        assert proxy.asked == []


async def test_a_password_of_the_proxy_is_sent_to_it_and_shown_nowhere(private, files):
    async with Server(FileServer(BODY), private.server) as server, proxied() as proxy:
        files(HTTPS_PROXY=f"http://me:hunter2@127.0.0.1:{proxy.port}", PROXIED_HOSTS=HOST, ca_crt=private.pem)
        uri = f"https://{HOST}:{server.port}/m.onnx"
        assert await content(uri) == BODY
        assert proxy.authorizations
        proxy.refusal = 407
        error = await refusal(uri)
        assert "407" in error.message
        assert "hunter2" not in error.message
        assert error.retriable
        files(HTTPS_PROXY="ftp://me:hunter2@proxy")
        error = await refusal(uri)
        assert "HTTPS_PROXY" in error.message
        assert "hunter2" not in error.message
        assert error.retriable


async def test_plain_http_goes_through_its_own_proxy(files, private):
    async with Server(FileServer(BODY), None) as server, proxied() as proxy:
        files(HTTP_PROXY=proxy.url, PROXIED_HOSTS=HOST)
        host = f"{HOST}:{server.port}"
        assert await content(f"http://{host}/m.onnx", https={"plain_http_hosts": [host]}) == BODY
        assert proxy.asked


async def test_the_platforms_own_stores_go_through_the_proxy_without_being_named(private, files):
    async def bucket(request):
        await request.answer(404)

    async with Server(bucket, private.server) as server, proxied() as proxy:
        files(HTTPS_PROXY=proxy.url, ca_crt=private.pem)
        store = settings(None, s3={"endpoint": f"https://{HOST}:{server.port}"})
        with pytest.raises(SourceError):
            async with S3Source("s3://models/m.onnx", credentials={}, settings=store) as source:
                await source.stat("m.onnx")
        assert server.requests, "the authority is trusted, and the name needs no address here"
        assert set(proxy.asked) == {f"{HOST}:{server.port}"}


@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:1"])
async def test_variables_of_the_environment_count_for_no_address_of_users(private, files, monkeypatch, proxy):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    async with Server(FileServer(BODY), private.server) as server:
        files(ca_crt=private.pem, **({"HTTPS_PROXY": proxy} if proxy else {}))
        assert await content(f"https://localhost:{server.port}/m.onnx") == BODY
