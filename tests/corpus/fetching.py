"""Brings the listed archives with the indexes' own clients, as the user has set them up, and unpacks the models."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import parse_wheel_filename

from tests.cluster.errors import ClusterError
from tests.cluster.layout import cache
from tests.cluster.progress import locked, run, step
from tests.corpus.archives import ArchiveError, take
from tests.corpus.listing import Package, packages

_SECONDS = 900
_DONE = ".complete.json"


class CorpusError(Exception):
    """A package that cannot be had, or is not what the list says."""


@dataclass(frozen=True)
class Stranger:
    """One model of a package."""

    package: Package
    inside: str
    path: Path

    @property
    def name(self) -> str:
        """Tells it from all others, the same on every machine."""
        return f"{self.package.name}/{self.inside}"


def folder() -> Path:
    """Where the models are: the user's cache folder, which serves every clone."""
    return cache() / "corpus"


def present(listed: Sequence[Package] | None = None) -> tuple[list[Stranger], list[Package]]:
    """The models that are here, and the packages that are not."""
    found: list[Stranger] = []
    missing: list[Package] = []
    for package in listed if listed is not None else packages():
        done = folder() / package.folder / _DONE
        inside = json.loads(done.read_text())["models"] if done.exists() else []
        if not inside or json.loads(done.read_text())["take"] != list(package.take):
            missing.append(package)
        found += [Stranger(package, name, folder() / package.folder / name) for name in inside]
    return found, missing


def fetch(package: Package, here: Sequence[Path] = ()) -> None:
    """Bring a package's models into the cache, where they are not there yet.

    ``here`` are folders in which the archive may already be. Raises :class:`CorpusError`.
    """
    folder().mkdir(parents=True, exist_ok=True)
    with locked(folder() / ".lock", "another run of this"), tempfile.TemporaryDirectory(dir=folder()) as name:
        _, missing = present([package])
        if not missing:
            return
        with step(f"{package.name} {package.version}"):
            working = Path(name)
            archive = next((f / package.file for f in here if (f / package.file).is_file()), None)
            archive = archive or _download(package, working)
            _check(package, archive)
            _unpack(package, archive, working / "models")


def _unpack(package: Package, archive: Path, unpacked: Path) -> None:
    try:
        inside = [str(path) for path in take(archive, package.take, unpacked)]
    except ArchiveError as error:
        raise CorpusError(f"{package.name}: {error}") from error
    # Complete or absent: a run that was killed leaves only a folder that nobody looks into.
    (unpacked / _DONE).write_text(json.dumps({"models": inside, "take": list(package.take)}, indent=1))
    target = folder() / package.folder
    shutil.rmtree(target, ignore_errors=True)
    unpacked.rename(target)


def _check(package: Package, archive: Path) -> None:
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        raise CorpusError(
            f"{package.name}: {package.file} has the sha256 {digest}, the list says {package.sha256}; "
            "if the package's makers have replaced the file, look at it before changing the list"
        )


def _download(package: Package, target: Path) -> Path:
    command = _pip(package, target) if package.index == "pypi" else _npm(package, target)
    try:
        run(command, timeout=_SECONDS, cwd=target)
    except (ClusterError, OSError) as error:
        raise CorpusError(
            f"{package.name} {package.version} cannot be fetched with {command[0]}: {error}\n"
            f"Set up the client for an index that has it, or put {package.file} into a folder and name that with --from"
        ) from error
    archive = target / package.file
    if not archive.is_file():
        got = sorted(path.name for path in target.iterdir())
        raise CorpusError(f"{package.name}: the index gave {got} instead of {package.file}")
    return archive


def _pip(package: Package, target: Path) -> list[str | Path]:
    wanted = target / "requirements.txt"
    wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    command: list[str | Path] = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", target, "--requirement", wanted]
    # What is inside is not run: the file for the listed platform is taken on every other one too.
    tags = sorted(parse_wheel_filename(package.file)[3], key=str)
    if {tag.platform for tag in tags} != {"any"}:
        for tag in tags:
            command += ["--platform", tag.platform]
        (interpreter,) = {tag.interpreter for tag in tags}
        command += ["--implementation", interpreter[:2], "--abi", tags[0].abi]
        if len(interpreter) > len("cp3"):
            command += ["--python-version", interpreter[2:]]
    return command


def _npm(package: Package, target: Path) -> list[str | Path]:
    if not shutil.which("npm"):
        raise CorpusError(f"{package.name} is an npm package, and there is no npm in PATH")
    return ["npm", "pack", f"{package.name}@{package.version}", "--pack-destination", target, "--ignore-scripts"]
