"""Whatever is given to ``kubectl onnx inspect``, it ends with a verdict in words: 0, 1 or 2, and never a traceback."""

import asyncio
import io
import json
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.api.report import InspectionRequest, InspectionResult
from onnx_operator.api.schemes import ALL_CREDENTIALS
from onnx_operator.api.sources import SourceSettings
from onnx_operator.cli import output, tables
from onnx_operator.cli.__main__ import _as_json, main
from onnx_operator.cli.inspect import exit_code
from onnx_operator.model.archive import Archive, ArchiveError, ArchiveLimits
from onnx_operator.model.inspection.inspection import inspect_source
from onnx_operator.model.inspection.isolation import Parser
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.reading.wire import head
from onnx_operator.model.sources import SourceError, open_source
from onnx_operator.model.sources.files import FileSource
from tests import models
from tests.security.fuzzing import mutated

LIMITS = InspectionLimits()
MODEL = models.linear()
Inspect = Callable[[Path | str], InspectionResult]


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    text = io.BytesIO()
    with zipfile.ZipFile(text, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return text.getvalue()


def tarred(entries: dict[str, bytes], mode: str = "w", kind: int = tarfile.PAX_FORMAT) -> bytes:
    text = io.BytesIO()
    with tarfile.open(fileobj=text, mode=mode, format=kind) as archive:  # type: ignore[call-overload]
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return text.getvalue()


FILES = {"folder/m.onnx": MODEL, "folder/notes ä.txt": b"n" * 700}
ARCHIVES = {
    "zip": zipped(FILES),
    "stored.zip": zipped(FILES, zipfile.ZIP_STORED),
    "tar": tarred(FILES),
    "gnu.tar": tarred({"x" * 150 + "/m.onnx": MODEL}, kind=tarfile.GNU_FORMAT),
    "ustar.tar": tarred({"m.onnx": MODEL}, kind=tarfile.USTAR_FORMAT),
    "tar.gz": tarred(FILES, "w:gz"),
}


@pytest.fixture(scope="module")
def inspect() -> Iterator[Inspect]:
    """The command's inspection and its printing, with one parsing process for all cases."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    capabilities = load_capabilities()

    async def look(path: Path | str, parser: Parser) -> InspectionResult:
        request = InspectionRequest(uri=str(path), capabilities=capabilities)
        try:
            async with FileSource(str(path), credentials={}, settings=SourceSettings()) as source:
                return await inspect_source(source, request, limits=LIMITS, parser=parser)
        except SourceError as error:
            return error.result()

    parser = Parser(LIMITS)
    asyncio.run_coroutine_threadsafe(parser.__aenter__(), loop).result(60)

    def done(path: Path | str) -> InspectionResult:
        result = asyncio.run_coroutine_threadsafe(look(path, parser), loop).result(170)
        printed = io.StringIO()
        console = output.console(file=printed, width=120)
        code = exit_code(result)
        shown = tables.refusal(str(path), result, code == 2) if result.refusal else tables.report(str(path), result)
        console.print(shown)
        json.loads(json.dumps(_as_json(result)))
        assert code in (0, 1, 2)
        assert printed.getvalue()
        # A message is for a screen, and may repeat the address.
        assert not result.refusal or len(result.refusal.message) < 4000 + 3 * len(str(path))
        return result

    yield done
    asyncio.run_coroutine_threadsafe(parser.aclose(), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.zip", b"PK\5\6" + b"\0" * 18),
        ("half an end.zip", b"PK\5\6" + b"\0" * 9),
        ("nothing.onnx", b""),
        ("one byte.onnx", b"\x08"),
        ("zeros.onnx", bytes(4096)),
        ("zeros.tar", bytes(10240)),
        ("no model.zip", zipped({"a": b"1"})),
        ("no model.tar", tarred({"a": b"1"})),
        ("gzip.gz", b"\x1f\x8b\x08" + bytes(600)),
        ("folders.zip", zipped({"a/": b"", "b/": b""})),
    ],
)
def test_a_file_that_is_next_to_nothing_gets_a_verdict(inspect, tmp_path, name, content) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert inspect(path).refusal is not None


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_that_is_whole_is_accepted_and_one_that_is_cut_gets_a_verdict(inspect, tmp_path, kind) -> None:
    content = ARCHIVES[kind]
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    assert inspect(path).refusal is None
    for cut in (3, 30, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        inspect(path)


class Bytes:
    """An archive's bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read_at(self, begin: int, end: int) -> bytes:
        assert 0 <= begin <= end
        return self.content[begin:end]


def read_whole(content: bytes, limits: ArchiveLimits) -> None:
    """List an archive, find its model, and read every member to its end; raises nothing but ArchiveError."""
    with suppress(ArchiveError):
        archive = Archive(Bytes(content), len(content), limits)
        for member in archive.members():
            reader = archive.open(member.name)
            for at in range(0, min(member.size, 1 << 20), 4096):
                reader.read_at(at, at + 4096)
        archive.model_member()
        archive.drain()


@pytest.mark.parametrize("kind", ARCHIVES)
def test_every_beginning_of_an_archive_is_read_or_refused(kind) -> None:
    content = ARCHIVES[kind]
    for cut in [*range(600), *range(600, len(content), 7)]:
        read_whole(content[:cut], ArchiveLimits())


def big_metadata(path: Path, key: int, value: int) -> None:
    """A model with one metadata entry of so many bytes, most of them in a hole of the file."""
    entry = head(1, key) + b"k" * key + head(2, value)
    with path.open("wb") as file:
        file.write(MODEL + head(14, len(entry) + value) + entry)
        file.truncate(file.tell() + value)


def test_metadata_of_hundreds_of_megabytes_is_cut_not_held_in_memory(inspect, tmp_path) -> None:
    big_metadata(tmp_path / "m.onnx", 1, 200 << 20)
    result = inspect(tmp_path / "m.onnx")
    assert result.refusal is None
    assert result.report is not None
    assert result.report.truncated
    assert len(result.report.metadata["k"]) <= 260
    assert result.report.size_bytes > 200 << 20


def test_a_key_of_megabytes_is_cut_too(inspect, tmp_path) -> None:
    big_metadata(tmp_path / "m.onnx", 20 << 20, 10)
    result = inspect(tmp_path / "m.onnx")
    assert result.report is not None
    assert [len(key) <= 260 for key in result.report.metadata] == [True]


@pytest.mark.parametrize("number", [2, 3, 4, 6, 7], ids=["producer", "version", "domain", "doc string", "graph"])
def test_other_texts_of_hundreds_of_megabytes_get_a_verdict(inspect, tmp_path, number) -> None:
    with (tmp_path / "m.onnx").open("wb") as file:
        file.write(MODEL + head(number, 250 << 20))
        file.truncate(file.tell() + (250 << 20))
    inspect(tmp_path / "m.onnx")


def test_what_is_no_regular_file_is_refused_and_nothing_waits(inspect, tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "nowhere.onnx").symlink_to("gone")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "two").mkdir()
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / "two" / name).write_bytes(MODEL)
    (tmp_path / ("n" * 250 + ".onnx")).write_bytes(MODEL)
    for name in ("pipe.onnx", "loop.onnx", "a", "a/m.onnx", "nowhere.onnx", "folder.onnx", "two", "gone", "m" * 5000):
        assert inspect(tmp_path / name).refusal is not None, name
    for device in ("/dev/null", "/dev/zero", "/dev/full", "/proc/self/mem", "/proc/self", "/dev/stdin"):
        assert inspect(device).refusal is not None, device
    assert inspect(tmp_path / ("n" * 250 + ".onnx")).refusal is None


def test_a_file_that_may_not_be_read_or_vanishes_is_told(inspect, tmp_path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(MODEL)
    assert inspect(path).refusal is None
    path.unlink()
    found = inspect(path).refusal
    assert found is not None
    assert found.reason == "SourceNotFound"


ODD = [
    "", " ", ":", "//", "file:", "file://host/x", "file:///%00", "https://", "https://[", "https://[::1", "https://h:99999/m",
    "https://h:x/m", "https://a b/m", "https://u:p@h/m", "https://" + "a" * 300 + "/m", "https://a..b/m", "https://.a/m",
    "https://h/\udcff", "https://xn--/m", "https://xn--a/m", "https://\u0130/m", "https://%/m", "https://h%00/m",
    "s3://", "s3://b", "s3://b/../x", "s3://b//", "s3://\udcff/x", "gs://", "gs://b/x", "gs://..../x", "az://", "az://..",
    "abfss://c@h/x", "abfss://models@a.dfs.core.windows.net/x", "abfss://@/", "https://theirs.blob.core.windows.net/a",
    "https://theirs.blob.core.windows.net/models/x?", "oci://", "oci://h", "oci://h/A", "oci://h/a@sha256:0",
    "oci://[::1]:80/a", "https://[]@/m", "https://u[]@/m", "oci://[]@/a", "hf://[]@/a",
    "oci://h:99999/a", "oci://h\r\n/a", "hf://", "hf://a", "hf://a/b@../..", "hf://a/b@\udcff/x",
    "models:", "models:/x",
    "models:/a@b@c", "models:/%/1", "mlflow://", "mlflow://r/../x", "mlflow://r/%2e%2e/x", "pvc://c/x", "foo://x",
    "HTTPS:x",
]  # fmt: skip
VALUES = [
    "",
    "x",
    "\0",
    "\r\nX: y",
    "\udcff",
    "{}",
    "[]",
    '{"auths": []}',
    '{"auths": {"h": {"auth": "%"}}}',
    "a" * 70_000,
]
VALUES += [
    "\udcff",
    "\ud800",
    "[]@",
    "theirs",
    "sig=1",
    "?sig=%zz&x",
    "[" * 5000,
    "*",
    "h, h:0",
    "h:99999",
    "\u0130",
    '{"private_key": 1}',
]
SETTINGS = [
    {},
    {"mlflow": {"trackingUri": "https://mlflow.example"}, "az": {"account": "theirs"}},
    {
        "s3": {"endpoint": "nonsense"},
        "hf": {"endpoint": "x"},
        "mlflow": {"trackingUri": "ftp://x"},
        "az": {"endpoint": "%"},
    },
    {"s3": {"endpoint": "http://127.0.0.1:1", "virtualHostedStyle": True}, "az": {"endpoint": "http://["}},
    {"s3": {"endpoint": "http://[", "virtualHostedStyle": True}, "gs": {"endpoint": "http://[::"}},
    {"oci": {"plainHttpRegistries": ["h", "[", "a b"]}, "https": {"caBundle": "x"}, "s3": {"caBundle": "x"}},
]


def opened(uri: str, credentials: dict[str, str], settings: dict[str, Any]) -> None:
    """Make the source of a URI, which contacts nobody; raises nothing but SourceError."""

    async def make() -> None:
        try:
            source = open_source(uri, credentials=credentials, settings=SourceSettings.model_validate(settings))
        except SourceError:
            return
        await source.aclose()

    asyncio.run(make())


@pytest.mark.parametrize("settings", SETTINGS, ids=range(len(SETTINGS)))
def test_odd_addresses_are_refused_in_words(settings) -> None:
    for uri in ODD:
        opened(uri, {}, settings)


@pytest.mark.parametrize("bucket", ["a..b", "10.0.0", "a-", "0x1", "a.-b", "-a", "b" * 100])
@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://store.invalid:1"])
async def test_no_name_of_a_bucket_breaks_the_stores_client(bucket, endpoint) -> None:
    """As a host name in front of the endpoint's it made the client's thread panic, which all tenants share."""
    settings = {"s3": {"endpoint": endpoint, "virtualHostedStyle": True}, "connectTimeoutSeconds": 1}
    # Nobody is there: it is refused, or tried again for longer than this waits.
    with suppress(SourceError, TimeoutError):
        async with open_source(
            f"s3://{bucket}/m.onnx", credentials={}, settings=SourceSettings.model_validate(settings)
        ) as source:
            await asyncio.wait_for(source.locate(), 0.5)


@pytest.mark.fuzz
def test_no_address_credential_or_setting_is_answered_by_a_fault(fuzz) -> None:
    variables = sorted(ALL_CREDENTIALS)
    for rng in fuzz(1000):
        uri = rng.choice(ODD)
        if rng.random() < 0.5:
            uri = mutated(rng, uri.encode(errors="surrogateescape")).decode(errors="surrogateescape")
        given = {name: rng.choice(VALUES) for name in rng.sample(variables, rng.randint(0, 6))}
        opened(uri, given, rng.choice(SETTINGS))


@pytest.mark.fuzz
def test_no_archive_is_answered_by_a_fault_of_the_reader(fuzz) -> None:
    """Byte by byte, through the real reader: its listing, its model, and every member to its end."""

    limits = ArchiveLimits(unpacked_bytes=4 << 20, members=100)
    kinds = list(ARCHIVES.values())
    for rng in fuzz(2500):
        content = mutated(rng, rng.choice(kinds), most=rng.choice([1, 2, 8]))
        if rng.random() < 0.1:
            content += mutated(rng, rng.choice(kinds))
        read_whole(content, limits)


@pytest.mark.fuzz
def test_no_model_or_archive_is_answered_by_a_traceback(fuzz, inspect, tmp_path) -> None:
    """Through the parsing child, and through the printing."""
    seeds = [MODEL, models.unknown_operator(), *ARCHIVES.values()]
    path = tmp_path / "m.onnx"
    for rng in fuzz(80):
        path.write_bytes(mutated(rng, rng.choice(seeds), most=rng.choice([1, 3, 8])))
        inspect(path)


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["empty.zip"], {}),
        (["empty.zip", "--output", "json"], {}),
        (["https://h.example/m.onnx"], {"HTTPS_BEARER_TOKEN": "t", "HTTPS_HOSTS": "*"}),
        (["oci://h/a"], {"DOCKERCONFIGJSON": "{"}),
        (["az://models/x"], {"AZURE_STORAGE_SAS_TOKEN": "x", "AZURE_STORAGE_ACCOUNT_NAME": "\udcff"}),
        (["gs://bucket/x"], {"GOOGLE_SERVICE_ACCOUNT_KEY": "[" * 5000}),
        (["s3://bucket/x", "--s3-endpoint", "http://["], {}),
        (["s3://bucket/x", "--s3-region", "\n"], {"HTTPS_PROXY": "nonsense://", "ALL_PROXY": "x"}),
        (["https://" + "a" * 300 + ".example/x"], {"HTTPS_PROXY": "nonsense://"}),
        (["https://127.0.0.1:1/x"], {"HTTPS_PROXY": "\udcff"}),
        (["models:/a/1", "--mlflow-tracking-uri", "ftp://x"], {}),
    ],
)
def test_the_command_ends_with_1_or_2_and_says_why(arguments, environment, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.zip").write_bytes(b"PK\5\6" + b"\0" * 18)
    done = CliRunner(env=environment).invoke(main, ["inspect", *arguments])
    assert done.exit_code in (1, 2), done.output
    assert isinstance(done.exception, SystemExit)
    assert "Traceback" not in done.output
    assert "fault of this program" not in done.output
    assert done.output.strip()
