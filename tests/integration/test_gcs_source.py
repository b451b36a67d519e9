"""The ``gs`` source against fake-gcs-server."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.model.sources import SourceChangedError, SourceError, transfer
from onnx_operator.model.sources.gcs import GcsSource
from tests.cluster.fixtures import built_program
from tests.cluster.stores import GcsServer

BODY, OTHER = os.urandom(5_000_000), os.urandom(4_000_000)


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    with GcsServer.serve(built_program("fake-gcs-server")) as found:
        yield found


def source_of(server: GcsServer, uri: str) -> GcsSource:
    return GcsSource(uri, credentials={}, settings=SourceSettings.model_validate({"gs": {"endpoint": server.endpoint}}))


async def test_an_object_is_read_in_parts_and_by_ranges(
    server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.parts, "PART_BYTES", 700_000)
    server.make_bucket("models")
    server.put("models", "team/ä model.onnx", BODY)
    async with source_of(server, "gs://models/team/ä model.onnx") as source:
        assert await source.locate() == ["ä model.onnx"]
        stat = await source.stat("ä model.onnx")
        assert stat.size == len(BODY)
        assert stat.pin is not None
        assert stat.pin.kind == "Immutable"
        got = await transfer.download(source, "ä model.onnx", tmp_path / "m", pin=stat.pin)
        assert await transfer.read(source, "ä model.onnx", 4_999_990, 5_000_000, pin=stat.pin) == BODY[-10:]
    assert (got.sha256, got.pin) == (hashlib.sha256(BODY).hexdigest(), stat.pin)
    assert (tmp_path / "m").read_bytes() == BODY


@pytest.mark.parametrize("versioning", [True, False])
async def test_an_overwritten_object(server: GcsServer, tmp_path: Path, versioning: bool) -> None:
    bucket = f"changing-{versioning}".lower()
    server.make_bucket(bucket, versioning=versioning)
    server.put(bucket, "m.onnx", BODY)
    async with source_of(server, f"gs://{bucket}/m.onnx") as source:
        before = (await source.stat("m.onnx")).pin
        server.put(bucket, "m.onnx", OTHER)
        now = (await source.stat("m.onnx")).pin
        assert before != now
        if versioning:
            got = await transfer.download(source, "m.onnx", tmp_path / "m", pin=before)
            assert got.sha256 == hashlib.sha256(BODY).hexdigest()
        else:
            with pytest.raises(SourceChangedError) as caught:
                await transfer.download(source, "m.onnx", tmp_path / "m", pin=before)
            assert caught.value.observed == now
        gone = SourcePin(kind="Immutable", value="1")
        with pytest.raises(SourceChangedError):
            await transfer.read(source, "m.onnx", 0, 5, pin=gone)


async def test_a_missing_object_and_an_empty_one(server: GcsServer, tmp_path: Path) -> None:
    server.make_bucket("empty")
    server.put("empty", "void.onnx", b"")
    async with source_of(server, "gs://empty/m.onnx") as source:
        with pytest.raises(SourceError) as caught:
            await source.stat("m.onnx")
        assert caught.value.reason is Reason.SOURCE_NOT_FOUND
        pin = (await source.stat("void.onnx")).pin
        assert (await transfer.download(source, "void.onnx", tmp_path / "m", pin=pin)).size == 0
