"""A certificate authority of our own, and an HTTPS server that keeps connections and fails on command."""

import asyncio
import datetime
import ipaddress
import json
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.model.sources.base import Source, Stream


@dataclass
class Authority:
    pem: str
    server: ssl.SSLContext
    chain: Path
    """File with the server's key and certificate."""


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> "Authority":
    """Whoever vouches for the servers of a test; conftests import it."""
    return make_authority(tmp_path_factory.mktemp("authority"))


def make_authority(folder: Path, *hosts: str) -> Authority:
    """An authority that vouches for this machine, and for servers of further names."""
    now = datetime.datetime.now(datetime.UTC)

    def build(subject: str, key, issuer: str, signer, *extensions) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(signer, hashes.SHA256())

    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = build("test root", root_key, "test root", root_key, (x509.BasicConstraints(True, None), True))
    names = x509.SubjectAlternativeName(
        [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
            *map(x509.DNSName, hosts),
        ]
    )
    leaf = build("localhost", key, "test root", root_key, (names, False))
    chain = folder / "server.pem"
    chain.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + leaf.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return Authority(root.public_bytes(serialization.Encoding.PEM).decode(), context, chain)


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    writer: asyncio.StreamWriter
    complete: bool = False
    """Whether the answer was one after which a connection can serve another request."""

    async def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        sent = {"Content-Length": str(len(body)), **(headers or {})}
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in sent.items())]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await self.writer.drain()
        self.complete = sent["Content-Length"] == str(len(body)) and "Connection" not in sent

    async def answer_json(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        await self.answer(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(content).encode())

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def start(self) -> int:
        """First byte asked for."""
        text = self.headers.get("range", "bytes=0-")
        return int(text.removeprefix("bytes=").partition("-")[0])

    def stop(self, size: int) -> int:
        """Behind the last byte asked for, of a file of this size."""
        last = self.headers.get("range", "bytes=0-").rpartition("-")[2]
        return min(size, int(last) + 1) if last else size


Handler = Callable[[Request], Awaitable[None]]


@dataclass
class Server:
    """Answers requests by ``handler``; closes a connection after an answer that was not complete."""

    handler: Handler
    tls: ssl.SSLContext | None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    async def __aenter__(self) -> "Server":
        self._tasks: set[asyncio.Task] = set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        self.connections += 1
        try:
            with suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
                complete = True
                while complete:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    first, *lines = head.split("\r\n")
                    method, target, _ = first.split(" ")
                    pairs = (line.partition(":") for line in lines if line)
                    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
                    request = Request(method, target, headers, writer)
                    self.requests.append(request)
                    await self.handler(request)
                    complete = request.complete
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()


@dataclass
class FileServer:
    """Serves one file with ranges and conditions, as far as it is told to."""

    body: bytes
    etag: str | None = '"v1"'
    ranges: bool = True
    conditions: bool = True
    extra: dict[str, str] = field(default_factory=dict)

    async def __call__(self, request: Request) -> None:
        headers = dict(self.extra) | ({"ETag": self.etag} if self.etag else {})
        assert request.method == "GET", "presigned links answer nothing else"
        if self.conditions and request.headers.get("if-match", self.etag) != self.etag:
            return await request.answer(412)
        if "range" not in request.headers or not self.ranges:
            return await request.answer(200, headers, self.body)
        start = request.start()
        if start >= len(self.body):
            return await request.answer(416, headers | {"Content-Range": f"bytes */{len(self.body)}"})
        end = request.stop(len(self.body))
        span = f"bytes {start}-{end - 1}/{len(self.body)}"
        return await request.answer(206, headers | {"Content-Range": span}, self.body[start:end])


def settings(authority: Authority | None = None, **changes) -> SourceSettings:
    values = {
        "allowed_networks": ["127.0.0.0/8", "::1/128"],
        "https": {"ca_bundle": authority.pem if authority else ""},
        "connect_timeout_seconds": 2.0,
        "read_timeout_seconds": 0.4,
    }
    return SourceSettings.model_validate(values | changes)


async def read(
    source: Source, name: str, begin: int = 0, end: int | None = None, pin: SourcePin | None = None
) -> tuple[bytes, Stream]:
    """All bytes of one stream, and what was told about it."""
    async with source.open(name, begin, end, pin=pin) as stream:
        return b"".join([bytes(piece) async for piece in stream.pieces]), stream
