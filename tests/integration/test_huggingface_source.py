"""The ``hf`` source against a local hub, of which the hub's own client says that it is a faithful one."""

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources import SourceError, open_source, transfer
from tests.cluster import servers
from tests.hub import Hub
from tests.unit.model.webkit import Authority, read

FILES = {"README.md": b"# A model", "onnx/model.onnx": os.urandom(2_000_000), "onnx/model.onnx_data": os.urandom(5000)}
TOKEN = "hf_T0KEN"
# What huggingface_hub finds: the commit, and of each file its ETag, size and content as downloaded.
ORACLE = """
import hashlib, json, sys
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url

repository, revision, token, folder = sys.argv[1:]
info = HfApi(token=token).model_info(repository, revision=revision)
found = {"commit": info.sha, "files": {}}
for each in info.siblings:
    url = hf_hub_url(repository, each.rfilename, revision=revision)
    metadata = get_hf_file_metadata(url, token=token)
    path = hf_hub_download(repository, each.rfilename, revision=revision, token=token, cache_dir=folder)
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    found["files"][each.rfilename] = [metadata.commit_hash, metadata.etag, metadata.size, digest]
print(json.dumps(found))
"""


@contextmanager
def serving(hub: Hub, authority: Authority) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, told, body = hub.answer(self.command, self.path, headers)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **told}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = authority.server.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def hub(authority: Authority) -> Iterator[Hub]:
    made = Hub(token=TOKEN)
    made.commit(FILES)
    made.commit({**FILES, "onnx/model.onnx": os.urandom(1_500_000)}, ref="v2")
    with serving(made, authority) as port:
        made.url, made.storage = f"https://127.0.0.1:{port}", f"https://localhost:{port}/storage"
        yield made


@pytest.fixture
def source_of(hub: Hub, authority: Authority):
    # The hub may be anywhere; where it redirects to is checked.
    hf = {"endpoint": hub.url, "ca_bundle": authority.pem}
    settings = SourceSettings.model_validate({"allowed_networks": ["127.0.0.0/8", "::1/128"], "hf": hf})

    def make(uri: str, token: str = TOKEN):
        return open_source(uri, credentials={"HF_TOKEN": token} if token else {}, settings=settings)

    return make


@pytest.mark.parametrize("revision", ["main", "v2"])
async def test_the_hubs_own_client_and_ours_find_the_same(hub, authority, source_of, tmp_path, revision) -> None:
    trusted = tmp_path / "ca.pem"
    trusted.write_text(authority.pem)
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "SSL_CERT_FILE": str(trusted),
    }
    command = [servers.python_with("huggingface-hub"), "-c", ORACLE, "org/model", revision, TOKEN, str(tmp_path / "c")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    async with source_of(f"hf://org/model@{revision}") as source:
        assert await source.locate() == ["onnx/model.onnx"]
        assert set(found["files"]) == set(FILES)
        for name, (commit, etag, size, sha256) in found["files"].items():
            stat = await source.stat(name)
            assert stat.pin is not None
            assert (stat.pin.kind, stat.pin.value) == ("Immutable", commit)
            assert commit == found["commit"]
            assert stat.size == size
            assert stat.sha256 in (None, etag)
            assert (stat.sha256 is None) == (name == "README.md")
            done_ = await transfer.download(source, name, tmp_path / "m", pin=stat.pin)
            assert done_.sha256 == sha256


async def test_ranges_of_the_pinned_commit(hub, source_of) -> None:
    async with source_of("hf://org/model/onnx/model.onnx") as source:
        stat = await source.stat("model.onnx")
        assert stat.sha256 == hashlib.sha256(FILES["onnx/model.onnx"]).hexdigest()
        got, stream = await read(source, "model.onnx", 1000, 2000, stat.pin)
        assert (got, stream.begin) == (FILES["onnx/model.onnx"][1000:2000], 1000)
        assert (await read(source, "model.onnx_data", 0, 10, stat.pin))[0] == FILES["onnx/model.onnx_data"][:10]
    assert stat.pin is not None
    assert hub.refs["main"] == stat.pin.value


@pytest.mark.parametrize("token", ["", "hf_wrong"])
async def test_a_private_repository_needs_the_right_token(source_of, token) -> None:
    async with source_of("hf://org/model/onnx/model.onnx", token) as source:
        with pytest.raises(SourceError) as caught:
            await source.stat("model.onnx")
    assert caught.value.reason is Reason.SOURCE_UNAUTHORIZED
    assert "HF_TOKEN" in caught.value.message
