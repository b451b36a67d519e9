"""Models of this machine, as ``kubectl onnx serve`` brings them to the server."""

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from onnx_operator.api.sources import SourceSettings
from onnx_operator.cli.fetching import Fetched, fetch_model
from onnx_operator.cli.inspect import inspect_model
from onnx_operator.model import archive as archives
from tests import models


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds one archive, and what is no model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = tmp_path / "release 1#"
    made.mkdir()
    (made / "README.md").write_text("# A model")
    (tmp_path / "m.onnx").write_bytes(models.linear())
    return made


def brought(uri: str) -> Fetched:
    result = inspect_model(uri)
    assert result.refusal is None, result.refusal
    return fetch_model(uri, result, SourceSettings(), workload_identity=False)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_folder_with_one_archive_serves_like_the_archive(folder: Path, kind: str) -> None:
    packed = folder / f"m.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(packed, "w") as archive:
            archive.write(folder.parent / "m.onnx", "v1/m.onnx")
    else:
        with tarfile.open(packed, "w:gz") as archive:
            archive.add(folder.parent / "m.onnx", "v1/m.onnx")
    for uri in (str(folder), f"{folder}/", folder.as_uri(), f"file://localhost{folder.as_uri()[7:]}", str(packed)):
        found = brought(uri)
        assert found.path.name == "m.onnx"
        assert found.path.read_bytes() == models.linear()
        assert not found.downloaded
        # What is there already is not unpacked again.
        inode = found.path.stat().st_ino
        assert brought(uri).path.stat().st_ino == inode


def test_an_archive_is_unpacked_again_where_the_cache_has_lost_its_model(folder: Path) -> None:
    with zipfile.ZipFile(folder / "m.zip", "w") as archive:
        archive.write(folder.parent / "m.onnx", "v1/m.onnx")
        archive.writestr("v1/notes.txt", "kept")
    lost = brought(str(folder)).path
    lost.unlink()
    assert brought(str(folder)).path == lost
    assert lost.read_bytes() == models.linear()


def test_an_archive_that_another_process_has_just_unpacked_is_taken_as_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(folder / "m.zip", "w") as archive:
        archive.write(folder.parent / "m.onnx", "v1/m.onnx")
    extract = archives.extract

    def slowly(*arguments: Any) -> None:
        extract(*arguments)
        monkeypatch.setattr(archives, "extract", extract)
        brought(str(folder))

    monkeypatch.setattr(archives, "extract", slowly)
    assert brought(str(folder)).path.read_bytes() == models.linear()


def test_a_folder_with_one_model_serves_where_it_lies(folder: Path) -> None:
    model = folder / "sub" / "m.onnx"
    model.parent.mkdir()
    model.write_bytes(models.linear())
    for uri in (str(folder), folder.as_uri(), str(model)):
        assert brought(uri).path == model
