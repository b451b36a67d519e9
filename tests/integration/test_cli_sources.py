"""``kubectl onnx inspect`` as people run it, against every kind of source: the real command and real servers."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import model_signing
import obstore
import onnx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests import models
from tests.cluster import servers
from tests.cluster.fixtures import built_program, installed_command
from tests.cluster.stores import ACCOUNT, ACCOUNT_KEY, KEY_ID, SECRET, Azurite, GcsServer, S3Gateway
from tests.hub import Hub
from tests.integration.test_huggingface_source import serving
from tests.unit.model.webkit import Authority, make_authority

ROOT = Path(__file__).parents[2]
REGISTRY_ACCOUNT = b64encode(f"{servers.REGISTRY_USER}:{servers.REGISTRY_PASSWORD}".encode()).decode()
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "operator")}
"""Nothing of the credentials that whoever runs the tests may have."""
LARGE_BYTES = 5 << 20
"""More than is read whole."""
LOCATIONS = """
location /plain/ { max_ranges 0; etag off; }
location /private/ { if ($http_authorization != "Bearer T0KEN") { return 401; } }
"""
LOG = """
import sys, warnings
warnings.simplefilter("ignore")
import mlflow, onnx

mlflow.set_tracking_uri(sys.argv[1])
with mlflow.start_run() as run:
    mlflow.onnx.log_model(onnx.load(sys.argv[2]), name="m", registered_model_name="net", save_as_external_data=False,
        pip_requirements=["onnx"])
    mlflow.log_artifact(sys.argv[2])
print("\\n" + run.info.run_id)
"""


def inspect(uri: object, *options: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onnx_operator.cli", "inspect", str(uri), "--output", "json", *map(str, options)]
    environment = ENVIRONMENT | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def accepted(uri: object, *options: object, **variables: str) -> dict[str, Any]:
    done = inspect(uri, *options, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def refusal(code: int, uri: object, *options: object, **variables: str) -> dict[str, Any]:
    done = inspect(uri, *options, **variables)
    assert done.returncode == code, done.stdout + done.stderr
    found = dict(json.loads(done.stdout))
    assert found.keys() == {"reason", "message"}
    return found


def content(report: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on where a model lies."""
    return {name: value for name, value in report.items() if name not in ("source", "digest")}


@dataclass
class Shelf:
    """The models, as files of this machine, and what the command says of them there."""

    folder: Path
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        return self.folder / name

    def body(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def sha256(self, name: str) -> str:
        return hashlib.sha256(self.body(name)).hexdigest()

    def local(self, name: str) -> dict[str, Any]:
        if name not in self.reports:
            self.reports[name] = accepted(self.path(name))
        return self.reports[name]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    folder = tmp_path_factory.mktemp("models")
    (folder / "net.onnx").write_bytes(models.linear(padding_bytes=LARGE_BYTES))
    (folder / "bad.onnx").write_bytes(models.unknown_operator())
    (folder / "parts").mkdir()
    proto = onnx.load(folder / "net.onnx")
    onnx.save(proto, folder / "parts" / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    with zipfile.ZipFile(folder / "net.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "net.onnx", "export/net.onnx")
    return Shelf(folder)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("authority")
    made = make_authority(folder)
    (folder / "ca.pem").write_text(made.pem)
    return made


@pytest.fixture(scope="module")
def ca(authority: Authority) -> tuple[object, ...]:
    """Options for a server of ours on this machine."""
    return ("--ca-bundle", authority.chain.with_name("ca.pem"), "--allow-network", "127.0.0.0/8")


FILES = ("net.onnx", "bad.onnx", "net.zip", "parts/net.onnx", "parts/net.data")


@dataclass
class Place:
    """A store that holds the models of the shelf below ``base``, and what reads it."""

    base: str
    pin: str
    options: tuple[object, ...]
    variables: dict[str, str]
    wrong: dict[str, str]
    digests: bool = False
    """Whether the digest of a file that is not read whole is known: the store vouches for it, or pins nothing."""


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def s3(stack: ExitStack, shelf: Shelf, tmp: Path) -> list[Place]:
    for name in ("files", "versions"):
        (tmp / name).mkdir()
    gateway = stack.enter_context(S3Gateway.serve(built_program("versitygw"), tmp / "files", tmp / "versions"))
    bucket = gateway.make_bucket("models")
    for name in FILES:
        obstore.put(bucket, f"team/{name}", shelf.body(name))
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    wrong = keys | {"AWS_SECRET_ACCESS_KEY": "wrong"}
    return [Place("s3://models/team", "Conditional", ("--s3-endpoint", gateway.endpoint), keys, wrong)]


def gs(stack: ExitStack, shelf: Shelf, _tmp: Path) -> list[Place]:
    server = stack.enter_context(GcsServer.serve(built_program("fake-gcs-server")))
    server.make_bucket("models")
    for name in FILES:
        server.put("models", f"team/{name}", shelf.body(name))
    # It asks nobody for keys; a key that is none is refused before.
    wrong = {"GOOGLE_SERVICE_ACCOUNT_KEY": "no key"}
    return [Place("gs://models/team", "Immutable", ("--gs-endpoint", server.endpoint), {}, wrong)]


def azure(stack: ExitStack, shelf: Shelf, tmp: Path) -> list[Place]:
    azurite = stack.enter_context(Azurite.serve(installed_command("azurite-blob"), tmp))
    container = azurite.make_container("models")
    for name in FILES:
        obstore.put(container, f"team/{name}", shelf.body(name))
    keys = {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY}
    wrong = keys | {"AZURE_STORAGE_ACCOUNT_KEY": "d3Jvbmc="}
    bases = (
        "az://models/team",
        f"abfss://models@{ACCOUNT}.dfs.core.windows.net/team",
        f"https://{ACCOUNT}.blob.core.windows.net/models/team",
    )
    return [Place(base, "Conditional", ("--az-endpoint", azurite.endpoint), keys, wrong) for base in bases]


@pytest.fixture(scope="module")
def stores(stack: ExitStack, shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Place]:
    made = [place for start in (s3, gs, azure) for place in start(stack, shelf, tmp_path_factory.mktemp("store"))]
    return {place.base.partition("://")[0]: place for place in made}


@pytest.fixture(scope="module")
def web(stack: ExitStack, shelf: Shelf, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "files").mkdir()
    for name in ("ranges", "plain", "private"):
        (folder / "files" / name).symlink_to(shelf.folder)
    return stack.enter_context(servers.nginx(folder, authority.chain, LOCATIONS))


@pytest.fixture(scope="module")
def registry(stack: ExitStack, shelf: Shelf, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("registry")
    where = stack.enter_context(servers.registry(folder, authority.chain))
    account = ["--username", servers.REGISTRY_USER, "--password", servers.REGISTRY_PASSWORD]
    options = ["--ca-file", authority.chain.with_name("ca.pem"), *account, "--registry-config", folder / "none.json"]
    for name, content_folder, files in (
        ("file", shelf.folder, ["net.onnx"]),
        ("bad", shelf.folder, ["bad.onnx"]),
        ("archive", shelf.folder, ["net.zip"]),
        ("parts", shelf.path("parts"), ["net.onnx", "net.data"]),
        # A folder, which oras packs into a .tar.gz.
        ("packed", shelf.folder, ["parts/"]),
    ):
        run(built_program("oras"), "push", *options, f"{where}/team/{name}:v1", *files, cwd=content_folder)
    return where


@pytest.fixture(scope="module")
def image(registry: str, shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A container image with a model in it."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "net.onnx").write_bytes(shelf.body("net.onnx"))
    (folder / "Containerfile").write_text("FROM scratch\nCOPY net.onnx /models/\n")
    folders = [f"--root={folder}/root", f"--runroot={folder}/run", "--storage-driver=vfs"]
    buildah = [servers.debian_program("buildah", "buildah"), *folders]
    run(*buildah, "build", "--isolation=chroot", "--tag=localhost/m", ".", cwd=folder)
    target = f"docker://{registry}/team/image:v1"
    account = f"--creds={servers.REGISTRY_USER}:{servers.REGISTRY_PASSWORD}"
    run(*buildah, "push", account, "--tls-verify=false", "localhost/m", target, cwd=folder)
    return f"oci://{registry}/team/image:v1"


def run(*command: object, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def hub(stack: ExitStack, shelf: Shelf, authority: Authority) -> Hub:
    made = Hub(token="hf_T0KEN")
    made.commit({"README.md": b"# A model", **{name: shelf.body(name) for name in FILES}})
    port = stack.enter_context(serving(made, authority))
    made.url, made.storage = f"https://127.0.0.1:{port}", f"https://localhost:{port}/storage"
    return made


@pytest.fixture(scope="module")
def tracking(stack: ExitStack, shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """URL of an MLflow server that holds the model, and the run that logged it."""
    folder = tmp_path_factory.mktemp("mlflow")
    url = stack.enter_context(servers.mlflow(folder))
    environment = {**os.environ, "GIT_PYTHON_REFRESH": "quiet", "DO_NOT_TRACK": "true"}
    told = run(servers.python_with("mlflow"), "-c", LOG, url, shelf.path("net.onnx"), cwd=folder, env=environment)
    return url, told.split()[-1]


def check(shelf: Shelf, local: str, report: dict[str, Any], pin: str, digest: str) -> None:
    assert content(report) == content(shelf.local(local))
    assert (report["source"]["kind"], report["digest"]) == (pin, digest and f"sha256:{digest}")
    assert report["sizeBytes"] > LARGE_BYTES / 2


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "abfss", "https"])
def test_models_in_object_stores_are_what_they_are_on_this_machine(
    shelf: Shelf, stores: dict[str, Place], scheme: str
) -> None:
    place = stores[scheme]

    def look(path: str) -> dict[str, Any]:
        return accepted(f"{place.base}/{path}", *place.options, **place.variables)

    check(shelf, "net.onnx", look("net.onnx"), place.pin, "")
    check(shelf, "net.zip", look("net.zip"), place.pin, "")
    # The structure of a model with external data is small: it is read whole.
    digest = shelf.sha256("parts/net.onnx")
    for path in ("parts/net.onnx", "parts/"):
        check(shelf, "parts", look(path), place.pin, digest)
    bad = refusal(1, f"{place.base}/bad.onnx", *place.options, **place.variables)
    assert bad["reason"] == "UnknownOperator"
    assert "FancyGelu" in bad["message"]
    missing = refusal(2, f"{place.base}/none.onnx", *place.options, **place.variables)
    assert missing["reason"] == "SourceNotFound"
    assert f"{place.base}/none.onnx" in missing["message"]
    wrong = refusal(2, f"{place.base}/net.onnx", *place.options, **place.wrong)
    assert wrong["reason"] == "SourceUnauthorized"
    assert not any(value in wrong["message"] for name, value in place.wrong.items() if name.endswith("_KEY"))


def test_models_behind_a_web_server(shelf: Shelf, web: str, ca: tuple[object, ...]) -> None:
    check(shelf, "net.onnx", accepted(f"{web}/ranges/net.onnx", *ca), "Conditional", "")
    check(shelf, "net.zip", accepted(f"{web}/ranges/net.zip", *ca), "Conditional", "")
    parts = accepted(f"{web}/ranges/parts/net.onnx", *ca)
    check(shelf, "parts", parts, "Conditional", shelf.sha256("parts/net.onnx"))
    # Neither ranges nor an ETag: it is read from beginning to end, and pinned by what was read.
    check(shelf, "net.onnx", accepted(f"{web}/plain/net.onnx", *ca), "None", shelf.sha256("net.onnx"))
    check(shelf, "net.onnx", accepted(f"{web}/private/net.onnx", *ca, HTTPS_BEARER_TOKEN="T0KEN"), "Conditional", "")
    wrong = refusal(2, f"{web}/private/net.onnx", *ca, HTTPS_BEARER_TOKEN="wr0ng")
    assert wrong["reason"] == "SourceUnauthorized"
    assert "wr0ng" not in wrong["message"]
    assert refusal(1, f"{web}/ranges/bad.onnx", *ca)["reason"] == "UnknownOperator"
    assert refusal(2, f"{web}/ranges/none.onnx", *ca)["reason"] == "SourceNotFound"
    # Without being allowed, no private network is reached.
    assert refusal(2, f"{web}/ranges/net.onnx", *ca[:2])["reason"] == "SourceRefused"


def test_models_in_a_registry(shelf: Shelf, registry: str, image: str, ca: tuple[object, ...]) -> None:
    def config(account: str) -> str:
        return json.dumps({"auths": {registry: {"auth": account}}})

    keys = config(REGISTRY_ACCOUNT)
    for name, local, digest in (
        ("file", "net.onnx", shelf.sha256("net.onnx")),
        ("archive", "net.zip", shelf.sha256("net.zip")),
        ("parts", "parts", shelf.sha256("parts/net.onnx")),
    ):
        report = accepted(f"oci://{registry}/team/{name}:v1", *ca, DOCKERCONFIGJSON=keys)
        check(shelf, local, report, "Immutable", digest)
    # Archives that oras and buildah made: the model in them is the same.
    for uri, local in ((f"oci://{registry}/team/packed:v1", "parts"), (image, "net.onnx")):
        report = accepted(uri, *ca, DOCKERCONFIGJSON=keys)
        assert report["source"]["kind"] == "Immutable"
        for same in ("inputs", "outputs", "operators", "parameters", "flops", "opsets"):
            assert report[same] == shelf.local(local)[same]
    for name, code, account, reason in (
        ("bad", 1, REGISTRY_ACCOUNT, "UnknownOperator"),
        ("none", 2, REGISTRY_ACCOUNT, "SourceNotFound"),
        ("file", 2, b64encode(b"reader:wrong").decode(), "SourceUnauthorized"),
    ):
        found = refusal(code, f"oci://{registry}/team/{name}:v1", *ca, DOCKERCONFIGJSON=config(account))
        assert found["reason"] == reason


def test_models_of_the_hub(shelf: Shelf, hub: Hub, authority: Authority) -> None:
    options = ("--ca-bundle", authority.chain.with_name("ca.pem"), "--hf-endpoint", hub.url)
    options += ("--allow-network", "127.0.0.0/8", "--allow-network", "::1/128")
    for uri, local, digest in (
        ("hf://org/model/net.onnx", "net.onnx", shelf.sha256("net.onnx")),
        (f"hf://org/model@{hub.refs['main']}/net.zip", "net.zip", shelf.sha256("net.zip")),
        ("hf://org/model@main/parts/", "parts", shelf.sha256("parts/net.onnx")),
    ):
        check(shelf, local, accepted(uri, *options, HF_TOKEN="hf_T0KEN"), "Immutable", digest)
    for uri, code, token, reason in (
        ("hf://org/model/bad.onnx", 1, "hf_T0KEN", "UnknownOperator"),
        ("hf://org/model/none.onnx", 2, "hf_T0KEN", "SourceNotFound"),
        ("hf://org/model/net.onnx", 2, "hf_wr0ng", "SourceUnauthorized"),
    ):
        found = refusal(code, uri, *options, HF_TOKEN=token)
        assert found["reason"] == reason
        assert "wr0ng" not in found["message"]


def test_models_that_mlflow_knows(shelf: Shelf, tracking: tuple[str, str]) -> None:
    url, number = tracking
    options = ("--mlflow-tracking-uri", url)
    for uri in ("models:/net/1", "models:/net/latest", f"mlflow://{number}/net.onnx"):
        report = accepted(uri, *options)
        assert report["inputs"] == shelf.local("net.onnx")["inputs"]
        assert report["operators"] == shelf.local("net.onnx")["operators"]
        assert report["sizeBytes"] > LARGE_BYTES
    for uri in ("models:/net/9", "models:/other/1", f"mlflow://{number}/none.onnx"):
        assert refusal(2, uri, *options)["reason"] == "SourceNotFound"
    assert refusal(2, "models:/net/1")["reason"] == "SourceRefused"


def test_models_on_this_machine(shelf: Shelf, tmp_path: Path) -> None:
    for name, digest in (
        ("net.onnx", ""),
        ("net.zip", ""),
        ("parts", shelf.sha256("parts/net.onnx")),
    ):
        for uri in (shelf.path(name), f"file://{shelf.path(name)}"):
            check(shelf, name, accepted(uri), "Conditional", digest)
    assert refusal(1, shelf.path("bad.onnx"))["reason"] == "UnknownOperator"
    assert refusal(2, shelf.path("none.onnx"))["reason"] == "SourceNotFound"
    # Two models: which one is meant?
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(models.linear())
    assert refusal(2, tmp_path)["reason"] == "SourceRefused"


def test_a_digest_is_proven_also_where_only_the_whole_file_can(shelf: Shelf, stores: dict[str, Place]) -> None:
    place = stores["s3"]
    right, wrong = shelf.sha256("net.onnx"), "ab" * 32
    for uri in (f"{place.base}/net.onnx", shelf.path("net.onnx")):
        report = accepted(uri, *place.options, "--sha256", f"sha256:{right.upper()}", **place.variables)
        assert report["digest"] == f"sha256:{right}"
        found = refusal(1, uri, *place.options, "--sha256", wrong, **place.variables)
        assert found["reason"] == "DigestMismatch"
        assert right in found["message"]
        assert wrong in found["message"]


def test_a_signature_stands_for_every_byte(shelf: Shelf, stores: dict[str, Place], tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (tmp_path / "key").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pub").write_bytes(public)
    body = bytearray(shelf.body("net.onnx"))
    (tmp_path / "net.onnx").write_bytes(body)
    signing = model_signing.signing.Config().use_elliptic_key_signer(private_key=tmp_path / "key")
    signing.sign(tmp_path / "net.onnx", tmp_path / "net.onnx.sig")
    option = ("--public-key", tmp_path / "key.pub")

    assert accepted(tmp_path / "net.onnx", *option)["signer"].startswith("key sha256:")
    # A weight that is never looked at otherwise.
    body[len(body) // 2] ^= 1
    (tmp_path / "net.onnx").write_bytes(body)
    assert refusal(1, tmp_path / "net.onnx", *option)["reason"] == "DigestMismatch"
    place = stores["s3"]
    unsigned = refusal(1, f"{place.base}/net.onnx", *place.options, *option, **place.variables)
    assert unsigned["reason"] == "SignatureInvalid"
    assert "net.onnx.sig" in unsigned["message"]
