"""A model on this machine: judged, and fetched with the pods' own code where it lies elsewhere."""

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click

from onnx_operator.api.contract import FetchPlan
from onnx_operator.api.report import InspectionResult
from onnx_operator.api.schemes import scheme_of
from onnx_operator.api.sources import ModelFiles, SourceSettings
from onnx_operator.api.urls import shown_uri
from onnx_operator.cli import interrupts
from onnx_operator.cli.credentials import credentials_of
from onnx_operator.model.sources import SourceError
from onnx_operator.model.sources.files import local_path


@dataclass(frozen=True)
class Fetched:
    """Where the model's ``.onnx`` file is now, in which folder, and whether it had to be downloaded."""

    path: Path
    folder: Path
    downloaded: bool = False


def cache_folder() -> Path:
    """Where models of other machines are kept (https://specifications.freedesktop.org/basedir-spec/)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onnx-operator" / "models"


def is_local(uri: str) -> bool:
    """Whether an argument names something on this machine."""
    return scheme_of(uri) in ("", "file") or os.path.exists(uri)  # noqa: PTH110 - raises nothing for odd names


def fetch_model(
    uri: str, result: InspectionResult, settings: SourceSettings, *, workload_identity: bool, typed: bool = True
) -> Fetched:
    """Make the files of an accepted inspection lie on this machine. Raises click's exceptions.

    What is here already is verified, not downloaded again: the folder's name says which bytes it holds. ``typed`` tells
    that a person gave the URI, not a manifest.
    """
    files = result.files
    if files is None:
        raise ValueError("an accepted inspection holds the model's files")
    local = _local_file(local_path(uri), files) if is_local(uri) else None
    if local and not files.archive:
        return Fetched(local, local_path(uri) if local_path(uri).is_dir() else local.parent)
    folder = cache_folder() / _key(uri, files)
    entry = folder / files.model
    there = entry.is_file()
    if local:
        return Fetched(_unpack(local, folder, files), folder)
    from onnx_operator.server.fetching.fetch import Retries, fetch
    from onnx_operator.server.fetching.plan import FetchError

    folder.mkdir(parents=True, exist_ok=True)
    plan = FetchPlan(uri=uri, model=files, directory=str(folder), workload_identity=workload_identity, sources=settings)
    try:
        credentials = credentials_of(uri, os.environ, typed=typed)
        interrupts.run(fetch(plan, credentials, Retries(attempts=3), folder))
    except (FetchError, SourceError) as error:
        raise click.ClickException(f"{shown_uri(uri)}: {error.reason}: {error.message}") from None
    return Fetched(entry, folder, downloaded=not there)


def _local_file(given: Path, files: ModelFiles) -> Path:
    """The model's file, or the archive that it lies in; ``given`` may be the folder of either."""
    if not given.is_dir():
        return given
    return given / (files.files[0].name if files.archive else files.model)


def _unpack(archive: Path, folder: Path, files: ModelFiles) -> Path:
    from onnx_operator.model.archive import ArchiveError, ArchiveLimits, extract

    entry = folder / files.model
    if not entry.is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            try:
                (Path(temporary) / "model").mkdir()
                extract(archive, Path(temporary) / "model", ArchiveLimits())
            except ArchiveError as error:
                raise click.ClickException(f"{archive}: {error}") from None
            if not entry.is_file():
                # What a cache has lost its model of is of no use; what another process has just unpacked is the same.
                shutil.rmtree(folder, ignore_errors=True)
                (Path(temporary) / "model").rename(folder)
    return entry


def _key(uri: str, files: ModelFiles) -> str:
    known = [uri, *(f"{file.name} {file.sha256} {file.pin} {file.size_bytes}" for file in files.files)]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:24]
