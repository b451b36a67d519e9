"""Programs for tests that come as npm packages, pinned by lock files and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterUnavailableError
from tests.cluster.layout import cache
from tests.cluster.progress import locked, run, step

_FOLDER = Path(__file__).with_name("tools")
_FILES = ("package.json", "package-lock.json")


@dataclass(frozen=True)
class Package:
    """What is run with node: a folder with a lock file, and the script in it."""

    folder: str
    script: str
    minutes: float = 1


PACKAGES = {"azurite-blob": Package("azurite", "node_modules/azurite/dist/src/blob/main.js")}


def command(name: str) -> list[str]:
    """The beginning of the command line that runs a program; it is installed if need be.

    Raises :class:`ClusterUnavailableError` where there is no node or npm.
    """
    for needed in ("node", "npm"):
        if not shutil.which(needed):
            raise ClusterUnavailableError(f"{name} is an npm package, and there is no {needed} (20 or later) in PATH")
    package = PACKAGES[name]
    target = cache() / "tools" / f"{package.folder}-{_key(package)}"
    if not target.is_dir():
        with locked(cache() / "tools" / f".{package.folder}.lock", f"another installation of {package.folder}"):
            if not target.is_dir():
                with step(f"install {package.folder} (about {package.minutes:g} minutes)"):
                    _install(package, target)
    os.utime(target)
    return ["node", str(target / package.script)]


def _key(package: Package) -> str:
    digest = hashlib.sha256()
    for name in _FILES:
        digest.update((_FOLDER / package.folder / name).read_bytes())
    return digest.hexdigest()[:16]


def _install(package: Package, target: Path) -> None:
    # Complete or absent: an installation that was killed leaves only a folder that nobody looks into.
    with tempfile.TemporaryDirectory(prefix=f".{package.folder}-", dir=target.parent) as folder:
        built = Path(folder) / "package"
        built.mkdir()
        for name in _FILES:
            shutil.copy(_FOLDER / package.folder / name, built / name)
        # Without scripts nothing that was downloaded runs before a test runs it.
        run(["nice", "npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=built)
        built.rename(target)
