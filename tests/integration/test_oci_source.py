"""The ``oci`` source against a real registry, with artifacts that ``oras`` pushes and images that buildah builds."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources import SourceError, open_source, transfer
from tests.cluster import servers
from tests.cluster.fixtures import built_program
from tests.unit.model.webkit import Authority, read

MODEL, OTHER, WEIGHTS = os.urandom(3_000_000), os.urandom(3_000_000), os.urandom(100_000)
ACCOUNT = f"{servers.REGISTRY_USER}:{servers.REGISTRY_PASSWORD}"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[str]:
    with servers.registry(tmp_path_factory.mktemp("registry"), authority.chain) as where:
        yield where


def run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def oras_push(registry: str, name: str, *files: str, cwd: Path, authority: Authority) -> None:
    (cwd / "ca.pem").write_text(authority.pem)
    account = ["--username", servers.REGISTRY_USER, "--password", servers.REGISTRY_PASSWORD]
    options = ["--ca-file", str(cwd / "ca.pem"), *account, "--registry-config", str(cwd / "none.json")]
    run(built_program("oras"), "push", *options, f"{registry}/{name}", *files, cwd=cwd)


def source_of(uri: str, authority: Authority, account: str = ACCOUNT):
    settings = SourceSettings.model_validate({"allowed_networks": ["127.0.0.0/8"], "oci": {"ca_bundle": authority.pem}})
    host = uri.removeprefix("oci://").partition("/")[0]
    config = {"auths": {host: {"auth": b64encode(account.encode()).decode()}}} if account else {"auths": {}}
    return open_source(uri, credentials={"DOCKERCONFIGJSON": json.dumps(config)}, settings=settings)


async def test_an_artifact_with_external_data(registry, authority, tmp_path) -> None:
    (tmp_path / "m.onnx").write_bytes(MODEL)
    (tmp_path / "m.onnx.data").write_bytes(WEIGHTS)
    oras_push(registry, "team/m:v1", "m.onnx", "m.onnx.data", cwd=tmp_path, authority=authority)
    async with source_of(f"oci://{registry}/team/m:v1", authority) as source:
        assert await source.locate() == ["m.onnx"]
        stat = await source.stat("m.onnx")
        sha256 = hashlib.sha256(MODEL).hexdigest()
        assert (stat.size, stat.sha256, stat.pin and stat.pin.value) == (len(MODEL), sha256, f"sha256:{sha256}")
        got, stream = await read(source, "m.onnx", 1000, 2000, stat.pin)
        assert (got, stream.begin) == (MODEL[1000:2000], 1000)
        assert (await transfer.download(source, "m.onnx", tmp_path / "got", pin=stat.pin)).sha256 == sha256
        assert (await read(source, "m.onnx.data"))[0] == WEIGHTS


async def test_a_tag_that_moved_and_what_was_pinned(registry, authority, tmp_path) -> None:
    for body in (MODEL, OTHER):
        (tmp_path / "m.onnx").write_bytes(body)
        oras_push(registry, "moving:v1", "m.onnx", cwd=tmp_path, authority=authority)
        if body is MODEL:
            async with source_of(f"oci://{registry}/moving:v1", authority) as source:
                pin = (await source.stat("m.onnx")).pin
    async with source_of(f"oci://{registry}/moving:v1", authority) as source:
        assert (await read(source, "m.onnx", 0, 100, pin))[0] == MODEL[:100]
        assert (await source.stat("m.onnx")).pin != pin
        assert (await read(source, "m.onnx", 0, 100))[0] == OTHER[:100]


async def test_a_folder_that_oras_packs(registry, authority, tmp_path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "m.onnx").write_bytes(MODEL)
    oras_push(registry, "folder:v1", "model/", cwd=tmp_path, authority=authority)
    async with source_of(f"oci://{registry}/folder:v1", authority) as source:
        (name,) = await source.locate()
        assert name.endswith(".tar.gz")
        packed, _ = await read(source, name)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        member = next(each for each in archive if each.name.endswith("m.onnx"))
        file = archive.extractfile(member)
        assert file is not None
        assert file.read() == MODEL


async def test_an_image_that_buildah_builds(registry, authority, tmp_path) -> None:
    (tmp_path / "m.onnx").write_bytes(MODEL)
    (tmp_path / "README.md").write_text("a model")
    (tmp_path / "Containerfile").write_text("FROM scratch\nCOPY README.md /\nCOPY m.onnx /models/\n")
    folders = [f"--root={tmp_path}/root", f"--runroot={tmp_path}/run", "--storage-driver=vfs"]
    buildah = [servers.debian_program("buildah", "buildah"), *folders]
    run(*buildah, "build", "--isolation=chroot", "--layers", "--tag=localhost/m", ".", cwd=tmp_path)
    target = [f"--creds={ACCOUNT}", "--tls-verify=false", "localhost/m", f"docker://{registry}/image:v1"]
    run(*buildah, "push", *target, cwd=tmp_path)
    async with source_of(f"oci://{registry}/image:v1", authority) as source:
        last, first = await source.locate()
        for name, member in {last: "models/m.onnx", first: "README.md"}.items():
            packed, stream = await read(source, name)
            assert hashlib.sha256(packed).hexdigest() == stream.stat.sha256
            with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                assert member in archive.getnames()


@pytest.mark.parametrize(
    ("name", "account", "reason"),
    [
        ("nothing:v1", ACCOUNT, Reason.SOURCE_NOT_FOUND),
        ("team/m:v1", "", Reason.SOURCE_UNAUTHORIZED),
        ("team/m:v1", "reader:wrong", Reason.SOURCE_UNAUTHORIZED),
    ],
)
async def test_what_cannot_be_read_says_why(registry, authority, name, account, reason) -> None:
    async with source_of(f"oci://{registry}/{name}", authority, account) as source:
        with pytest.raises(SourceError) as caught:
            await source.locate()
    assert caught.value.reason is reason
    assert "wrong" not in caught.value.message
