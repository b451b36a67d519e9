"""The ``s3`` source against a real store: versitygw over a temporary folder."""

import datetime
import hashlib
import hmac
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.model.sources import SourceChangedError, SourceError, open_source
from tests.cluster.fixtures import built_program

KEY_ID, SECRET = "root-key", "root-secret"
KEYS = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
BODY, OTHER = os.urandom(5_000_000), os.urandom(5_000_000)


@dataclass
class Gateway:
    endpoint: str
    folder: Path

    def make_bucket(self, name: str) -> S3Store:
        self.request("PUT", f"/{name}")
        return S3Store(
            name,
            config={"endpoint": self.endpoint, "access_key_id": KEY_ID, "secret_access_key": SECRET},
            client_options={"allow_http": True},
        )

    def request(self, method: str, path: str, query: str = "", body: bytes = b"") -> None:
        """Send what obstore has no call for, signed with AWS Signature Version 4."""
        now = datetime.datetime.now(datetime.UTC)
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        digest = hashlib.sha256(body).hexdigest()
        host = self.endpoint.removeprefix("http://")
        signed = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": stamp}
        lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
        names = ";".join(signed)
        canonical_query = f"{query}=" if query else ""
        canonical = "\n".join([method, path, canonical_query, lines, names, digest])
        scope = f"{day}/us-east-1/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{SECRET}".encode()
        for part in (day, "us-east-1", "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        authorization = f"AWS4-HMAC-SHA256 Credential={KEY_ID}/{scope}, SignedHeaders={names}, Signature={signature}"
        url = self.endpoint + path + (f"?{query}" if query else "")
        headers = signed | {"Authorization": authorization}
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method)) as response:
            assert response.status < 300

    @property
    def settings(self) -> SourceSettings:
        return SourceSettings.model_validate({"s3": {"endpoint": self.endpoint}})

    def open(self, uri: str, credentials: dict[str, str] = KEYS):
        return open_source(uri, credentials=credentials, settings=self.settings)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    binary = built_program("versitygw")
    folder, versions = (tmp_path_factory.mktemp(name) for name in ("store", "versions"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        str(binary),
        "--access",
        KEY_ID,
        "--secret",
        SECRET,
        "--region",
        "us-east-1",
        "--port",
        f"127.0.0.1:{port}",
    ]
    command += ["posix", "--versioning-dir", str(versions), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        found = Gateway(f"http://127.0.0.1:{port}", folder)
        deadline = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(found.endpoint, timeout=5).close()
            except urllib.error.HTTPError as error:
                error.close()
                break
            except OSError:
                assert process.poll() is None, "versitygw ended"
                assert time.monotonic() < deadline, "versitygw does not start"
                time.sleep(0.1)
            else:
                break
        yield found
        process.terminate()


async def refused(gateway: Gateway, uri: str, credentials: dict[str, str]) -> SourceError:
    async with gateway.open(uri, credentials) as source:
        with pytest.raises(SourceError) as caught:
            await source.stat()
    return caught.value


async def test_read_with_the_right_keys(gateway: Gateway, tmp_path: Path) -> None:
    obstore.put(gateway.make_bucket("models"), "team/m.onnx", BODY)
    async with gateway.open("s3://models/team/m.onnx") as source:
        stat = await source.stat()
        got = await source.download(tmp_path / "m")
    assert stat.size == len(BODY)
    assert stat.pin is not None
    assert got.pin == stat.pin
    assert got.sha256 == hashlib.sha256(BODY).hexdigest()
    assert (tmp_path / "m").read_bytes() == BODY


async def test_wrong_keys(gateway: Gateway) -> None:
    obstore.put(gateway.make_bucket("locked"), "m.onnx", BODY)
    for credentials in (
        KEYS | {"AWS_SECRET_ACCESS_KEY": "wrong"},
        KEYS | {"AWS_ACCESS_KEY_ID": "nobody"},
        {},
    ):
        error = await refused(gateway, "s3://locked/m.onnx", credentials)
        assert error.reason is Reason.SOURCE_UNAUTHORIZED
        assert not error.retriable


async def test_a_missing_bucket_and_a_missing_key(gateway: Gateway) -> None:
    gateway.make_bucket("empty")
    error = await refused(gateway, "s3://nowhere/m.onnx", KEYS)
    assert error.reason is Reason.SOURCE_NOT_FOUND
    assert "bucket nowhere" in error.message
    error = await refused(gateway, "s3://empty/m.onnx", KEYS)
    assert error.reason is Reason.SOURCE_NOT_FOUND
    assert "key m.onnx" in error.message


async def test_an_overwritten_object_is_noticed(gateway: Gateway, tmp_path: Path) -> None:
    bucket = gateway.make_bucket("changing")
    obstore.put(bucket, "m.onnx", BODY)
    async with gateway.open("s3://changing/m.onnx") as source:
        before = (await source.stat()).pin
        assert before is not None
        assert before.kind == "Conditional"
        obstore.put(bucket, "m.onnx", OTHER)
        with pytest.raises(SourceChangedError) as caught:
            await source.download(tmp_path / "m", pin=before)
        assert caught.value.observed == (await source.stat()).pin
        got = await source.download(tmp_path / "m", pin=caught.value.observed)
    assert got.sha256 == hashlib.sha256(OTHER).hexdigest()


async def test_a_version_is_read_after_it_was_overwritten(gateway: Gateway, tmp_path: Path) -> None:
    bucket = gateway.make_bucket("versioned")
    status = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    gateway.request("PUT", "/versioned", "versioning", status)
    obstore.put(bucket, "m.onnx", BODY)
    async with gateway.open("s3://versioned/m.onnx") as source:
        before = (await source.stat()).pin
        assert before is not None
        assert before.kind == "Immutable"
        obstore.put(bucket, "m.onnx", OTHER)
        got = await source.download(tmp_path / "m", pin=before)
        assert got.sha256 == hashlib.sha256(BODY).hexdigest()
        assert got.pin == before
        (tmp_path / "m").write_bytes(BODY[:1_000_000])
        got = await source.download(tmp_path / "m", pin=before, resume=True)
        assert got.sha256 == hashlib.sha256(BODY).hexdigest()
        assert (await source.download(tmp_path / "m")).sha256 == hashlib.sha256(OTHER).hexdigest()
        gone = SourcePin(kind="Immutable", value="01ARZ3NDEKTSV4RRFFQ69G5FAV")
        with pytest.raises(SourceChangedError):
            await source.download(tmp_path / "m", pin=gone)


async def test_a_public_bucket_needs_no_keys(gateway: Gateway, tmp_path: Path) -> None:
    obstore.put(gateway.make_bucket("public"), "m.onnx", BODY)
    policy = b"""{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*",
        "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::public/*"]}]}"""
    gateway.request("PUT", "/public", "policy", policy)
    async with gateway.open("s3://public/m.onnx", {}) as source:
        assert (await source.download(tmp_path / "m")).size == len(BODY)


async def test_a_file_that_was_copied_into_the_folder_has_no_pin(gateway: Gateway, tmp_path: Path) -> None:
    gateway.make_bucket("copied")
    (gateway.folder / "copied" / "m.onnx").write_bytes(BODY)
    async with gateway.open("s3://copied/m.onnx") as source:
        assert (await source.stat()).pin is None
        got = await source.download(tmp_path / "m")
    assert got.pin is None
    assert got.sha256 == hashlib.sha256(BODY).hexdigest()
