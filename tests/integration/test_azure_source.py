"""The ``az`` and ``abfss`` sources, and addresses of blobs, against Azurite."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources import SourceChangedError, SourceError, transfer
from onnx_operator.model.sources.azure import AzureSource
from tests.cluster.fixtures import installed_command
from tests.cluster.stores import ACCOUNT, ACCOUNT_KEY, OTHER_ACCOUNT, Azurite, sas_token

NAME = {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT}
KEY = NAME | {"AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY}
BODY, OTHER = os.urandom(5_000_000), os.urandom(5_000_000)


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with Azurite.serve(installed_command("azurite-blob"), tmp_path_factory.mktemp("azurite")) as found:
        yield found


def source_of(azurite: Azurite, uri: str, credentials: dict[str, str] = KEY, account: str = ACCOUNT) -> AzureSource:
    settings = SourceSettings.model_validate({"az": {"endpoint": azurite.endpoint, "account": account}})
    return AzureSource(uri, credentials=credentials, settings=settings)


async def test_a_blob_is_read_in_parts_and_by_ranges_whatever_its_address_looks_like(
    azurite: Azurite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.parts, "PART_BYTES", 700_000)
    obstore.put(azurite.make_container("models"), "team/ä model.onnx", BODY)
    for uri in (
        "az://models/team/ä model.onnx",
        f"abfss://models@{ACCOUNT}.dfs.core.windows.net/team/ä model.onnx",
        f"https://{ACCOUNT}.blob.core.windows.net/models/team/%C3%A4%20model.onnx",
    ):
        async with source_of(azurite, uri) as source:
            assert await source.locate() == ["ä model.onnx"]
            stat = await source.stat("ä model.onnx")
            assert stat.pin is not None
            assert stat.pin.kind == "Conditional"
            got = await transfer.download(source, "ä model.onnx", tmp_path / "m", pin=stat.pin)
            assert await transfer.read(source, "ä model.onnx", 1_000_000, 1_000_010, pin=stat.pin) == BODY[10**6 :][:10]
        assert (got.sha256, got.pin) == (hashlib.sha256(BODY).hexdigest(), stat.pin)
        assert (tmp_path / "m").read_bytes() == BODY


async def test_a_token_reads_the_one_blob_that_it_is_for(azurite: Azurite) -> None:
    container = azurite.make_container("shared")
    for name in ("m.onnx", "secret.onnx"):
        obstore.put(container, name, BODY)
    credentials = NAME | {"AZURE_STORAGE_SAS_TOKEN": sas_token(ACCOUNT, "shared", "m.onnx")}
    async with source_of(azurite, "az://shared/m.onnx", credentials) as source:
        assert (await source.stat("m.onnx")).size == len(BODY)
        with pytest.raises(SourceError) as caught:
            await source.stat("secret.onnx")
    assert caught.value.reason is Reason.SOURCE_UNAUTHORIZED


async def test_a_public_container_needs_no_keys_and_a_private_one_does(azurite: Azurite) -> None:
    for name, public in (("open", True), ("closed", False)):
        obstore.put(azurite.make_container(name, public=public), "m.onnx", BODY)
    async with source_of(azurite, "az://open/m.onnx", {}) as source:
        assert (await source.stat("m.onnx")).size == len(BODY)
    for credentials in ({}, KEY | {"AZURE_STORAGE_ACCOUNT_KEY": "d3Jvbmc="}, KEY | {"AZURE_STORAGE_ACCOUNT_KEY": "!"}):
        async with source_of(azurite, "az://closed/m.onnx", credentials) as source:
            with pytest.raises(SourceError) as caught:
                await source.stat("m.onnx")
        assert caught.value.reason is Reason.SOURCE_UNAUTHORIZED
        assert not caught.value.retriable


async def test_another_account_is_another_store(azurite: Azurite) -> None:
    obstore.put(azurite.make_container("here"), "m.onnx", BODY)
    credentials = KEY | {"AZURE_STORAGE_ACCOUNT_NAME": OTHER_ACCOUNT}
    async with source_of(azurite, "az://here/m.onnx", credentials) as source:
        with pytest.raises(SourceError) as caught:
            await source.stat("m.onnx")
    assert caught.value.reason is Reason.SOURCE_NOT_FOUND


async def test_a_missing_container_and_a_missing_blob(azurite: Azurite) -> None:
    azurite.make_container("empty")
    for uri, words in (("az://nowhere/m.onnx", "container nowhere"), ("az://empty/m.onnx", "no such key")):
        async with source_of(azurite, uri) as source:
            with pytest.raises(SourceError) as caught:
                await source.stat("m.onnx")
        assert caught.value.reason is Reason.SOURCE_NOT_FOUND
        assert words in caught.value.message


async def test_an_overwritten_blob_is_noticed(azurite: Azurite, tmp_path: Path) -> None:
    container = azurite.make_container("changing")
    obstore.put(container, "m.onnx", BODY)
    async with source_of(azurite, "az://changing/m.onnx") as source:
        before = (await source.stat("m.onnx")).pin
        obstore.put(container, "m.onnx", OTHER)
        with pytest.raises(SourceChangedError) as caught:
            await transfer.download(source, "m.onnx", tmp_path / "m", pin=before)
        assert caught.value.observed == (await source.stat("m.onnx")).pin
        got = await transfer.download(source, "m.onnx", tmp_path / "m", pin=caught.value.observed)
    assert got.sha256 == hashlib.sha256(OTHER).hexdigest()


async def test_an_empty_blob(azurite: Azurite, tmp_path: Path) -> None:
    obstore.put(azurite.make_container("void"), "m.onnx", b"")
    async with source_of(azurite, "az://void/m.onnx") as source:
        pin = (await source.stat("m.onnx")).pin
        assert (await transfer.download(source, "m.onnx", tmp_path / "m", pin=pin)).size == 0
