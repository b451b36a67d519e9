"""An HTTPS server that misbehaves on purpose, reachable from pods: the first part of the path says how."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
import threading
import time
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.cluster.layout import HOST_ADDRESS, STATE

_FOLDER = STATE / "e2e"
_HANG_SECONDS = 60


@dataclass(frozen=True)
class Authority:
    """A certificate of this host, signed by itself; trusted by the operator that the tests install."""

    certificate: Path
    key: Path

    @property
    def certificate_pem(self) -> str:
        """The certificate, as the setting caBundle takes it."""
        return self.certificate.read_text()


@cache
def authority() -> Authority:
    """The certificate; made once and kept, since the installed operator trusts it."""
    certificate, key = _FOLDER / "tls.crt", _FOLDER / "tls.key"
    if not certificate.exists():
        _FOLDER.mkdir(parents=True, exist_ok=True)
        private = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fault server")])
        now = datetime.datetime.now(datetime.UTC)
        signed = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=3650))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST_ADDRESS))]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), False)
            .sign(private, hashes.SHA256())
        )
        key.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        # Last: its presence says that the pair is complete.
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return Authority(certificate, key)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, bytes]] = {}
    broken: ClassVar[dict[str, str]] = {}

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        behaviour, _, name = self.path.lstrip("/").partition("/")
        behaviour = self.broken.get(name, behaviour)
        content = self.files.get(name, b"")
        match behaviour:
            case "status-403" | "status-404" | "status-500":
                self._head(int(behaviour[-3:]), 0)
            case "hang":
                time.sleep(_HANG_SECONDS)
                self.close_connection = True
            case "redirect-link-local":
                self._head(302, 0, Location="https://169.254.169.254/latest/meta-data/model.onnx")
            case "short":
                self._head(200, len(content) + 1000, ETag='"short"')
                self.wfile.write(content if with_body else b"")
                self.close_connection = True
            case "no-etag":
                self._head(200, len(content))
                self.wfile.write(content if with_body else b"")
            case _:
                etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
                if self.headers.get("If-Match", etag) != etag:
                    self._head(412, 0)
                    return
                self._head(200, len(content), ETag=etag)
                self.wfile.write(content if with_body else b"")

    def _head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what the tests are about."""


class FaultServer:
    """The server; ``url(behaviour, name)`` is an address that behaves so."""

    NETWORK = f"{HOST_ADDRESS}/32"

    def __init__(self) -> None:
        class Handler(_Handler):
            files: ClassVar[dict[str, bytes]] = {}
            broken: ClassVar[dict[str, str]] = {}

        self._handler = Handler
        self._server = _Server((HOST_ADDRESS, 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority().certificate, authority().key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> FaultServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def put(self, name: str, content: bytes) -> None:
        """What a file of this name holds."""
        self._handler.files[name] = content

    def behave(self, name: str, behaviour: str | None) -> None:
        """Have a file behave otherwise than its address says; None: as its address says."""
        if behaviour is None:
            self._handler.broken.pop(name, None)
        else:
            self._handler.broken[name] = behaviour

    def url(self, behaviour: str, name: str) -> str:
        """The address of a file that is served in this manner."""
        return f"https://{HOST_ADDRESS}:{self._server.server_address[1]}/{behaviour}/{name}"

    @staticmethod
    def unique(name: str) -> str:
        """A file name that no other test uses."""
        return f"{name}-{os.urandom(4).hex()}.onnx"
