"""A model on this machine: judged, and fetched with the pods' own code where it lies elsewhere."""

import asyncio
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click

from onnx_operator.api.contract import FetchPlan
from onnx_operator.api.report import InspectionResult
from onnx_operator.api.schemes import scheme_of
from onnx_operator.api.sources import ModelFiles, SourceSettings
from onnx_operator.cli.credentials import credentials_of
from onnx_operator.model.sources import SourceError


@dataclass(frozen=True)
class Brought:
    """Where the model's ``.onnx`` file is now, and whether it had to be downloaded."""

    path: Path
    downloaded: bool = False


def cache_folder() -> Path:
    """Where models of other machines are kept (https://specifications.freedesktop.org/basedir-spec/)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onnx-operator" / "models"


def is_local(uri: str) -> bool:
    """Whether an argument names something on this machine."""
    return scheme_of(uri) in ("", "file") or os.path.exists(uri)  # noqa: PTH110 - raises nothing for odd names


def bring(
    uri: str, result: InspectionResult, settings: SourceSettings, *, workload_identity: bool, typed: bool = True
) -> Brought:
    """Make the files of an accepted inspection lie on this machine. Raises click's exceptions.

    What is here already is verified, not downloaded again: the folder's name says which bytes it holds. ``typed`` tells
    that a person gave the URI, not a manifest.
    """
    files = result.files
    if files is None:
        raise ValueError("an accepted inspection holds the model's files")
    local = is_local(uri)
    if local and not files.archive:
        given = Path(uri.removeprefix("file://"))
        return Brought(given if given.is_file() else given / files.model)
    folder = cache_folder() / _key(uri, files)
    entry = folder / files.model
    there = entry.is_file()
    if local:
        return Brought(_unpack(Path(uri.removeprefix("file://")), folder, files))
    from onnx_operator.server.fetching.fetch import Retries, fetch
    from onnx_operator.server.fetching.plan import FetchError

    folder.mkdir(parents=True, exist_ok=True)
    plan = FetchPlan(uri=uri, model=files, directory=str(folder), workload_identity=workload_identity, sources=settings)
    try:
        credentials = credentials_of(uri, os.environ, typed=typed)
        asyncio.run(fetch(plan, credentials, Retries(attempts=3), folder))
    except (FetchError, SourceError) as error:
        raise click.ClickException(f"{uri.partition('?')[0]}: {error.reason}: {error.message}") from None
    return Brought(entry, downloaded=not there)


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
            (Path(temporary) / "model").rename(folder)
    return entry


def _key(uri: str, files: ModelFiles) -> str:
    known = [uri, *(f"{file.name} {file.sha256} {file.pin} {file.size_bytes}" for file in files.files)]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:24]
