"""Object stores as single processes on this machine: S3, Google Cloud Storage, Azure Blob Storage."""

from __future__ import annotations

import base64
import datetime
import email.utils
import hashlib
import hmac
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote

from obstore.store import AzureStore, S3Store

from tests.cluster.errors import ClusterError

KEY_ID, SECRET = "root-key", "root-secret"
REGION = "us-east-1"
ACCOUNT, OTHER_ACCOUNT = "ours", "theirs"
ACCOUNT_KEY = base64.b64encode(b"the key of both accounts").decode()


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def running(command: list[str], url: str, env: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run a server until the end of the block, which begins when ``url`` answers, whatever it says."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **(env or {})}
    ) as process:
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    urllib.request.urlopen(url, timeout=5).close()
                    break
                except urllib.error.HTTPError as error:
                    error.close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise ClusterError(f"{command[0]} does not answer at {url}") from None
                    time.sleep(0.05)
            yield
        finally:
            process.terminate()


def send(method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Send a request and return the answer's body."""
    request = urllib.request.Request(url, body or None, dict(headers), method=method)
    with urllib.request.urlopen(request, timeout=20) as response:
        return bytes(response.read())


@dataclass
class S3Gateway:
    """versitygw over a folder."""

    endpoint: str
    folder: Path

    @staticmethod
    @contextmanager
    def serve(program: Path, folder: Path, versions: Path) -> Iterator[S3Gateway]:
        """Run it over ``folder``; buckets with versioning keep old versions in ``versions``."""
        found = S3Gateway(f"http://127.0.0.1:{free_port()}", folder)
        address = found.endpoint.removeprefix("http://")
        keys = ["--access", KEY_ID, "--secret", SECRET, "--region", REGION]
        posix = ["posix", "--versioning-dir", str(versions), str(folder)]
        with running([str(program), *keys, "--port", address, *posix], found.endpoint):
            yield found

    def make_bucket(self, name: str) -> S3Store:
        """Make a bucket and return obstore's view of it."""
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
        scope = f"{day}/{REGION}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{SECRET}".encode()
        for part in (day, REGION, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        authorization = f"AWS4-HMAC-SHA256 Credential={KEY_ID}/{scope}, SignedHeaders={names}, Signature={signature}"
        url = self.endpoint + path + (f"?{query}" if query else "")
        send(method, url, signed | {"Authorization": authorization}, body)


@dataclass
class GcsServer:
    """fake-gcs-server, which keeps all in memory."""

    endpoint: str

    @staticmethod
    @contextmanager
    def serve(program: Path) -> Iterator[GcsServer]:
        """Run it."""
        port = free_port()
        found = GcsServer(f"http://127.0.0.1:{port}")
        where = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]
        with running([str(program), *where, "-backend", "memory"], found.endpoint):
            yield found

    def make_bucket(self, name: str, *, versioning: bool = False) -> None:
        """Make a bucket."""
        body = json.dumps({"name": name, "versioning": {"enabled": versioning}}).encode()
        send("POST", f"{self.endpoint}/storage/v1/b", {"Content-Type": "application/json"}, body)

    def put(self, bucket: str, key: str, body: bytes) -> None:
        """Write an object; obstore's own way fails at this server."""
        url = f"{self.endpoint}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(key, safe='')}"
        send("POST", url, {"Content-Type": "application/octet-stream"}, body)


@dataclass
class Azurite:
    """Azurite with two accounts that have the same key."""

    endpoint: str

    @staticmethod
    @contextmanager
    def serve(command: list[str], folder: Path) -> Iterator[Azurite]:
        """Run it over ``folder``."""
        port = free_port()
        found = Azurite(f"http://127.0.0.1:{port}")
        where = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)]
        quiet = ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
        accounts = f"{ACCOUNT}:{ACCOUNT_KEY};{OTHER_ACCOUNT}:{ACCOUNT_KEY}"
        with running([*command, *where, *quiet], found.endpoint, {"AZURITE_ACCOUNTS": accounts}):
            yield found

    def make_container(self, name: str, account: str = ACCOUNT, *, public: bool = False) -> AzureStore:
        """Make a container, which anyone may read if ``public``, and return obstore's view of it."""
        self.request(
            "PUT", account, f"/{name}", "restype=container", {"x-ms-blob-public-access": "blob"} if public else {}
        )
        return AzureStore(
            name,
            config={"account_name": account, "account_key": ACCOUNT_KEY, "endpoint": f"{self.endpoint}/{account}"},
            client_options={"allow_http": True},
        )

    def request(self, method: str, account: str, path: str, query: str, more: Mapping[str, str]) -> None:
        """Send what obstore has no call for, signed with the account's key."""
        headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2023-11-03", **more}
        lines = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
        resource = f"/{account}/{account}{path}" + "".join(f"\n{n}:{v}" for n, v in sorted(parse_qsl(query)))
        text = method + "\n" * 12 + lines + resource
        signature = base64.b64encode(hmac.digest(base64.b64decode(ACCOUNT_KEY), text.encode(), "sha256")).decode()
        url = f"{self.endpoint}/{account}{path}?{query}"
        send(method, url, {**headers, "Authorization": f"SharedKey {account}:{signature}"})


def sas_token(account: str, container: str, blob: str) -> str:
    """A token that lets its bearer read one blob for an hour."""
    expiry = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    version, resource = "2020-12-06", f"/blob/{account}/{container}/{blob}"
    fields = ["r", "", expiry, resource, "", "", "", version, "b", "", "", "", "", "", "", ""]
    signature = base64.b64encode(hmac.digest(base64.b64decode(ACCOUNT_KEY), "\n".join(fields).encode(), "sha256"))
    return f"sv={version}&sr=b&sp=r&se={quote(expiry)}&sig={quote(signature.decode(), safe='')}"
