"""The same files at a real store of each kind, under names that no rule of quoting may confuse."""

import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import obstore
import pytest

from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources import Source, open_source
from tests.cluster import servers
from tests.cluster.fixtures import built_program, installed_command
from tests.cluster.stores import ACCOUNT, ACCOUNT_KEY, KEY_ID, SECRET, Azurite, GcsServer, S3Gateway
from tests.hub import Hub
from tests.integration.test_huggingface_source import serving
from tests.unit.model.webkit import Authority

NAMES = [
    "my model.onnx",
    "my%20model.onnx",
    "my+model.onnx",
    "a#b.onnx",
    "a%23b.onnx",
    "a?b.onnx",
    "a%2Fb.onnx",
    "a&b=c;d,e.onnx",
    "100%.onnx",
    "ä ö – 模型.onnx",
    "(1) [x] {y} 'z' ~*^|!@:.onnx",
]
FOLDER = "team 1#/50%20?+ä"
TO_THE_LETTER, AS_A_URL = str, quote


def bodies() -> dict[str, bytes]:
    """Files of the folder: each name's content is the name, so that one read for another shows."""
    found = {f"{FOLDER}/{name}": name.encode() for name in NAMES}
    found |= {f"{FOLDER}/{name}.data": b"data of " + name.encode() for name in NAMES}
    found |= {f"{FOLDER}/only {name}/model.onnx": b"in " + name.encode() for name in NAMES}
    others = ("one/m.onnx", "one/weights.bin", "deep/onnx/m.onnx", "packed/my model.tar.gz", "packed/README.md")
    others += ("two/a.onnx", "two/b.onnx", "other/x")
    return found | {f"{FOLDER}/{path}": path.encode() for path in others}


@dataclass
class Place:
    """Where the files lie, and how an address names one of them."""

    address: str
    written: Callable[[str], str]
    settings: dict[str, object] = field(default_factory=dict)
    credentials: dict[str, str] = field(default_factory=dict)
    claims: Path | None = None

    def open(self, path: str) -> Source:
        settings = SourceSettings.model_validate(self.settings)
        uri = self.address + self.written(f"{FOLDER}/{path}")
        return open_source(uri, credentials=self.credentials, settings=settings, claims=self.claims)


def on_disk(folder: Path) -> Path:
    for path, body in bodies().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(body)
    return folder


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Place]]:
    folder, versions = (tmp_path_factory.mktemp(name) for name in ("store", "versions"))
    with S3Gateway.serve(built_program("versitygw"), folder, versions) as gateway:
        gateway.make_bucket("names")
        # Objects are files there: nobody's client has a say in what they are called.
        on_disk(folder / "names")
        keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
        yield [Place("s3://names/", TO_THE_LETTER, {"s3": {"endpoint": gateway.endpoint}}, keys)]


@pytest.fixture(scope="module")
def gs() -> Iterator[list[Place]]:
    with GcsServer.serve(built_program("fake-gcs-server")) as server:
        server.make_bucket("names")
        for path, body in bodies().items():
            server.put("names", path, body)
        yield [Place("gs://names/", TO_THE_LETTER, {"gs": {"endpoint": server.endpoint}})]


@pytest.fixture(scope="module")
def az(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Place]]:
    with Azurite.serve(installed_command("azurite-blob"), tmp_path_factory.mktemp("azurite")) as azurite:
        container = azurite.make_container("names", public=True)
        for path, body in bodies().items():
            obstore.put(container, path, body)
            # What any other client finds under the name's URL.
            with urllib.request.urlopen(f"{azurite.endpoint}/{ACCOUNT}/names/{quote(path)}", timeout=20) as answer:
                assert answer.read() == body
        settings = {"az": {"endpoint": azurite.endpoint, "account": ACCOUNT}}
        key = {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY}
        yield [
            Place("az://names/", TO_THE_LETTER, settings, key),
            Place(f"abfss://names@{ACCOUNT}.dfs.core.windows.net/", TO_THE_LETTER, settings, key),
            Place(f"https://{ACCOUNT}.blob.core.windows.net/names/", AS_A_URL, settings, key),
        ]


@pytest.fixture(scope="module")
def hf(authority: Authority) -> Iterator[list[Place]]:
    hub = Hub()
    hub.commit(bodies())
    hub.commit(bodies(), ref="refs/pr/1")
    with serving(hub, authority) as port:
        hub.url, hub.storage = f"https://127.0.0.1:{port}", f"https://localhost:{port}/storage"
        settings = {"allowed_networks": ["127.0.0.0/8"], "hf": {"endpoint": hub.url, "ca_bundle": authority.pem}}
        yield [
            Place("hf://org/model/", TO_THE_LETTER, settings),
            Place("hf://org/model@refs%2Fpr%2F1/", TO_THE_LETTER, settings),
        ]


@pytest.fixture(scope="module")
def https(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[list[Place]]:
    folder = tmp_path_factory.mktemp("nginx")
    on_disk(folder / "files")
    with servers.nginx(folder, authority.chain, "") as url:
        settings = {"allowed_networks": ["127.0.0.0/8"], "https": {"ca_bundle": authority.pem}}
        yield [Place(f"{url}/", AS_A_URL, settings)]


@pytest.fixture(scope="module")
def pvc(tmp_path_factory: pytest.TempPathFactory) -> list[Place]:
    return [Place("pvc://claim/", TO_THE_LETTER, claims=on_disk(tmp_path_factory.mktemp("claim")))]


STORES = ["s3", "gs", "az", "hf", "https", "pvc"]
LISTING = [each for each in STORES if each != "https"]
"""Those that tell what a folder holds."""


@pytest.fixture
def places(request: pytest.FixtureRequest) -> list[Place]:
    found: list[Place] = request.getfixturevalue(request.param)
    return found
