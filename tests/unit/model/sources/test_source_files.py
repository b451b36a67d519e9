"""A model on a local disk or a mounted volume: read by ranges, never outside, and never while it changes."""

import asyncio
import os
import socket
from pathlib import Path
from urllib.parse import quote

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.model.sources.base import SourceChangedError, SourceError
from onnx_operator.model.sources.files import FileSource

DATA = os.urandom(3 << 20)


def local(path: Path | str) -> FileSource:
    return FileSource(str(path), credentials={}, settings=SourceSettings())


def volume(path: str, root: Path) -> FileSource:
    return FileSource(f"pvc://models/{path}", credentials={}, settings=SourceSettings(), root=root)


async def read(source: FileSource, name: str, begin: int = 0, end: int | None = None, pin=None) -> bytes:
    async with source, source.open(name, begin, end, pin=pin) as stream:
        assert stream.begin == begin
        return b"".join([bytes(piece) async for piece in stream.pieces])


async def refusal(call) -> SourceError:
    with pytest.raises(SourceError) as caught:
        await call
    return caught.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model and its weights, and something beside it that is nobody's business."""
    (tmp_path / "secret").write_bytes(b"secret")
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(DATA)
    (folder / "weights.bin").write_bytes(b"weights")
    return folder


# ---- where the model is


@pytest.mark.parametrize("form", ["{}", "file://{}", "file:{}", "file://localhost{}", "FILE://{}"])
async def test_a_file_is_found_by_path_and_by_uri(folder, form):
    source = local(form.format(folder / "model.onnx"))
    assert await source.locate() == ["model.onnx"]
    assert await read(source, "model.onnx") == DATA


async def test_a_relative_path_counts_from_the_working_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert await local("model.onnx").locate() == ["model.onnx"]
    assert await local("./model.onnx").locate() == ["model.onnx"]


async def test_a_url_of_a_file_quotes_and_paths_do_not(folder):
    for name in ("my model.onnx", "a#b?c+d.onnx", "50%20.onnx", "ä.onnx"):
        (folder / name).write_bytes(b"m")
        for place in ("", "localhost", "LOCALHOST"):
            assert await local(f"file://{place}{folder}/{quote(name)}").locate() == [name]
        assert await volume(name, folder).locate() == [name]
        assert await local(f"{folder}/{name}").locate() == [name]


async def test_who_quotes_a_path_on_a_claim_is_told_that_it_is_taken_to_the_letter(folder):
    (folder / "my model.onnx").write_bytes(b"m")
    with pytest.raises(SourceError) as caught:
        await volume("my%20model.onnx", folder).locate()
    assert "%20 stands for itself" in caught.value.message


async def test_in_a_folder_the_one_model_is_found(folder):
    for source in (local(folder), local(f"{folder}/"), volume("", folder), volume("root/", folder.parent)):
        assert await source.locate() == ["model.onnx"]
        assert await read(source, "weights.bin") == b"weights"


async def test_a_model_in_a_folder_of_the_folder_is_found(tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"m")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "other.onnx").write_bytes(b"m")
    (tmp_path / "config.json").write_bytes(b"{}")
    assert await local(tmp_path).locate() == ["onnx/model.onnx"]
    assert await read(local(tmp_path), "onnx/model.onnx") == b"m"


async def test_a_folder_with_an_archive_alone_leads_to_the_archive(tmp_path):
    (tmp_path / "model.tar.gz").write_bytes(b"m")
    (tmp_path / "README.md").write_bytes(b"m")
    assert await local(tmp_path).locate() == ["model.tar.gz"]


async def test_a_folder_with_several_models_or_none_is_refused(folder, tmp_path):
    (folder / "other.onnx").write_bytes(b"m")
    error = await refusal(local(folder).locate())
    assert error.reason is Reason.SOURCE_REFUSED
    assert "model.onnx, other.onnx" in error.message
    empty = tmp_path / "empty"
    empty.mkdir()
    assert (await refusal(local(empty).locate())).reason is Reason.SOURCE_NOT_FOUND


async def test_a_folder_of_very_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("onnx_operator.model.sources.files._MAX_ENTRIES", 20)
    for number in range(21):
        (tmp_path / f"{number}.txt").touch()
    assert (await refusal(local(tmp_path).locate())).reason is Reason.SOURCE_REFUSED


@pytest.mark.parametrize("make", [local, lambda path: volume(path.name, path.parent)])
async def test_a_missing_file_is_named(tmp_path, make):
    source = make(tmp_path / "absent.onnx")
    for call in (source.locate(), source.stat("absent.onnx"), read(source, "absent.onnx")):
        error = await refusal(call)
        assert error.reason is Reason.SOURCE_NOT_FOUND
        assert "absent.onnx" in error.message
    assert (await refusal(source.stat("file/under/nothing"))).reason is Reason.SOURCE_NOT_FOUND


@pytest.mark.parametrize("uri", ["file://host/model.onnx", "file:model.onnx", "file://", "", "a\0b", "file:///a%00b"])
def test_what_is_no_address_of_a_file_is_refused(uri):
    with pytest.raises(SourceError) as caught:
        local(uri)
    assert caught.value.reason is Reason.SOURCE_REFUSED


@pytest.mark.parametrize("uri", ["pvc:///a.onnx", "s3://bucket/a.onnx", "pvc://c/../a.onnx", "pvc://c/a/../../b"])
def test_what_is_no_address_on_a_claim_is_refused(uri, tmp_path):
    with pytest.raises(SourceError) as caught:
        FileSource(uri, credentials={}, settings=SourceSettings(), root=tmp_path)
    assert caught.value.reason is Reason.SOURCE_REFUSED


# ---- ranges and pins


@pytest.mark.parametrize("make", [local, lambda path: volume(path.name, path.parent)])
@pytest.mark.parametrize(("begin", "end"), [(0, 10), (5, 5), (100, 2_500_000), (1 << 20, None), (5 << 20, 6 << 20)])
async def test_any_range_is_read(folder, make, begin, end):
    assert await read(make(folder / "model.onnx"), "model.onnx", begin, end) == DATA[begin:end]


async def test_a_local_file_is_pinned_by_its_time_size_and_inode(folder):
    path = folder / "model.onnx"
    told = await local(path).stat("model.onnx")
    found = path.stat()
    assert told.size == len(DATA)
    assert told.pin == SourcePin(kind="Conditional", value=f'"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}"')
    assert await read(local(path), "model.onnx", 0, 10, told.pin) == DATA[:10]


async def test_a_volume_pins_nothing_and_reads_what_a_hash_pins(folder):
    source = volume("model.onnx", folder)
    assert (await source.stat("model.onnx")).pin is None
    hashed = SourcePin(kind="None", value="sha256:00")
    assert await read(source, "model.onnx", 0, 10, hashed) == DATA[:10]


async def test_a_file_that_was_replaced_is_not_read_as_the_old_one(folder):
    path = folder / "model.onnx"
    pin = (await local(path).stat("model.onnx")).pin
    (folder / "new").write_bytes(DATA)
    (folder / "new").rename(path)
    with pytest.raises(SourceChangedError) as caught:
        await read(local(path), "model.onnx", pin=pin)
    assert caught.value.observed == (await local(path).stat("model.onnx")).pin != pin


@pytest.mark.parametrize("make", [local, lambda path: volume(path.name, path.parent)])
async def test_a_file_that_changes_while_it_is_read_is_noticed(folder, make):
    path = folder / "model.onnx"
    async with make(path).open("model.onnx") as stream:
        await anext(aiter(stream.pieces))
        path.write_bytes(b"other")
        with pytest.raises(SourceChangedError) as caught:
            await anext(aiter(stream.pieces))
    assert caught.value.observed.kind == ("Conditional" if make is local else "None")


async def test_reads_may_overlap(folder):
    source = local(folder / "model.onnx")
    found = await asyncio.gather(*(read(source, "model.onnx", at, at + 70_000) for at in range(0, 2_000_000, 100_000)))
    assert found == [DATA[at : at + 70_000] for at in range(0, 2_000_000, 100_000)]


async def test_no_file_stays_open(folder):
    before = len(list(Path("/proc/self/fd").iterdir()))
    source = local(folder / "model.onnx")
    await source.stat("model.onnx")
    await read(source, "model.onnx", 0, 10)
    async with source.open("model.onnx"):
        pass
    await refusal(source.stat("../secret"))
    await refusal(read(source, "model.onnx", pin=SourcePin(kind="Conditional", value='"1"')))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# ---- nothing outside


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "", ".", "a\\b", "a\0b"])
async def test_names_that_lead_out_are_refused(folder, name):
    for source in (local(folder), volume("", folder)):
        assert (await refusal(source.stat(name))).reason is Reason.SOURCE_REFUSED
        assert (await refusal(read(source, name))).reason is Reason.SOURCE_REFUSED


@pytest.mark.parametrize("target", ["../secret", "{}/secret", "../root/../secret"])
async def test_a_link_that_leads_out_is_refused(folder, target):
    (folder / "link.bin").symlink_to(target.format(folder.parent))
    for source in (local(folder / "model.onnx"), local(folder), volume("model.onnx", folder)):
        error = await refusal(read(source, "link.bin"))
        assert error.reason is Reason.SOURCE_REFUSED
        assert "link.bin" in error.message


async def test_a_volume_does_not_lead_out_by_the_model_or_its_folder_either(folder, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "model.onnx").write_bytes(b"m")
    (folder / "folder").symlink_to(tmp_path / "outside")
    (folder / "out.onnx").symlink_to(tmp_path / "outside" / "model.onnx")
    for path, name in (("folder", "model.onnx"), ("folder/model.onnx", "model.onnx"), ("out.onnx", "out.onnx")):
        for call in (volume(path, folder).locate(), read(volume(path, folder), name)):
            error = await refusal(call)
            assert error.reason is Reason.SOURCE_REFUSED
            assert "leads out of the volume" in error.message


async def test_links_within_a_volume_are_followed_as_kubernetes_makes_them(tmp_path):
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "model.onnx").write_bytes(b"m")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "model.onnx").symlink_to("..data/model.onnx")
    source = volume("", tmp_path)
    assert await source.locate() == ["model.onnx"]
    assert await read(source, "model.onnx") == b"m"


async def test_a_model_in_a_cache_of_links_to_blobs_is_read_with_its_data(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for name in ("model.onnx", "model.onnx_data"):
        (blobs / f"sha-{name}").write_bytes(name.encode())
        (snapshot / name).symlink_to(f"../../blobs/sha-{name}")
    source = local(snapshot)
    assert await source.locate() == ["model.onnx"]
    assert await read(source, "model.onnx") == b"model.onnx"
    assert await read(source, "model.onnx_data") == b"model.onnx_data"


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
@pytest.mark.parametrize("make", [local, lambda path: volume(path.name, path.parent)])
async def test_what_is_no_regular_file_is_refused_and_never_waited_for(folder, monkeypatch, kind, make):
    path = folder / "odd.bin"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        monkeypatch.chdir(folder)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("odd.bin")
    source = make(folder / "model.onnx")
    async with asyncio.timeout(10):
        assert (await refusal(source.stat("odd.bin"))).reason is Reason.SOURCE_REFUSED
        assert (await refusal(read(source, "odd.bin"))).reason is Reason.SOURCE_REFUSED
        if kind != "folder":
            assert (await refusal(make(path).locate())).reason is Reason.SOURCE_REFUSED


async def test_links_in_a_circle_are_no_files(folder):
    (folder / "a.onnx").symlink_to("b.onnx")
    (folder / "b.onnx").symlink_to("a.onnx")
    assert await local(folder).locate() == ["model.onnx"]
    assert (await refusal(local(folder / "a.onnx").locate())).reason is Reason.SOURCE_REFUSED
    assert (await refusal(volume("a.onnx", folder).locate())).reason is Reason.SOURCE_REFUSED
    assert (await refusal(local(folder / "model.onnx").stat("x" * 300))).reason is Reason.SOURCE_REFUSED
    assert await read(local(folder / "a.onnx"), "weights.bin") == b"weights"


async def test_names_that_are_no_text_are_passed_over(folder):
    (folder / os.fsdecode(b"\xff.onnx")).write_bytes(b"m")
    assert await local(folder).locate() == ["model.onnx"]


# ---- what lies beside the model


@pytest.mark.parametrize("make", [lambda folder: local(folder), lambda folder: volume("root", folder.parent)])
async def test_all_files_of_a_folder_are_listed_but_for_hidden_ones(folder, make):
    (folder / "assets" / ".cache").mkdir(parents=True)
    (folder / "assets" / "vocab.txt").write_bytes(b"")
    (folder / "assets" / ".cache" / "x").write_bytes(b"")
    (folder / "..data").mkdir()
    (folder / "elsewhere").symlink_to(folder.parent)
    assert sorted(await make(folder).listing()) == ["assets/vocab.txt", "model.onnx", "weights.bin"]


async def test_the_address_of_a_file_lists_nothing(folder):
    assert await local(folder / "model.onnx").listing() is None
    assert await volume("root/model.onnx", folder.parent).listing() is None


async def test_a_name_that_cannot_be_told_is_not_passed_over_where_all_are_wanted(folder):
    (folder / os.fsdecode(b"\xff.txt")).write_bytes(b"")
    error = await refusal(local(folder).listing())
    assert error.reason is Reason.SOURCE_REFUSED
    assert "which is not the name of a file" in error.message
