"""Models are read without TLS only from hosts that the platform team names, and nobody's keys go there."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from onnx_operator.api.contract import DataPlan, FetchPlan
from onnx_operator.api.report import InspectionRequest
from onnx_operator.api.sources import ModelFiles, SourceFile, SourcePin, SourceSettings
from onnx_operator.controller.revision.fetching import fetch_env
from onnx_operator.controller.revision.permissions import forbidden
from onnx_operator.controller.settings.settings import SettingsError
from onnx_operator.model.inspection.inspection import inspect
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.sources import SourceError, open_source
from onnx_operator.model.sources.https import HttpsSource
from onnx_operator.server.fetching.fetch import Retries, fetch
from onnx_operator.server.fetching.plan import FetchError
from tests import models
from tests.unit.controller import samples
from tests.unit.model.modelkit import CAPABILITIES
from tests.unit.model.webkit import Authority, FileServer, Request, Server, read, settings

MODEL = models.linear()
PIN = SourcePin(kind="Conditional", value='"v1"')
TOKEN = {"HTTPS_BEARER_TOKEN": "T0PSECRET"}


def serving(files: dict[str, bytes]):
    """Answer with these files, by the path that is asked for."""

    async def handler(request: Request) -> None:
        found = files.get(request.path)
        await (request.answer(404) if found is None else FileServer(found)(request))

    return handler


def allowing(*hosts: str, **changes) -> SourceSettings:
    return settings(https={"plain_http_hosts": list(hosts)}, **changes)


def host_of(server: Server) -> str:
    return server.url.partition("://")[2]


async def refusal_of(uri: str, given: SourceSettings) -> str:
    with pytest.raises(SourceError) as caught:
        async with open_source(uri, credentials={}, settings=given) as source:
            await source.stat((await source.locate())[0])
    assert caught.value.reason == "SourceRefused"
    return caught.value.message


async def test_a_host_that_is_named_is_read_with_all_that_lies_beside_the_model() -> None:
    async with Server(serving({"/m.onnx": MODEL, "/w.bin": b"weights"}), None) as server:
        uri = f"{server.url}/m.onnx"
        async with open_source(uri, credentials={}, settings=allowing(host_of(server))) as source:
            assert (await source.stat("m.onnx")).pin == PIN
            assert (await read(source, "m.onnx", pin=PIN))[0] == MODEL
            assert (await read(source, "w.bin"))[0] == b"weights"


async def test_any_other_host_is_not_even_connected_to_and_the_message_names_it_and_the_setting() -> None:
    async with Server(serving({"/m.onnx": MODEL}), None) as server:
        for given in (allowing(), allowing("127.0.0.1"), allowing("models.internal"), allowing("localhost:80")):
            message = await refusal_of(f"{server.url}/m.onnx?sig=SIGNATURE", given)
            assert f"Plain http is not allowed for the host {host_of(server)}" in message
            assert "sources.https.plainHttpHosts" in message
            assert "SIGNATURE" not in message
        assert server.connections == 0


@pytest.mark.parametrize(
    ("uri", "entry"),
    [
        ("http://models.internal/m.onnx", "models.internal"),
        ("http://MODELS.internal:80/m.onnx", "Models.Internal."),
        ("http://models.internal:9000/m.onnx", "models.internal:9000"),
        ("http://[::1]:9000/m.onnx", "[0:0::1]:9000"),
        ("http://bücher.example/m.onnx", "xn--bcher-kva.example"),
        ("HTTP://10.0.0.7/m.onnx", "10.0.0.7"),
    ],
)
async def test_a_host_is_the_same_however_it_is_written(uri, entry) -> None:
    await open_source(uri, credentials={}, settings=allowing(entry)).aclose()
    await refusal_of(uri, allowing("other.internal"))


async def test_port_0_is_no_other_port() -> None:
    assert "for the host models.internal:0:" in await refusal_of(
        "http://models.internal:0/m", allowing("models.internal:443")
    )


async def test_a_private_address_needs_its_network_allowed_as_with_https() -> None:
    async with Server(serving({"/m.onnx": MODEL}), None) as server:
        message = await refusal_of(f"{server.url}/m.onnx", allowing(host_of(server), allowed_networks=[]))
        assert "sources.allowedNetworks" in message
        assert server.connections == 0


async def test_no_key_is_sent_without_tls(authority: Authority) -> None:
    async def asks(request: Request) -> None:
        await request.answer(401)

    async with Server(asks, None) as server:
        given = allowing(host_of(server))
        keys = TOKEN | {"HTTPS_HOSTS": f"{host_of(server)} 127.0.0.1"}
        for source in (
            open_source(f"{server.url}/m.onnx", credentials=keys, settings=given),
            HttpsSource(f"{server.url}/m.onnx", credentials=keys, settings=given),
        ):
            async with source:
                with pytest.raises(SourceError) as caught:
                    await source.stat("m.onnx")
            assert "none are sent over plain http" in caught.value.message
        assert len(server.requests) == 2
        assert not any("authorization" in request.headers for request in server.requests)


async def test_https_never_leads_to_plain_http_and_plain_http_to_no_host_that_is_not_named(authority) -> None:
    places: dict[str, str] = {}

    async def moved(request: Request) -> None:
        await request.answer(302, {"Location": places[request.path]})

    async with (
        Server(serving({"/m.onnx": MODEL}), None) as plain,
        Server(serving({"/m.onnx": MODEL}), authority.server) as secure,
        Server(moved, None) as first,
        Server(moved, authority.server) as first_secure,
    ):
        https = {"ca_bundle": authority.pem}
        both = settings(https=https | {"plain_http_hosts": [host_of(first), host_of(plain)]})
        one = settings(https=https | {"plain_http_hosts": [host_of(first)]})
        places |= {"/plain": f"{plain.url}/m.onnx", "/secure": f"{secure.url}/m.onnx"}
        assert "not an https address" in await refusal_of(f"{first_secure.url}/plain", both)
        assert "not an https address" in await refusal_of(f"{first.url}/plain", one)
        assert plain.connections == 0
        for path, given in (("/plain", both), ("/secure", one)):
            async with open_source(f"{first.url}{path}", credentials={}, settings=given) as source:
                assert (await source.stat((await source.locate())[0])).size == len(MODEL)

        places["/metadata"] = "http://169.254.169.254/latest"
        named = settings(https={"plain_http_hosts": [host_of(first), "169.254.169.254"]})
        assert "sources.allowedNetworks" in await refusal_of(f"{first.url}/metadata", named)


async def test_pods_fetch_by_the_same_rule_the_test_data_too(tmp_path: Path) -> None:
    data = {"/t/input_0.pb": b"in", "/t/output_0.pb": b"out"}
    async with Server(serving({"/m.onnx": MODEL, **data}), None) as server:
        request = InspectionRequest(
            uri=f"{server.url}/m.onnx",
            test_data=f"{server.url}/t",
            sources=allowing(host_of(server)),
            capabilities=CAPABILITIES,
        )
        result = await inspect(request, limits=InspectionLimits())
        assert result.files is not None
        assert [file.name for file in result.test_data] == ["input_0.pb", "output_0.pb"]
        plan = FetchPlan(
            uri=request.uri,
            model=result.files,
            directory=str(tmp_path / "model"),
            sources=request.sources,
            test_data=DataPlan(uri=f"{server.url}/t/", files=result.test_data, directory=str(tmp_path / "data")),
        )
        for folder in ("model", "data"):
            (tmp_path / folder).mkdir()
        await fetch(plan, TOKEN, Retries(attempts=1), tmp_path)
        assert (tmp_path / "model/m.onnx").read_bytes() == MODEL
        assert (tmp_path / "data/output_0.pb").read_bytes() == b"out"
        assert not any("authorization" in each.headers for each in server.requests)

        forbidding = plan.model_copy(update={"sources": allowing(), "directory": str(tmp_path / "data")})
        with pytest.raises(FetchError) as caught:
            await fetch(forbidding, {}, Retries(attempts=1), tmp_path)
        assert "sources.https.plainHttpHosts" in caught.value.message

        refused = await inspect(request.model_copy(update={"sources": allowing()}), limits=InspectionLimits())
        assert refused.refusal is not None
        assert "sources.https.plainHttpHosts" in refused.refusal.message


def test_the_operator_refuses_before_anything_is_read_and_says_in_which_field() -> None:
    model = {"uri": "http://models.internal/m.onnx"}
    refusal = forbidden(samples.spec(model=model), "team", samples.settings())
    assert refusal is not None
    assert refusal.reason == "SourceRefused"
    assert refusal.message.startswith("spec.model.uri: Plain http is not allowed for the host models.internal")

    named = samples.settings(sources={"https": {"plainHttpHosts": ["models.internal"]}})
    assert forbidden(samples.spec(model=model), "team", named) is None
    elsewhere = model | {"testData": "http://data.internal:9000/t"}
    refusal = forbidden(samples.spec(model=elsewhere), "team", named)
    assert refusal is not None
    assert refusal.message.startswith("spec.model.testData: Plain http is not allowed for the host data.internal:9000")


def test_pods_are_told_the_settings_of_the_test_datas_store_too() -> None:
    given = samples.settings(sources={"https": {"plainHttpHosts": ["data.internal"]}, "s3": {"region": "eu-1"}})
    data = [SourceFile(name="input_0.pb", pin=PIN, size_bytes=1)]
    asked = samples.spec(model={"uri": "s3://models/m.onnx", "testData": "http://data.internal/t"})
    variables = {each["name"]: each["value"] for each in fetch_env(asked, samples.files(), given, test_data=data)}
    plan = FetchPlan.from_variables(variables)
    assert plan.sources.https.plain_http_hosts == ["data.internal"]
    assert plan.sources.s3.region == "eu-1"


@pytest.mark.parametrize(
    "entry", ["http://models.internal", "models.internal/path", "*.internal", "a b", "h:99999", "h:0", ""]
)
def test_an_entry_that_is_no_host_is_named_in_the_settings(entry) -> None:
    with pytest.raises(SettingsError) as caught:
        samples.settings(sources={"https": {"plainHttpHosts": ["models.internal", entry]}})
    assert "sources.https.plainHttpHosts" in str(caught.value)
    assert "entry 2 is not HOST or HOST:PORT" in str(caught.value)


async def test_the_command_line_names_hosts_by_an_option() -> None:
    async def run(*options: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "onnx_operator.cli", "inspect", *options, "--allow-network", "127.0.0.0/8"]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = await process.communicate()
        return process.returncode, output.decode()

    async with Server(serving({"/m.onnx": MODEL}), None) as server:
        code, output = await run(f"{server.url}/m.onnx")
        assert code == 2
        assert "--plain-http" in output
        code, output = await run(f"{server.url}/m.onnx", "--plain-http", host_of(server))
        assert code == 0, output


def test_a_plan_of_before_names_no_host() -> None:
    files = ModelFiles(files=[SourceFile(name="m.onnx", pin=PIN, size_bytes=1)], model="m.onnx")
    plan = FetchPlan(uri="http://models.internal/m.onnx", model=files, directory="/m").model_dump(by_alias=True)
    del plan["sources"]["https"]["plainHttpHosts"]
    assert FetchPlan.model_validate(plan).sources.https.plain_http_hosts == []
