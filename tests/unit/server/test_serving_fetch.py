"""The pod holds exactly the bytes that were inspected, or says why not."""

import datetime
import hashlib
import http.server
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from onnx_operator.api.contract import FetchPlan
from onnx_operator.api.sources import HttpsSettings, SourcePin, SourceSettings
from onnx_operator.server.fetch import Progress, Retries, run, take_credentials

CONTENT = bytes(range(256)) * 20_000
PATIENT = Retries(attempts=4, first_delay=0.05)


class Store:
    """One file behind HTTPS, with faults on demand."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.etag: str | None = '"v1"'
        self.refuse: list[int] = []
        """Status codes of the next answers."""
        self.cut: list[int] = []
        """The next answers end after so many bytes."""
        self.requests: list[dict[str, str]] = []
        self.sent: list[int] = []


class Handler(http.server.BaseHTTPRequestHandler):
    store: Store
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        store = self.store
        store.requests.append({k.lower(): v for k, v in self.headers.items()})
        self.close_connection = True
        if store.refuse:
            self.answer(store.refuse.pop(0), b"")
        elif self.headers.get("If-Match") not in (None, store.etag):
            self.answer(412, b"")
        else:
            start, end, status = 0, len(store.content), 200
            if wanted := self.headers.get("Range"):
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, status = int(first), 206
                end = min(end, int(last) + 1) if last else end
                if start >= len(store.content):
                    self.answer(416, b"", {"Content-Range": f"bytes */{len(store.content)}"})
                    return
            headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(store.content)}"} if status == 206 else {}
            self.answer(status, store.content[start:end], headers)

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


class Pod:
    """The ``fetch`` container: its plan, its volume and its termination message."""

    def __init__(self, directory: Path, store: Store, uri: str, pem: str) -> None:
        self.store = store
        self.directory = directory
        self.destination = directory / "volume" / "model.onnx"
        self.partial = directory / "volume" / "model.onnx.partial"
        self.termination = directory / "termination"
        self.plan = FetchPlan(
            uri=uri,
            pin=SourcePin(kind="Conditional", value='"v1"'),
            sha256=hashlib.sha256(CONTENT).hexdigest(),
            size_bytes=len(CONTENT),
            destination=str(self.destination),
            sources=SourceSettings(
                allowed_networks=["127.0.0.0/8"],
                https=HttpsSettings(ca_bundle=pem),
                connect_timeout_seconds=2,
                read_timeout_seconds=2,
            ),
        )
        self.environment: dict[str, str] = {}

    def fetch(self, **changes: Any) -> int:
        plan = self.plan.model_copy(update=changes)
        self.environment["ONNX_FETCH_PLAN"] = plan.model_dump_json(by_alias=True)
        return run(self.environment, PATIENT)

    @property
    def message(self) -> Any:
        return json.loads(self.termination.read_text())


@pytest.fixture
def pod(tmp_path: Path, origin: tuple[type[Handler], str, str], monkeypatch: pytest.MonkeyPatch) -> Pod:
    handler, uri, pem = origin
    handler.store = Store()
    monkeypatch.setenv("ONNX_TERMINATION_LOG", str(tmp_path / "termination"))
    return Pod(tmp_path, handler.store, uri, pem)


NO_PIN = SourcePin(kind="None", value="sha256:" + hashlib.sha256(CONTENT).hexdigest())


def test_the_model_arrives_whole_and_verified(pod: Pod) -> None:
    assert pod.fetch() == 0
    assert pod.destination.read_bytes() == CONTENT
    assert not pod.partial.exists()
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


def test_an_interrupted_download_is_continued(pod: Pod) -> None:
    pod.partial.parent.mkdir()
    pod.partial.write_bytes(CONTENT[:4_000_000])
    assert pod.fetch() == 0
    assert pod.destination.read_bytes() == CONTENT
    assert sum(pod.store.sent) == len(CONTENT) - 4_000_000


def test_a_beginning_of_other_bytes_is_not_kept(pod: Pod) -> None:
    pod.partial.parent.mkdir()
    pod.partial.write_bytes(b"another model" * 1000)
    assert pod.fetch() == 0
    assert pod.destination.read_bytes() == CONTENT


def test_without_a_pin_every_try_starts_afresh(pod: Pod) -> None:
    pod.store.etag = None
    pod.partial.parent.mkdir()
    pod.partial.write_bytes(CONTENT[:4_000_000])
    assert pod.fetch(pin=NO_PIN) == 0
    assert sum(pod.store.sent) == len(CONTENT)
    assert pod.destination.read_bytes() == CONTENT


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
    assert not pod.destination.exists()
    assert not pod.partial.exists()
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
    assert not pod.destination.exists()
    assert not pod.partial.exists()


def test_a_file_that_grew_is_not_written_beyond_what_was_planned(pod: Pod) -> None:
    pod.store.etag, pod.store.content = None, CONTENT * 3
    assert pod.fetch(pin=NO_PIN) == 1
    assert pod.message["reason"] == "SourceChanged"
    assert "observed" not in pod.message
    assert f"holds {len(CONTENT) * 3} bytes" in pod.message["message"]
    assert not pod.partial.exists()


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
    pod.environment |= {"HTTPS_BEARER_TOKEN": "t0ken", "AWS_SECRET_ACCESS_KEY": "other", "HOME": "/"}
    assert pod.fetch() == 0
    assert pod.store.requests[0]["authorization"] == "Bearer t0ken"
    assert set(pod.environment) == {"ONNX_FETCH_PLAN", "HOME"}


def test_credentials_are_removed_even_without_a_plan() -> None:
    environment = {"AWS_ACCESS_KEY_ID": "a", "HTTPS_PASSWORD": "b"}
    assert take_credentials(environment) == {}
    assert environment == {}


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (None, "ONNX_FETCH_PLAN is not set"),
        ("{", "ONNX_FETCH_PLAN is not a fetch plan: : Invalid JSON"),
        ('{"uri": "https://h/m"}', "pin: Field required"),
    ],
)
def test_a_missing_or_broken_plan_is_told(pod: Pod, plan: str | None, words: str) -> None:
    environment = {} if plan is None else {"ONNX_FETCH_PLAN": plan}
    assert run(environment, PATIENT) == 1
    assert pod.message["reason"] == "DownloadFailed"
    assert words in pod.message["message"]


def test_a_volume_that_cannot_be_written_is_told(pod: Pod) -> None:
    assert pod.fetch(destination="/proc/nowhere/model.onnx") == 1
    assert "cannot write /proc/nowhere/model.onnx" in pod.message["message"]


def test_progress_is_told_now_and_then_and_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    times = iter([0.0, 0.5, 2.5, 3.0, 3.5])
    progress = Progress(8_000_000, lambda: next(times))
    for received in (1_000_000, 6_000_000, 7_000_000, 8_000_000):
        progress(received, 8_000_000)
    fields = [record.__dict__["fields"] for record in caplog.records]
    assert fields == [
        {"bytes": 6_000_000, "percent": 75.0, "megabytesPerSecond": 2.0},
        {"bytes": 8_000_000, "percent": 100.0, "megabytesPerSecond": 2.0},
    ]


def test_the_log_is_json_and_tells_how_far_it_is(pod: Pod) -> None:
    import os
    import subprocess
    import sys

    environment = {
        "PYTHONPATH": "operator",
        "ONNX_FETCH_PLAN": pod.plan.model_dump_json(by_alias=True),
        "ONNX_TERMINATION_LOG": str(pod.termination),
        "HTTPS_BEARER_TOKEN": "t0ken",
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
    assert lines[-2]["percent"] == 100.0
    assert lines[-1]["bytes"] == len(CONTENT)
    assert "t0ken" not in result.stderr
    assert "s3cr3t" not in result.stderr
