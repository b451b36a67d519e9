"""Who may create models, but not read Secrets, cannot have a Secret's keys sent to a server of their own."""

import asyncio
import json
import unicodedata
from urllib.parse import urlsplit

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import FetchPlan
from onnx_operator.api.onnxmodel import ModelSource
from onnx_operator.api.sources import ModelFiles, SourceFile, SourcePin
from onnx_operator.cli.credentials import credentials_of
from onnx_operator.controller.revision.credentials import check_destinations
from onnx_operator.model.refusal import RefusedError
from onnx_operator.model.sources import SourceError, open_source
from onnx_operator.model.sources.hosts import check_https_hosts, parse_hosts
from onnx_operator.server.fetching.fetch import Retries, fetch
from onnx_operator.server.fetching.plan import FetchError
from tests.security.fuzzing import mutated
from tests.unit.model.webkit import FileServer, Request, Server, read, settings

BODY = b"not a model, but bytes" * 10
TOKEN = {"HTTPS_BEARER_TOKEN": "T0PSECRET"}
PASSWORD = {"HTTPS_USERNAME": "reader", "HTTPS_PASSWORD": "hunter2"}
SAS = {"AZURE_STORAGE_ACCOUNT_NAME": "theirs", "AZURE_STORAGE_SAS_TOKEN": "?sv=1&sig=T0PSECRET"}
GOOD = "models.example.com"


def source(uri: str, test_data: str | None = None) -> ModelSource:
    return ModelSource.model_validate({"uri": uri, "credentials": {"secretName": "keys"}, "testData": test_data})


def refusal_of_the_controller(uri: str, credentials: dict[str, str], test_data: str | None = None) -> str:
    with pytest.raises(RefusedError) as caught:
        check_destinations(source(uri, test_data), credentials)
    assert caught.value.refusal.reason is Reason.CREDENTIALS_NOT_FOUND
    assert "T0PSECRET" not in caught.value.refusal.message
    assert "hunter2" not in caught.value.refusal.message
    return caught.value.refusal.message


STOLEN = [
    pytest.param("https://attacker.example/m.onnx", TOKEN, id="a Secret that names no hosts"),
    pytest.param("https://attacker.example/m.onnx", TOKEN | {"HTTPS_HOSTS": " , "}, id="a list without hosts"),
    pytest.param("https://attacker.example/m.onnx", TOKEN | {"HTTPS_HOSTS": GOOD}, id="another host"),
    pytest.param("https://attacker.example/m.onnx", PASSWORD | {"HTTPS_HOSTS": GOOD}, id="a password"),
    pytest.param(f"https://{GOOD}.attacker.example/m.onnx", TOKEN | {"HTTPS_HOSTS": GOOD}, id="a name that begins so"),
    pytest.param(f"https://attacker-{GOOD}/m.onnx", TOKEN | {"HTTPS_HOSTS": GOOD}, id="a name that ends so"),
    pytest.param(f"https://evil.{GOOD}/m.onnx", TOKEN | {"HTTPS_HOSTS": GOOD}, id="a name below"),
    pytest.param("https://example.com/m.onnx", TOKEN | {"HTTPS_HOSTS": GOOD}, id="a name above"),
    pytest.param(f"https://{GOOD}:8443/m.onnx", TOKEN | {"HTTPS_HOSTS": GOOD}, id="another port"),
    pytest.param(f"https://{GOOD}/m.onnx", TOKEN | {"HTTPS_HOSTS": f"{GOOD}:8443"}, id="the usual port instead"),
    pytest.param("https://mödels.example.com/m.onnx", TOKEN | {"HTTPS_HOSTS": GOOD}, id="a name that looks so"),
    pytest.param(
        "https://m\N{CYRILLIC SMALL LETTER O}dels.example.com/m.onnx", TOKEN | {"HTTPS_HOSTS": GOOD}, id="a homograph"
    ),
    pytest.param("https://evil.example.com/m.onnx", TOKEN | {"HTTPS_HOSTS": "*.example.com"}, id="a wildcard"),
    pytest.param("https://evil.example.com/m.onnx", TOKEN | {"HTTPS_HOSTS": ".example.com"}, id="a leading dot"),
    pytest.param("https://attacker.example/m.onnx", TOKEN | {"HTTPS_HOSTS": f"https://{GOOD}/"}, id="an address"),
    pytest.param("https://others.blob.core.windows.net/models/m.onnx", SAS, id="another account of Azure"),
    pytest.param(
        "https://theirs.blob.core.chinacloudapi.cn/models/m.onnx", SAS, id="the account's name in another cloud"
    ),
    pytest.param("abfss://models@theirs.dfs.core.usgovcloudapi.net/m.onnx", SAS, id="and by its other address"),
    pytest.param(
        "abfss://models@theirs.dfs.core.windows.net/m.onnx",
        SAS | {"AZURE_STORAGE_ACCOUNT_NAME": "theirs.blob.core.chinacloudapi.cn"},
        id="the account's name in the public cloud",
    ),
    pytest.param(
        "abfss://models@theirs.dfs.core.windows.net/m.onnx",
        {"AZURE_STORAGE_SAS_TOKEN": "sig=T0PSECRET"},
        id="a SAS token that names no account",
    ),
]


@pytest.mark.parametrize(("uri", "credentials"), STOLEN)
def test_the_operator_refuses_before_the_inspector_gets_the_keys(uri, credentials) -> None:
    message = refusal_of_the_controller(uri, credentials)
    assert ("HTTPS_HOSTS" if uri.startswith("https") and "blob" not in uri else "AZURE_STORAGE_ACCOUNT_NAME") in message


@pytest.mark.parametrize(("uri", "credentials"), STOLEN)
def test_inspector_and_pods_refuse_as_well_since_the_secret_may_have_changed(uri, credentials) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(uri, credentials=credentials, settings=settings(az={"account": "theirs"}))
    assert "T0PSECRET" not in caught.value.message


def test_the_message_tells_the_author_what_is_missing_and_nothing_of_the_secret() -> None:
    message = refusal_of_the_controller(
        "https://new.example:8443/m", TOKEN | {"HTTPS_HOSTS": "internal-name.corp, second.corp"}
    )
    assert "HTTPS_HOSTS: new.example:8443" in message
    assert "corp" not in message
    assert "corp" not in refusal_of_the_controller("https://new.example/m", TOKEN | {"HTTPS_HOSTS": "a.corp/*, b.corp"})


def test_the_place_of_the_test_data_counts_too() -> None:
    named = TOKEN | {"HTTPS_HOSTS": GOOD}
    message = refusal_of_the_controller(f"https://{GOOD}/m.onnx", named, "https://attacker.example/test")
    assert "attacker.example" in message
    check_destinations(source(f"https://{GOOD}/m.onnx", f"https://{GOOD}/test"), named)
    # A store that gets none of these keys is of no concern.
    check_destinations(source(f"https://{GOOD}/m.onnx", "s3://bucket/test"), named)


@pytest.mark.parametrize(
    ("uri", "hosts"),
    [
        (f"https://{GOOD}/m.onnx", GOOD),
        (f"https://{GOOD.upper()}/m.onnx", GOOD),
        (f"https://{GOOD}/m.onnx", f"other.example,\n\t{GOOD.upper()}."),
        (f"https://{GOOD}:443/m.onnx", GOOD),
        (f"https://{GOOD}:8443/m.onnx", f"{GOOD}:8443"),
        ("https://bücher.example/m.onnx", "xn--bcher-kva.example"),
        ("https://xn--bcher-kva.example/m.onnx", "bücher.example"),
        ("https://[2001:db8::1]/m.onnx", "[2001:DB8:0::1]"),
        ("https://192.0.2.7:8443/m.onnx", "192.0.2.7:8443"),
    ],
)
def test_a_host_that_the_owner_named_gets_the_keys_however_it_is_written(uri, hosts) -> None:
    check_https_hosts(uri, TOKEN | {"HTTPS_HOSTS": hosts})
    check_destinations(source(uri), TOKEN | {"HTTPS_HOSTS": hosts})


async def test_the_attackers_server_hears_nothing(authority, tmp_path) -> None:
    """Through the code of the pod: a plan whose Secret was made for another host."""
    async with Server(FileServer(BODY), authority.server) as server:
        pin = SourcePin(kind="Conditional", value='"v1"')
        files = ModelFiles(files=[SourceFile(name="m.onnx", pin=pin, size_bytes=len(BODY))], model="m.onnx")
        plan = FetchPlan(uri=f"{server.url}/m.onnx", model=files, directory=str(tmp_path), sources=settings(authority))
        for hosts in ({}, {"HTTPS_HOSTS": GOOD}, {"HTTPS_HOSTS": "127.0.0.1"}):
            with pytest.raises(FetchError) as caught:
                await fetch(plan, TOKEN | hosts, Retries(attempts=1), tmp_path)
            assert "HTTPS_HOSTS" in caught.value.message
        assert server.requests == []
        await fetch(plan, TOKEN | {"HTTPS_HOSTS": f"127.0.0.1:{server.port}"}, Retries(attempts=1), tmp_path)
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer T0PSECRET"}
    assert (tmp_path / "m.onnx").read_bytes() == BODY


async def test_not_even_a_host_that_is_named_too_gets_the_keys_by_a_redirect(authority) -> None:
    async with Server(FileServer(BODY), authority.server) as other:

        async def handler(request: Request) -> None:
            await request.answer(302, {"Location": f"{other.url}/elsewhere"})

        async with Server(handler, authority.server) as server:
            hosts = f"127.0.0.1:{server.port}, 127.0.0.1:{other.port}"
            async with open_source(
                f"{server.url}/m.onnx", credentials=TOKEN | {"HTTPS_HOSTS": hosts}, settings=settings(authority)
            ) as opened:
                assert (await read(opened, "m.onnx"))[0] == BODY
    assert "authorization" in server.requests[0].headers
    assert ["authorization" in request.headers for request in other.requests] == [False]


@pytest.mark.parametrize("entry", ["registry.example:8443", "https://registry.example/v1/", "other.example"])
async def test_a_registry_gets_only_what_stands_under_its_own_name(authority, entry) -> None:
    async def handler(request: Request) -> None:
        await request.answer(401, {"WWW-Authenticate": 'Basic realm="x"'})

    async with Server(handler, authority.server) as server:
        config = json.dumps({"auths": {entry: {"username": "u", "password": "T0PSECRET"}}})
        async with open_source(
            f"oci://127.0.0.1:{server.port}/team/m:v1",
            credentials={"DOCKERCONFIGJSON": config},
            settings=settings(authority, oci={"ca_bundle": authority.pem}),
        ) as opened:
            with pytest.raises(SourceError):
                await opened.locate()
    assert server.requests
    assert not any("authorization" in request.headers for request in server.requests)


def test_on_a_laptop_a_typed_address_is_meant_and_one_of_a_manifest_is_not() -> None:
    mine = "https://mine.example:8443/m.onnx"
    assert credentials_of(mine, TOKEN, typed=True)["HTTPS_HOSTS"] == "mine.example:8443"
    assert credentials_of(mine, TOKEN, typed=False) == {}
    limited = TOKEN | {"HTTPS_HOSTS": "mine.example:8443"}
    assert credentials_of(mine, limited, typed=False) == limited
    assert credentials_of("https://other.example/m", limited, typed=True).keys() == {"HTTPS_HOSTS"}
    assert credentials_of("s3://bucket/m", TOKEN | {"AWS_ACCESS_KEY_ID": "a"}, typed=False) == {
        "AWS_ACCESS_KEY_ID": "a"
    }
    with pytest.raises(SourceError, match="HTTPS_HOSTS"):
        credentials_of(mine, TOKEN | {"HTTPS_HOSTS": "*"}, typed=True)


SEEDS = [
    f"https://attacker.example/{GOOD}",
    f"https://{GOOD}@attacker.example/m",
    f"https://attacker.example\\@{GOOD}/m",
    f"https://{GOOD}:443@attacker.example/",
    f"https://attacker.example#@{GOOD}/",
    f"https://attacker.example?@{GOOD}/",
    f"https://{GOOD}.:443/m",
    f"https://{GOOD}%2eattacker.example/",
    f"https://{GOOD}\N{FULLWIDTH FULL STOP}attacker.example/",
    f"https:{GOOD}",
    f"https:///{GOOD}",
    "https://[::ffff:127.0.0.1]/m",
]


def plainly(host: str) -> str:
    """A host as people and DNS read it: another way to it than the code's (UTS 46, without its tables)."""
    shown = "".join(c for c in unicodedata.normalize("NFKC", host) if unicodedata.category(c) != "Cf")
    return shown.lower().replace("\N{IDEOGRAPHIC FULL STOP}", ".").rstrip(".")


@pytest.mark.fuzz
def test_no_way_to_write_an_address_reaches_another_host(fuzz) -> None:
    """Whatever passes leads to the named host by another reading of the address as well, and by the connection's."""
    named = TOKEN | {"HTTPS_HOSTS": GOOD}
    for rng in fuzz(3000):
        uri = mutated(rng, rng.choice([*SEEDS, f"https://{GOOD}/m"]).encode()).decode(errors="replace")
        if not uri.lower().startswith("https:"):
            continue
        try:
            check_https_hosts(uri, named)
            opened = open_source(uri, credentials=named, settings=settings())
        except SourceError:
            continue
        url = opened._url
        assert (url.host or "").lower().rstrip(".") == GOOD, uri
        assert url.port == 443, uri
        assert plainly(urlsplit(uri).hostname or "") == GOOD, uri
        asyncio.run(opened.aclose())


@pytest.mark.parametrize("entry", ["h:0", "[::1]:0", "h:65536", "h:-1"])
def test_a_port_where_nothing_can_listen_is_refused(entry) -> None:
    with pytest.raises(ValueError, match="entry 2 is not HOST or HOST:PORT"):
        parse_hosts(f"a.example, {entry}")


@pytest.mark.fuzz
def test_a_list_of_hosts_is_read_or_refused(fuzz) -> None:
    for rng in fuzz(3000):
        text = mutated(rng, b"a.example, b.example:8443 [2001:db8::1]:1\n192.0.2.1").decode(errors="replace")
        try:
            hosts = parse_hosts(text)
        except ValueError:
            continue
        assert all(host and 0 < port < 65536 and not set("*/?#@% ") & set(host) for host, port in hosts), text
