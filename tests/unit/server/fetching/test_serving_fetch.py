"""The pod holds exactly the bytes that were inspected, or says why not."""

import datetime
import hashlib
import http.server
import io
import ipaddress
import json
import logging
import os
import ssl
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from onnx_operator.api.contract import DataPlan, FetchPlan
from onnx_operator.api.sources import HttpsSettings, ModelFiles, SourceFile, SourcePin, SourceSettings
from onnx_operator.server.fetching.fetch import Retries, run
from onnx_operator.server.fetching.plan import credentials_for, take_credentials
from onnx_operator.server.fetching.progress import Progress

CONTENT = bytes(range(256)) * 20_000
PATIENT = Retries(attempts=4, first_delay=0.05)


class Store:
    """Files behind HTTPS, with faults on demand. ``content`` is the model's, ``others`` lie beside it."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.others: dict[str, bytes] = {}
        self.etag: str | None = '"v1"'
        self.refuse: list[int] = []
        """Status codes of the next answers."""
        self.cut: list[int] = []
        """The next answers end after so many bytes."""
        self.requests: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.sent: list[int] = []


class Handler(http.server.BaseHTTPRequestHandler):
    store: Store
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        store = self.store
        path = urlsplit(self.path).path
        store.paths.append(path)
        content = store.content if path == "/model.onnx" else store.others.get(path.removeprefix("/"), b"")
        store.requests.append({k.lower(): v for k, v in self.headers.items()})
        self.close_connection = True
        if store.refuse:
            self.answer(store.refuse.pop(0), b"")
        elif self.headers.get("If-Match") not in (None, store.etag):
            self.answer(412, b"")
        else:
            start, end, status = 0, len(content), 200
            if wanted := self.headers.get("Range"):
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, status = int(first), 206
                end = min(end, int(last) + 1) if last else end
                if start >= len(content):
                    self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                    return
            headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"} if status == 206 else {}
            self.answer(status, content[start:end], headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        if self.store.etag:
            self.send_header("ETag", self.store.etag)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        sent = body[: self.store.cut.pop(0)] if self.store.cut and len(body) > 1 else body
        self.store.sent.append(len(sent))
        self.wfile.write(sent)


class QuietServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no fault of the test."""


def certificate(directory: Path) -> tuple[Path, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "store")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = built.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "server.pem").write_bytes(private + pem)
    return directory / "server.pem", pem.decode()


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[type[Handler], str, str]]:
    chain, pem = certificate(tmp_path_factory.mktemp("tls"))
    handler = type("StoreHandler", (Handler,), {"store": Store()})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server = QuietServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield handler, f"https://127.0.0.1:{server.server_port}/model.onnx?signature=s3cr3t", pem
    server.shutdown()
    thread.join()
    server.server_close()


V1 = SourcePin(kind="Conditional", value='"v1"')
NO_PIN = SourcePin(kind="None", value="sha256:" + hashlib.sha256(CONTENT).hexdigest())


def planned(name: str, content: bytes, pin: SourcePin = V1, **changes: Any) -> SourceFile:
    """A file as it was inspected, read whole."""
    digest = hashlib.sha256(content).hexdigest()
    return SourceFile(**({"name": name, "pin": pin, "size_bytes": len(content), "sha256": digest} | changes))


class Pod:
    """The ``fetch`` container: its plan, its volume and its termination message."""

    def __init__(self, directory: Path, store: Store, uri: str, pem: str) -> None:
        self.store = store
        self.directory = directory / "volume"
        self.destination = self.directory / "model.onnx"
        self.work = self.directory / ".onnx-operator-fetch"
        self.termination = directory / "termination"
        self.file = planned("model.onnx", CONTENT)
        self.plan = FetchPlan(
            uri=uri,
            model=ModelFiles(files=[self.file], model="model.onnx"),
            directory=str(self.directory),
            sources=SourceSettings(
                allowed_networks=["127.0.0.0/8"],
                https=HttpsSettings(ca_bundle=pem),
                connect_timeout_seconds=2,
                read_timeout_seconds=2,
            ),
        )
        self.environment: dict[str, str] = {}

    def fetch(self, *, retries: Retries = PATIENT, **changes: Any) -> int:
        """Run fetch; ``changes`` of the one file, or ``model`` or other fields of the plan."""
        of_plan = {name: changes.pop(name) for name in list(changes) if name in FetchPlan.model_fields}
        model = ModelFiles(files=[self.file.model_copy(update=changes)], model="model.onnx")
        plan = self.plan.model_copy(update={"model": model} | of_plan)
        self.environment |= plan.to_variables()
        return run(self.environment, retries)

    @property
    def message(self) -> Any:
        return json.loads(self.termination.read_text())

    def left(self) -> set[str]:
        """Files in the volume."""
        return {str(p.relative_to(self.directory)) for p in self.directory.rglob("*") if p.is_file()}


@pytest.fixture
def pod(tmp_path: Path, origin: tuple[type[Handler], str, str], monkeypatch: pytest.MonkeyPatch) -> Pod:
    handler, uri, pem = origin
    handler.store = Store()
    monkeypatch.setenv("ONNX_TERMINATION_LOG", str(tmp_path / "termination"))
    return Pod(tmp_path, handler.store, uri, pem)


def test_the_model_arrives_whole_and_verified(pod: Pod) -> None:
    assert pod.fetch() == 0
    assert pod.destination.read_bytes() == CONTENT
    assert pod.left() == {"model.onnx"}
    assert pod.message == {"phase": "Downloading", "message": ""}
    assert pod.store.requests[0]["if-match"] == '"v1"'


def test_what_is_already_there_is_not_fetched_again(pod: Pod) -> None:
    assert pod.fetch() == 0
    count = len(pod.store.requests)
    assert pod.fetch() == 0
    assert len(pod.store.requests) == count
    pod.destination.write_bytes(b"x" + CONTENT[1:])
    assert pod.fetch() == 0
    assert pod.destination.read_bytes() == CONTENT


def test_a_file_whose_digest_nobody_knows_is_not_fetched_again_either(pod: Pod) -> None:
    assert pod.fetch(sha256="") == 0
    count = len(pod.store.requests)
    assert pod.fetch(sha256="") == 0
    assert len(pod.store.requests) == count


LARGE = bytes(range(256)) * (3 << 14)
"""More than one part."""


def test_an_interrupted_download_is_continued(pod: Pod) -> None:
    pod.store.content, pod.file = LARGE, planned("model.onnx", LARGE)
    folder = pod.work / "file-0"
    folder.mkdir(parents=True)
    script = (
        "import os, sys; from pathlib import Path; from onnx_operator.model.sources.parts import PartsFile\n"
        "from onnx_operator.server.fetching import fetch; import onnx_operator.model.sources.parts as parts\n"
        "write = PartsFile.complete\n"
        "def complete(self, part):\n    write(self, part); os._exit(9)\n"
        "PartsFile.complete = complete\n"
        "fetch.run(dict(os.environ), fetch.Retries())\n"
    )
    plan = pod.plan.model_copy(update={"model": ModelFiles(files=[pod.file], model="model.onnx")})
    environment = os.environ | plan.to_variables() | {"PYTHONPATH": "operator"}
    killed = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert killed.returncode == 9
    assert not pod.destination.exists()
    pod.store.sent.clear()
    assert pod.fetch() == 0
    assert pod.destination.read_bytes() == LARGE
    assert sum(pod.store.sent) < len(LARGE)


def test_a_beginning_of_other_bytes_is_not_kept(pod: Pod) -> None:
    folder = pod.work / "file-0"
    folder.mkdir(parents=True)
    (folder / "partial").write_bytes(b"another model" * 1000)
    assert pod.fetch() == 0
    assert pod.destination.read_bytes() == CONTENT


def test_without_a_pin_every_try_starts_afresh(pod: Pod) -> None:
    pod.store.etag = None
    folder = pod.work / "file-0"
    folder.mkdir(parents=True)
    (folder / "partial").write_bytes(CONTENT[:4_000_000])
    assert pod.fetch(pin=NO_PIN) == 0
    assert sum(pod.store.sent) == len(CONTENT)
    assert pod.destination.read_bytes() == CONTENT


def test_without_a_pin_the_digest_that_was_seen_is_proven_even_if_it_is_not_planned(pod: Pod) -> None:
    pod.store.etag, pod.store.content = None, CONTENT[::-1]
    assert pod.fetch(pin=NO_PIN, sha256="") == 1
    assert pod.message["reason"] == "SourceChanged"


def test_a_connection_that_breaks_is_taken_up_again(pod: Pod) -> None:
    pod.store.cut = [1_500_000, 1_500_000]
    assert pod.fetch() == 0
    assert pod.destination.read_bytes() == CONTENT


def test_a_store_that_comes_back_is_waited_for(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    pod.store.refuse = [503] * 4
    assert pod.fetch() == 0
    assert pod.destination.read_bytes() == CONTENT


def test_another_version_is_reported_with_its_pin(pod: Pod) -> None:
    pod.store.etag, pod.store.content = '"v2"', CONTENT[::-1]
    assert pod.fetch() == 1
    assert pod.message["reason"] == "SourceChanged"
    assert pod.message["observed"] == {"kind": "Conditional", "value": '"v2"'}
    assert pod.left() == set()
    assert "s3cr3t" not in json.dumps(pod.message)


@pytest.mark.parametrize("pinned", [True, False])
def test_other_bytes_under_the_same_pin_are_reported_with_their_digest(pod: Pod, pinned: bool) -> None:
    pod.store.content = CONTENT[::-1]
    if not pinned:
        pod.store.etag = None
    assert pod.fetch(**({} if pinned else {"pin": NO_PIN})) == 1
    digest = hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert pod.message["reason"] == "SourceChanged"
    assert pod.message["observed"] == {"kind": "None", "value": f"sha256:{digest}"}
    assert "other bytes than were inspected" in pod.message["message"]
    assert "s3cr3t" not in pod.message["message"]
    assert pod.left() == set()


def test_a_file_that_grew_is_not_written_beyond_what_was_planned(pod: Pod) -> None:
    pod.store.etag, pod.store.content = None, CONTENT * 3
    assert pod.fetch(pin=NO_PIN) == 1
    assert pod.message["reason"] == "SourceChanged"
    assert "observed" not in pod.message
    assert f"holds {len(CONTENT) * 3} bytes" in pod.message["message"]
    assert pod.left() == set()


@pytest.mark.parametrize(
    ("pin", "claimed"), [(V1, True), (SourcePin(kind="Immutable", value="v1"), False)], ids=["claimed", "immutable"]
)
def test_a_version_that_never_had_the_planned_digest_is_a_mismatch_and_not_fetched_again(
    pod: Pod, pin: SourcePin, claimed: bool
) -> None:
    wrong = "ab" * 32
    assert pod.fetch(sha256=wrong, claimed=claimed, pin=pin) == 1
    assert pod.message["reason"] == "DigestMismatch"
    assert wrong in pod.message["message"]
    assert hashlib.sha256(CONTENT).hexdigest() in pod.message["message"]
    assert "s3cr3t" not in pod.message["message"]
    assert not pod.destination.exists()

    # The kubelet starts the container again and again.
    first, count = pod.message, len(pod.store.requests)
    assert pod.fetch(sha256=wrong, claimed=claimed, pin=pin) == 1
    assert pod.message == first
    assert len(pod.store.requests) == count


def test_a_claimed_digest_that_is_right_is_proven(pod: Pod) -> None:
    assert pod.fetch(claimed=True) == 0
    assert pod.destination.read_bytes() == CONTENT


def test_of_another_version_it_is_not_said_that_its_digest_is_wrong(pod: Pod) -> None:
    pod.store.etag, pod.store.content = '"v2"', CONTENT[::-1]
    assert pod.fetch(claimed=True) == 1
    assert pod.message["reason"] == "SourceChanged"


@pytest.mark.parametrize(("status", "reason"), [(403, "SourceUnauthorized"), (404, "SourceNotFound")])
def test_what_cannot_get_better_is_not_tried_again(pod: Pod, status: int, reason: str) -> None:
    pod.store.refuse = [status] * 20
    assert pod.fetch() == 1
    assert len(pod.store.requests) == 1
    assert pod.message["reason"] == "DownloadFailed"
    assert pod.message["message"].startswith(f"{reason}: ")
    assert "s3cr3t" not in pod.message["message"]


def test_a_loopback_address_needs_the_settings_consent(pod: Pod) -> None:
    sources = pod.plan.sources.model_copy(update={"allowed_networks": []})
    assert pod.fetch(sources=sources) == 1
    assert pod.store.requests == []
    assert pod.message["message"].startswith("SourceRefused: ")


def test_credentials_are_used_once_and_gone(pod: Pod) -> None:
    hosts = pod.plan.uri.split("/")[2]
    pod.environment |= {
        "HTTPS_BEARER_TOKEN": "t0ken",
        "HTTPS_HOSTS": hosts,
        "AWS_SECRET_ACCESS_KEY": "other",
        "HOME": "/",
    }
    assert pod.fetch() == 0
    assert pod.store.requests[0]["authorization"] == "Bearer t0ken"
    assert set(pod.environment) == {"ONNX_FETCH_PLAN", "HOME"}


def test_a_workload_identity_keeps_its_variables_and_gets_no_credentials(pod: Pod) -> None:
    plan = pod.plan.model_copy(update={"uri": "az://models/m.onnx", "workload_identity": True})
    identity = {"AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "t", "AZURE_FEDERATED_TOKEN_FILE": "/var/run/token"}
    environment = {**plan.to_variables(), **identity, "HF_TOKEN": "other"}
    assert take_credentials(environment) == {}
    assert environment == {**plan.to_variables(), **identity}


def test_credentials_are_removed_even_without_a_plan() -> None:
    environment = {"AWS_ACCESS_KEY_ID": "a", "HTTPS_PASSWORD": "b"}
    assert take_credentials(environment) == {}
    assert environment == {}


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (None, "ONNX_FETCH_PLAN is not set"),
        ("{", "ONNX_FETCH_PLAN is not a fetch plan: : Invalid JSON"),
        ('{"uri": "https://h/m"}', "model: Field required"),
    ],
)
def test_a_missing_or_broken_plan_is_told(pod: Pod, plan: str | None, words: str) -> None:
    environment = {} if plan is None else {"ONNX_FETCH_PLAN": plan}
    assert run(environment, PATIENT) == 1
    assert pod.message["reason"] == "DownloadFailed"
    assert words in pod.message["message"]


def test_a_volume_that_cannot_be_written_is_told(pod: Pod) -> None:
    assert pod.fetch(directory="/proc/nowhere") == 1
    assert "cannot write to /proc/nowhere" in pod.message["message"]


def test_progress_is_told_now_and_then_and_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    times = iter([0.0, 0.5, 2.5, 3.0, 3.5])
    progress = Progress("downloading", 8_000_000, lambda: next(times))
    for received in (1_000_000, 6_000_000, 7_000_000, 8_000_000):
        progress(received, 8_000_000)
    fields = [record.__dict__["fields"] for record in caplog.records]
    assert fields == [
        {"bytes": 6_000_000, "percent": 75.0, "megabytesPerSecond": 2.0},
        {"bytes": 8_000_000, "percent": 100.0, "megabytesPerSecond": 2.0},
    ]


def test_progress_counts_all_files_together(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    times = iter([0.0, 1.0, 3.0])
    progress = Progress("downloading", 8_000_000, lambda: next(times))
    progress(2_000_000)
    progress.advance(4_000_000)
    progress(2_000_000)
    assert [r.__dict__["fields"]["percent"] for r in caplog.records] == [75.0]


# --- several files ----------------------------------------------------------------------------------------------------

WEIGHTS = {"weights/a.bin": b"a" * 300_000, "weights/deep/b.bin": b"b" * 5, "empty.bin": b""}


def several(pod: Pod, **changes: Any) -> ModelFiles:
    """A model with its weights in other files, which the store holds."""
    pod.store.others = dict(WEIGHTS)
    pod.plan = pod.plan.model_copy(update={"uri": pod.plan.uri.split("?")[0]})
    files = [pod.file, *(planned(name, content) for name, content in WEIGHTS.items())]
    return ModelFiles(**({"files": files, "model": "model.onnx"} | changes))


def test_all_files_of_a_model_arrive_under_their_names(pod: Pod, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert pod.fetch(model=several(pod)) == 0
    assert pod.left() == {"model.onnx", *WEIGHTS}
    for name, content in WEIGHTS.items():
        assert (pod.directory / name).read_bytes() == content
    logged = {r.__dict__["fields"]["sha256"] for r in caplog.records if "sha256" in r.__dict__.get("fields", {})}
    assert logged == {hashlib.sha256(content).hexdigest() for content in (CONTENT, *WEIGHTS.values())}


def test_folders_that_a_path_only_passes_through_are_there(pod: Pod) -> None:
    assert pod.fetch(model=several(pod, folders=["passed/through"])) == 0
    assert (pod.directory / "passed/through/../../model.onnx").is_file()
    assert pod.fetch(model=several(pod, folders=["../outside"])) != 0
    assert not (pod.directory.parent / "outside").exists()


def test_only_the_files_that_are_missing_are_fetched(pod: Pod) -> None:
    model = several(pod)
    assert pod.fetch(model=model) == 0
    pod.store.paths.clear()
    (pod.directory / "weights/a.bin").write_bytes(b"x" * 300_000)
    assert pod.fetch(model=model) == 0
    assert set(pod.store.paths) == {"/weights/a.bin"}
    assert (pod.directory / "weights/a.bin").read_bytes() == WEIGHTS["weights/a.bin"]


def test_a_file_beside_the_model_that_changed_is_named(pod: Pod) -> None:
    model = several(pod)
    pod.store.others["weights/a.bin"] = b"c" * 300_000
    assert pod.fetch(model=model) == 1
    assert pod.message["reason"] == "SourceChanged"
    assert "weights/a.bin" in pod.message["message"]
    assert not (pod.directory / "weights/a.bin").exists()


@pytest.mark.parametrize("name", ["../x.bin", "/etc/x", "a//b", "a/../../b", ".", "a\\b", ".onnx-operator-fetch/x"])
def test_no_file_is_written_outside_the_models_folder(pod: Pod, name: str) -> None:
    model = several(pod)
    files = [*model.files, planned(name, b"x")]
    assert pod.fetch(model=model.model_copy(update={"files": files})) == 1
    assert pod.message["reason"] == "DownloadFailed"
    assert "leads out of the model's folder" in pod.message["message"]
    assert pod.store.requests == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "other.onnx"}, "other.onnx"),
        ({"archive": True}, "one archive"),
        ({"files": [planned("model.onnx", CONTENT)] * 2}, "twice"),
    ],
    ids=["model", "archive", "twice"],
)
def test_a_plan_that_contradicts_itself_is_told(pod: Pod, changes: dict[str, Any], words: str) -> None:
    assert pod.fetch(model=several(pod, **changes)) == 1
    assert words in pod.message["message"]


def test_a_model_on_a_mounted_claim_is_copied_and_proven(pod: Pod, tmp_path: Path) -> None:
    claim = tmp_path / "claim"
    (claim / "v1" / "weights" / "deep").mkdir(parents=True)
    model = several(pod)
    for name, content in {"model.onnx": CONTENT, **WEIGHTS}.items():
        (claim / "v1" / name).write_bytes(content)
    pinned = [planned(f.name, b"", NO_PIN, size_bytes=f.size_bytes, sha256=f.sha256) for f in model.files]
    plan = pod.plan.model_copy(
        update={"uri": "pvc://models/v1/model.onnx", "model": model.model_copy(update={"files": pinned})}
    )
    assert run(plan.to_variables(), PATIENT, claim) == 0
    assert pod.left() == {"model.onnx", *WEIGHTS}
    assert (pod.directory / "weights/deep/b.bin").read_bytes() == WEIGHTS["weights/deep/b.bin"]

    (pod.directory / "model.onnx").unlink()
    (claim / "v1" / "model.onnx").write_bytes(CONTENT[::-1])
    assert run(plan.to_variables(), PATIENT, claim) == 1
    assert pod.message["reason"] == "SourceChanged"


# --- test data --------------------------------------------------------------------------------------------------------

TEST_DATA = {"testdata/input_0.pb": b"i" * 70_000, "testdata/output_0.pb": b"o" * 9}


def with_test_data(pod: Pod, uri: str = "", **changes: Any) -> DataPlan:
    """Test data beside the model, which the store holds."""
    pod.store.others = dict(TEST_DATA)
    pod.plan = pod.plan.model_copy(update={"uri": pod.plan.uri.split("?")[0]})
    files = [planned(name, content, V1) for name, content in TEST_DATA.items()]
    folder = uri or pod.plan.uri.replace("model.onnx", "testdata")
    return DataPlan(**({"uri": folder, "files": files, "directory": str(pod.directory.parent / "data")} | changes))


def test_test_data_arrives_in_a_folder_of_its_own_after_the_model(pod: Pod, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    data = with_test_data(pod)
    assert pod.fetch(test_data=data) == 0
    assert pod.left() == {"model.onnx"}
    for name, content in TEST_DATA.items():
        assert (Path(data.directory) / name).read_bytes() == content
    assert pod.store.paths[0] == "/model.onnx"
    progress = [r.__dict__["fields"]["percent"] for r in caplog.records if r.message == "downloading the test data"]
    assert progress[-1] == 100.0
    assert "the test data is complete" in caplog.text

    pod.store.paths.clear()
    assert pod.fetch(test_data=data) == 0
    assert pod.store.paths == []


def test_an_interrupted_download_of_test_data_is_continued(pod: Pod) -> None:
    data = with_test_data(pod)
    assert pod.fetch() == 0
    pod.store.cut = [30_000, 10_000]
    pod.store.paths.clear()
    assert pod.fetch(test_data=data) == 0
    assert "/model.onnx" not in pod.store.paths
    assert (Path(data.directory) / "testdata/input_0.pb").read_bytes() == TEST_DATA["testdata/input_0.pb"]


def test_test_data_that_changed_is_told_as_such_and_its_pin_is_not_the_models(pod: Pod) -> None:
    data = with_test_data(pod)
    pod.store.others["testdata/output_0.pb"] = b"p" * 9
    assert pod.fetch(test_data=data) == 1
    assert pod.message["reason"] == "SourceChanged"
    assert pod.message["message"].startswith("test data: ")
    assert "testdata/output_0.pb" in pod.message["message"]
    assert "observed" not in pod.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"files": [planned("../x.pb", b"x")]}, "leads out of the folder of the test data"),
        ({"directory": "SAME"}, "into the model's folder"),
    ],
    ids=["outside", "same folder"],
)
def test_test_data_never_touches_the_models_folder(pod: Pod, changes: dict[str, Any], words: str) -> None:
    if "directory" in changes:
        changes = {"directory": str(pod.directory)}
    assert pod.fetch(test_data=with_test_data(pod, **changes)) == 1
    assert words in pod.message["message"]
    assert pod.store.requests == []


def test_test_data_in_another_store_is_read_with_that_stores_credentials(pod: Pod) -> None:
    data = with_test_data(pod, "s3://testdata/set")
    plan = pod.plan.model_copy(update={"test_data": data})
    environment = {**plan.to_variables(), "HTTPS_BEARER_TOKEN": "t", "AWS_ACCESS_KEY_ID": "k", "HF_TOKEN": "other"}
    assert take_credentials(environment) == {"HTTPS_BEARER_TOKEN": "t", "AWS_ACCESS_KEY_ID": "k"}
    assert credentials_for("s3://testdata/set", {"HTTPS_BEARER_TOKEN": "t", "AWS_ACCESS_KEY_ID": "k"}) == {
        "AWS_ACCESS_KEY_ID": "k"
    }


# --- archives ---------------------------------------------------------------------------------------------------------

PACKED = {"export/model.onnx": b"model" * 1000, "export/weights.bin": b"w" * 200_000, "readme.txt": b"hello"}


def packed(kind: str, content: dict[str, bytes] = PACKED) -> bytes:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=file, mode="w:gz" if kind == "tar.gz" else "w") as tar:
            for name, data in content.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def archived(pod: Pod, kind: str = "zip", **changes: Any) -> ModelFiles:
    pod.store.content = packed(kind)
    size = sum(map(len, PACKED.values()))
    files = [planned("model.onnx", pod.store.content)]
    return ModelFiles(
        **({"files": files, "archive": True, "model": "export/model.onnx", "unpacked_bytes": size} | changes)
    )


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_is_unpacked_and_does_not_stay(pod: Pod, kind: str) -> None:
    assert pod.fetch(model=archived(pod, kind)) == 0
    assert pod.left() == {*PACKED, ".onnx-operator-fetch/unpacked"}
    for name, content in PACKED.items():
        assert (pod.directory / name).read_bytes() == content


def test_an_archive_that_was_unpacked_is_not_fetched_again(pod: Pod) -> None:
    model = archived(pod)
    assert pod.fetch(model=model) == 0
    count, before = len(pod.store.requests), pod.left()
    assert pod.fetch(model=model) == 0
    assert len(pod.store.requests) == count
    assert pod.left() == before


def test_an_archive_whose_unpacking_was_interrupted_is_unpacked_again_without_a_download(pod: Pod) -> None:
    model = archived(pod)
    pod.work.mkdir(parents=True)
    (pod.work / "archive").write_bytes(pod.store.content)
    (pod.directory / "export").mkdir()
    (pod.directory / "export" / "model.onnx").write_bytes(b"half")
    assert pod.fetch(model=model) == 0
    assert pod.store.requests == []
    assert (pod.directory / "export" / "model.onnx").read_bytes() == PACKED["export/model.onnx"]


def test_an_archive_that_holds_more_than_was_inspected_is_not_unpacked(pod: Pod) -> None:
    assert pod.fetch(model=archived(pod, unpacked_bytes=1000)) == 1
    assert pod.message["reason"] == "DownloadFailed"
    assert "TooLarge" in pod.message["message"]
    assert not (pod.directory / "export").exists()


def test_an_archive_without_the_planned_model_is_told(pod: Pod) -> None:
    assert pod.fetch(model=archived(pod, model="other/model.onnx")) == 1
    assert "other/model.onnx" in pod.message["message"]


# --- the process ------------------------------------------------------------------------------------------------------


def test_the_log_is_json_and_tells_how_far_it_is(pod: Pod) -> None:
    environment = {
        **pod.plan.to_variables(),
        "PYTHONPATH": "operator",
        "ONNX_TERMINATION_LOG": str(pod.termination),
        "HTTPS_BEARER_TOKEN": "t0ken",
        "HTTPS_HOSTS": pod.plan.uri.split("/")[2],
        "PATH": os.environ["PATH"],
    }
    result = subprocess.run(
        [sys.executable, "-m", "onnx_operator.server", "fetch"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert [line["percent"] for line in lines if "percent" in line][-1] == 100.0
    assert [line["sha256"] for line in lines if "sha256" in line] == [hashlib.sha256(CONTENT).hexdigest()]
    assert lines[-1]["bytes"] == len(CONTENT)
    assert "t0ken" not in result.stderr
    assert "s3cr3t" not in result.stderr
