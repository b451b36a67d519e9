"""Unpacking for the server: all of it, nothing outside, and never half of it."""

import os
import tarfile
from pathlib import Path

import pytest
from archivekit import LIMITS, link, targz, tarred, zipped

from onnx_operator.api.conditions import Reason
from onnx_operator.model.archive import ArchiveError, ArchiveLimits, FileReader, extract

FILES = {
    "resnet50/model.onnx": b"model" * 100_000,
    "resnet50/weights.bin": os.urandom(3 << 20),
    "resnet50/empty": b"",
    "LICENSE": b"MIT",
}


@pytest.fixture(params=[zipped, tarred, targz])
def pack(request):
    return request.param


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def packed(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "archive"
    path.write_bytes(data)
    return path


def test_all_files_are_unpacked_readable_for_everyone_and_progress_is_told(tmp_path, destination, pack):
    told = []
    previous = os.umask(0o077)
    try:
        extract(packed(tmp_path, pack(FILES)), destination, LIMITS, told.append)
    finally:
        os.umask(previous)
    assert written(destination) == FILES
    assert (destination / "resnet50/model.onnx").stat().st_mode & 0o7777 == 0o644
    assert (destination / "resnet50").stat().st_mode & 0o7777 == 0o755
    total = sum(map(len, FILES.values()))
    assert told[-1] == total
    assert told == sorted(told)


def test_what_an_earlier_try_left_is_replaced(tmp_path, destination, pack):
    outside = tmp_path / "outside"
    outside.write_bytes(b"untouched")
    (destination / "resnet50").mkdir()
    (destination / "resnet50" / "model.onnx").write_bytes(b"half")
    (destination / "resnet50" / "stale.bin").write_bytes(b"stale")
    (destination / "LICENSE").symlink_to(outside)
    (destination / ".onnx-operator-unpacking").symlink_to(tmp_path)
    archive = packed(tmp_path, pack(FILES))
    for _ in range(2):
        extract(archive, destination, LIMITS)
        assert written(destination) == FILES
    assert not (destination / "LICENSE").is_symlink()
    assert outside.read_bytes() == b"untouched"


def test_a_crash_leaves_nothing_that_looks_complete(tmp_path, destination, pack):
    def crash(done: int) -> None:
        if done == sum(map(len, FILES.values())):
            raise KeyboardInterrupt

    archive = packed(tmp_path, pack(FILES))
    with pytest.raises(KeyboardInterrupt):
        extract(archive, destination, LIMITS, crash)
    assert written(destination) == {}
    extract(archive, destination, LIMITS)
    assert written(destination) == FILES


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_no_link_is_made_or_followed(tmp_path, destination, kind):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    data = tarred(
        {"model.onnx": b"m", "folder/pwned": b"evil"},
        extra=(link("folder", tarfile.SYMTYPE, str(tmp_path)), link("stolen", kind, str(secret))),
    )
    extract(packed(tmp_path, data), destination, LIMITS)
    assert written(destination) == {"model.onnx": b"m", "folder/pwned": b"evil"}
    assert not (tmp_path / "pwned").exists()


def test_names_that_lead_out_are_passed_over(tmp_path, destination, pack):
    extract(packed(tmp_path, pack({"../evil": b"1", "/tmp/evil": b"2", "model.onnx": b"m"})), destination, LIMITS)
    assert written(tmp_path).keys() == {"archive", "model/model.onnx"}


def test_an_archive_beyond_the_limit_leaves_nothing(tmp_path, destination, pack):
    with pytest.raises(ArchiveError) as caught:
        extract(packed(tmp_path, pack(FILES)), destination, ArchiveLimits(unpacked_bytes=1 << 20))
    assert caught.value.reason is Reason.TOO_LARGE
    assert list(destination.iterdir()) == []


def test_the_limit_may_be_exactly_what_is_in_the_archive(tmp_path, destination, pack):
    size = sum(map(len, FILES.values()))
    extract(packed(tmp_path, pack(FILES)), destination, ArchiveLimits(unpacked_bytes=size))
    assert written(destination) == FILES


def test_a_wrong_checksum_leaves_nothing(tmp_path, destination, pack):
    data = bytearray(pack(FILES))
    # tar protects its headers alone: that of the second file.
    place = {
        zipped: data.rfind(b"PK\x01\x02") + 16,
        tarred: data.find(b"resnet50/weights.bin"),
        targz: len(data) - 5,
    }[pack]
    data[place] ^= 1
    with pytest.raises(ArchiveError) as caught:
        extract(packed(tmp_path, bytes(data)), destination, LIMITS)
    assert caught.value.reason is Reason.CORRUPT
    assert list(destination.iterdir()) == []


def test_an_archive_that_lies_in_the_folder_under_the_name_of_the_model_can_make_room_for_it(destination, pack):
    archive = destination / "model.onnx"
    archive.write_bytes(pack({"model.onnx": b"m"}))
    with pytest.raises(ArchiveError):
        extract(archive, destination, LIMITS)
    extract(archive, destination, LIMITS, remove_archive=True)
    assert written(destination) == {"model.onnx": b"m"}


def test_an_archive_cannot_replace_the_folder_that_it_lies_in(destination, pack):
    (destination / ".fetch").mkdir()
    archive = destination / ".fetch" / "archive"
    archive.write_bytes(pack({".fetch/unpacked": b"", "model.onnx": b"m"}))
    with pytest.raises(ArchiveError) as caught:
        extract(archive, destination, LIMITS, remove_archive=True)
    assert ".fetch" in caught.value.message
    assert archive.exists()


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_a_file_that_is_a_folder_too_is_refused(tmp_path, destination, pack, names):
    with pytest.raises(ArchiveError):
        extract(packed(tmp_path, pack(dict.fromkeys(names, b"x"))), destination, LIMITS)
    assert list(destination.iterdir()) == []


def test_a_gzip_archive_is_unpacked_in_a_single_pass(tmp_path, destination, monkeypatch):
    read = []
    real = FileReader.read_at
    monkeypatch.setattr(FileReader, "read_at", lambda self, *at: read.append(at[1] - at[0]) or real(self, *at))
    archive = packed(tmp_path, targz(FILES))
    extract(archive, destination, LIMITS)
    assert sum(read) < 1.1 * archive.stat().st_size


def test_a_destination_that_is_not_there_is_an_error_of_the_system(tmp_path, pack):
    with pytest.raises(OSError):
        extract(packed(tmp_path, pack(FILES)), tmp_path / "missing", LIMITS)
