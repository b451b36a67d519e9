"""The ``oci`` source and a real registry that takes tokens: from a service that gives them as Docker specifies."""

import base64
import hashlib
import json
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources import SourceError, open_source
from tests.cluster import servers
from tests.cluster.fixtures import built_program
from tests.unit.model.webkit import Authority, read

MODEL = os.urandom(1_000_000)
ISSUER, SERVICE, USER, PASSWORD = "our issuer", "our registry", "reader", "s3cret"


def plain(data: bytes | dict) -> str:
    text = json.dumps(data).encode() if isinstance(data, dict) else data
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


@dataclass
class TokenService:
    """Signs what the one account asks for; everybody may read what lies in ``public/``."""

    chain: Path
    seconds: int = 300
    """How long a token is valid."""
    asked: list[dict[str, list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        pem = self.chain.read_bytes()
        key = serialization.load_pem_private_key(pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.key, self.certificate = key, x509.load_pem_x509_certificate(pem)

    def give(self, query: dict[str, list[str]], authorization: str | None) -> str | None:
        self.asked.append(query)
        known = authorization == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if authorization and not known:
            return None
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            allowed = actions.split(",") if known else ["pull"] if name.startswith("public/") else []
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": USER, "aud": SERVICE, "nbf": now - 60, "iat": now, "exp": now + self.seconds}
        der = base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()
        signed = f"{plain({'typ': 'JWT', 'alg': 'ES256', 'x5c': [der]})}.{plain({**claims, 'access': access})}"
        numbers = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{plain(b''.join(number.to_bytes(32, 'big') for number in numbers))}"


@contextmanager
def serving(service: TokenService, tls: ssl.SSLContext) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = service.give(parse_qs(urlsplit(self.path).query), self.headers.get("Authorization"))
            body = json.dumps({"token": token}).encode()
            self.send_response(200 if token else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}/token"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def service(authority: Authority) -> TokenService:
    return TokenService(authority.chain)


@pytest.fixture(scope="module")
def registry(tmp_path_factory, authority: Authority, service: TokenService) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("registry")
    roots = folder / "roots.pem"
    roots.write_text(authority.pem)
    with serving(service, authority.server) as realm:
        tokens = {"realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(roots)}
        with servers.registry(folder, authority.chain, tokens) as where:
            (folder / "m.onnx").write_bytes(MODEL)
            for name in ("public/m:v1", "private/m:v1"):
                account = ["--username", USER, "--password", PASSWORD, "--registry-config", str(folder / "none.json")]
                command = [built_program("oras"), "push", "--ca-file", roots, *account, f"{where}/{name}", "m.onnx"]
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stdout + done.stderr
            yield where


def source_of(uri: str, authority: Authority, account: str):
    oci = {"ca_bundle": authority.pem}
    settings = SourceSettings.model_validate({"allowed_networks": ["127.0.0.0/8"], "oci": oci})
    host = uri.removeprefix("oci://").partition("/")[0]
    config = {"auths": {host: {"auth": base64.b64encode(account.encode()).decode()}}} if account else {"auths": {}}
    return open_source(uri, credentials={"DOCKERCONFIGJSON": json.dumps(config)}, settings=settings)


@pytest.mark.parametrize(("name", "account"), [("public/m", ""), ("private/m", f"{USER}:{PASSWORD}")])
async def test_a_token_for_reading_is_asked_for_once(registry, service, authority, name, account) -> None:
    service.asked.clear()
    async with source_of(f"oci://{registry}/{name}:v1", authority, account) as source:
        assert await source.locate() == ["m.onnx"]
        assert (await source.stat("m.onnx")).sha256 == hashlib.sha256(MODEL).hexdigest()
        for begin in (0, 1000, 5000):
            assert (await read(source, "m.onnx", begin, begin + 10))[0] == MODEL[begin : begin + 10]
    assert service.asked == [{"scope": [f"repository:{name}:pull"], "service": [SERVICE]}]


async def test_a_token_that_expires_in_the_middle_is_renewed(registry, service, authority, monkeypatch) -> None:
    service.asked.clear()
    # The registry grants a minute beyond the end.
    monkeypatch.setattr(service, "seconds", -58)
    async with source_of(f"oci://{registry}/public/m:v1", authority, "") as source:
        await source.locate()
        deadline = time.monotonic() + 30
        while len(service.asked) == 1 and time.monotonic() < deadline:
            time.sleep(0.2)
            assert (await read(source, "m.onnx", 0, 10))[0] == MODEL[:10]
    assert len(service.asked) == 2


@pytest.mark.parametrize(("account", "words"), [("", "asks for credentials"), (f"{USER}:wrong", "not accepted")])
async def test_who_may_not_read_is_told_what_to_check(registry, authority, account, words) -> None:
    async with source_of(f"oci://{registry}/private/m:v1", authority, account) as source:
        with pytest.raises(SourceError) as caught:
            await source.locate()
    assert caught.value.reason is Reason.SOURCE_UNAUTHORIZED
    assert words in caught.value.message
    assert "kubernetes.io/dockerconfigjson" in caught.value.message
