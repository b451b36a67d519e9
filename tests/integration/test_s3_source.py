"""The ``s3`` source against a real store: versitygw over a temporary folder."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.model.sources import SourceChangedError, SourceError, transfer
from onnx_operator.model.sources.s3 import S3Source
from tests.cluster.fixtures import built_program
from tests.cluster.stores import KEY_ID, SECRET, S3Gateway

KEYS = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
BODY, OTHER = os.urandom(5_000_000), os.urandom(5_000_000)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Gateway]:
    folder, versions = (tmp_path_factory.mktemp(name) for name in ("store", "versions"))
    with S3Gateway.serve(built_program("versitygw"), folder, versions) as found:
        yield found


def source_of(gateway: S3Gateway, uri: str, credentials: dict[str, str] = KEYS, **more) -> S3Source:
    settings = SourceSettings.model_validate({"s3": {"endpoint": gateway.endpoint}})
    return S3Source(uri, credentials=credentials, settings=settings, **more)


async def refused(gateway: S3Gateway, uri: str, credentials: dict[str, str]) -> SourceError:
    async with source_of(gateway, uri, credentials) as source:
        with pytest.raises(SourceError) as caught:
            await source.stat("m.onnx")
    return caught.value


async def test_read_with_the_right_keys(gateway: S3Gateway, tmp_path: Path) -> None:
    obstore.put(gateway.make_bucket("models"), "team/m.onnx", BODY)
    async with source_of(gateway, "s3://models/team/m.onnx") as source:
        assert await source.locate() == ["m.onnx"]
        stat = await source.stat("m.onnx")
        got = await transfer.download(source, "m.onnx", tmp_path / "m")
        middle = await transfer.read(source, "m.onnx", 1_000_000, 2_000_000, pin=stat.pin)
    assert stat.size == len(BODY)
    assert stat.pin is not None
    assert got.pin == stat.pin
    assert got.sha256 == hashlib.sha256(BODY).hexdigest()
    assert (tmp_path / "m").read_bytes() == BODY
    assert middle == BODY[1_000_000:2_000_000]


async def test_parts_are_fetched_in_parallel_and_put_together(
    gateway: S3Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.parts, "PART_BYTES", 300_000)
    obstore.put(gateway.make_bucket("parts"), "m.onnx", BODY)
    seen: list[tuple[int, int | None]] = []
    async with source_of(gateway, "s3://parts/m.onnx") as source:
        got = await transfer.download(
            source, "m.onnx", tmp_path / "m", progress=lambda done, total: seen.append((done, total))
        )
    assert got.sha256 == hashlib.sha256(BODY).hexdigest()
    assert (tmp_path / "m").read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


async def test_a_prefix_with_one_model(gateway: S3Gateway, tmp_path: Path) -> None:
    bucket = gateway.make_bucket("folders")
    for name in ("one/a model.onnx", "one/weights/ä.bin", "deep/onnx/m.onnx", "two/a.onnx", "two/b.onnx", "none/x"):
        obstore.put(bucket, name, name.encode())
    for uri in ("s3://folders/one/", "s3://folders/one"):
        async with source_of(gateway, uri) as source:
            assert await source.locate() == ["a model.onnx"]
            assert (await source.stat("a model.onnx")).size == 16
            assert await transfer.read(source, "weights/ä.bin", 0, 3, pin=None) == b"one"
    async with source_of(gateway, "s3://folders/deep") as source:
        assert await source.locate() == ["onnx/m.onnx"]
    for uri, reason in (
        ("s3://folders/two", Reason.SOURCE_REFUSED),
        ("s3://folders/none/", Reason.SOURCE_NOT_FOUND),
        ("s3://folders/missing", Reason.SOURCE_NOT_FOUND),
        ("s3://folders/missing/", Reason.SOURCE_NOT_FOUND),
        ("s3://nowhere/folder/", Reason.SOURCE_NOT_FOUND),
    ):
        async with source_of(gateway, uri) as source:
            with pytest.raises(SourceError) as caught:
                await source.locate()
        assert caught.value.reason is reason, uri


async def test_an_object_whose_name_says_nothing(gateway: S3Gateway) -> None:
    obstore.put(gateway.make_bucket("plain"), "models/resnet", BODY)
    async with source_of(gateway, "s3://plain/models/resnet") as source:
        assert await source.locate() == ["resnet"]
        assert (await source.stat("resnet")).size == len(BODY)


async def test_external_data_beside_the_model(gateway: S3Gateway) -> None:
    bucket = gateway.make_bucket("beside")
    obstore.put(bucket, "m/model.onnx", b"model")
    obstore.put(bucket, "m/data/weights.bin", b"weights")
    async with source_of(gateway, "s3://beside/m/model.onnx") as source:
        assert await transfer.read(source, "data/weights.bin", 1, 4, pin=None) == b"eig"
        with pytest.raises(SourceError) as caught:
            await source.stat("../secret")
    assert caught.value.reason is Reason.SOURCE_REFUSED


async def test_an_empty_object(gateway: S3Gateway, tmp_path: Path) -> None:
    obstore.put(gateway.make_bucket("void"), "m.onnx", b"")
    async with source_of(gateway, "s3://void/m.onnx") as source:
        pin = (await source.stat("m.onnx")).pin
        for given in (None, pin):
            assert (await transfer.download(source, "m.onnx", tmp_path / "m", pin=given)).size == 0


async def test_wrong_keys(gateway: S3Gateway) -> None:
    obstore.put(gateway.make_bucket("locked"), "m.onnx", BODY)
    for credentials in (
        KEYS | {"AWS_SECRET_ACCESS_KEY": "wrong"},
        KEYS | {"AWS_ACCESS_KEY_ID": "nobody"},
        {},
    ):
        error = await refused(gateway, "s3://locked/m.onnx", credentials)
        assert error.reason is Reason.SOURCE_UNAUTHORIZED
        assert not error.retriable


async def test_the_keys_of_the_environment_count_only_where_they_may(
    gateway: S3Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    obstore.put(gateway.make_bucket("ambient"), "m.onnx", BODY)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    assert (await refused(gateway, "s3://ambient/m.onnx", {})).reason is Reason.SOURCE_UNAUTHORIZED
    async with source_of(gateway, "s3://ambient/m.onnx", {}, workload_identity=True) as source:
        assert (await source.stat("m.onnx")).size == len(BODY)


async def test_a_missing_bucket_and_a_missing_key(gateway: S3Gateway) -> None:
    gateway.make_bucket("empty")
    error = await refused(gateway, "s3://nowhere/m.onnx", KEYS)
    assert error.reason is Reason.SOURCE_NOT_FOUND
    assert "bucket nowhere" in error.message
    error = await refused(gateway, "s3://empty/m.onnx", KEYS)
    assert error.reason is Reason.SOURCE_NOT_FOUND
    assert "no such key in the bucket empty" in error.message


async def test_an_overwritten_object_is_noticed(gateway: S3Gateway, tmp_path: Path) -> None:
    bucket = gateway.make_bucket("changing")
    obstore.put(bucket, "m.onnx", BODY)
    async with source_of(gateway, "s3://changing/m.onnx") as source:
        before = (await source.stat("m.onnx")).pin
        assert before is not None
        assert before.kind == "Conditional"
        obstore.put(bucket, "m.onnx", OTHER)
        with pytest.raises(SourceChangedError) as caught:
            await transfer.download(source, "m.onnx", tmp_path / "m", pin=before)
        assert caught.value.observed == (await source.stat("m.onnx")).pin
        with pytest.raises(SourceChangedError):
            await transfer.read(source, "m.onnx", 10, 20, pin=before)
        got = await transfer.download(source, "m.onnx", tmp_path / "m", pin=caught.value.observed)
    assert got.sha256 == hashlib.sha256(OTHER).hexdigest()


async def test_a_version_is_read_after_it_was_overwritten(gateway: S3Gateway, tmp_path: Path) -> None:
    bucket = gateway.make_bucket("versioned")
    status = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    gateway.request("PUT", "/versioned", "versioning", status)
    obstore.put(bucket, "m.onnx", BODY)
    async with source_of(gateway, "s3://versioned/m.onnx") as source:
        before = (await source.stat("m.onnx")).pin
        assert before is not None
        assert before.kind == "Immutable"
        obstore.put(bucket, "m.onnx", OTHER[:4_000_000])
        got = await transfer.download(source, "m.onnx", tmp_path / "m", pin=before)
        assert got.sha256 == hashlib.sha256(BODY).hexdigest()
        assert got.pin == before
        assert await transfer.read(source, "m.onnx", 4_500_000, 4_500_009, pin=before) == BODY[4_500_000:4_500_009]
        got = await transfer.download(source, "m.onnx", tmp_path / "m")
        assert got.sha256 == hashlib.sha256(OTHER[:4_000_000]).hexdigest()
        gone = SourcePin(kind="Immutable", value="01ARZ3NDEKTSV4RRFFQ69G5FAV")
        with pytest.raises(SourceChangedError) as caught:
            await transfer.download(source, "m.onnx", tmp_path / "m", pin=gone)
        assert caught.value.observed == got.pin


async def test_a_public_bucket_needs_no_keys(gateway: S3Gateway, tmp_path: Path) -> None:
    obstore.put(gateway.make_bucket("public"), "m.onnx", BODY)
    policy = b"""{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*",
        "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::public/*"]}]}"""
    gateway.request("PUT", "/public", "policy", policy)
    async with source_of(gateway, "s3://public/m.onnx", {}) as source:
        assert (await transfer.download(source, "m.onnx", tmp_path / "m")).size == len(BODY)


async def test_a_file_that_was_copied_into_the_folder_has_no_pin(gateway: S3Gateway, tmp_path: Path) -> None:
    gateway.make_bucket("copied")
    (gateway.folder / "copied" / "m.onnx").write_bytes(BODY)
    async with source_of(gateway, "s3://copied/m.onnx") as source:
        assert (await source.stat("m.onnx")).pin is None
        got = await transfer.download(source, "m.onnx", tmp_path / "m")
    assert got.pin is None
    assert got.sha256 == hashlib.sha256(BODY).hexdigest()
