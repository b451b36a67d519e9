"""The project's own images, from the Dockerfiles that are also released."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from tests.cluster import images
from tests.cluster.errors import ClusterError
from tests.cluster.layout import ROOT, cache
from tests.cluster.progress import locked, run, step

IMAGES = {"operator": "localhost/onnx-operator:dev", "server": "localhost/onnx-server:dev"}
# Whatever an image can hold of the repository; wheels are put beside it.
_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "operator", "requirements", "images")
# The Python of the base image, and the oldest C library that its wheels may want.
_PYTHON = "3.11"
_GLIBC = 36


def build_project_images(load: bool = True, only: str | None = None) -> dict[str, str]:
    """Build what changed and load what the node lacks; return the content's key by tag."""
    keys = {}
    for name, tag in IMAGES.items():
        if only in (None, name):
            keys[tag] = _image(name, tag, load)
    return keys


def _image(name: str, tag: str, load: bool) -> str:
    dockerfile = ROOT / "images" / name / "Dockerfile"
    requirements = ROOT / "requirements" / f"{name}.txt"
    for path in (dockerfile, requirements):
        if not path.exists():
            raise ClusterError(f"{path} is missing: there is no image {name} to build yet")
    sources = [ROOT / source for source in _SOURCES if source not in ("requirements", "images")]
    parts = [dockerfile.parent, requirements, *(s for s in sources if s.exists())]
    key = images.content_key(parts, images.base_key())
    if load and images.in_node(tag) == key:
        return key
    archive = images.find_archive(tag, key)
    if archive is None:
        with tempfile.TemporaryDirectory(prefix="context-", dir=cache()) as folder:
            context = Path(folder)
            _fill(context, _wheels(requirements))
            archive, _ = images.build_image(dockerfile, context, tag, key=key)
    if load:
        images.import_archive(archive, tag, key)
    return key


def _fill(context: Path, wheels: Path) -> None:
    for source in _SOURCES:
        origin = ROOT / source
        if origin.is_dir():
            shutil.copytree(origin, context / source, ignore=shutil.ignore_patterns("__pycache__"))
        elif origin.exists():
            shutil.copy2(origin, context / source)
    # Linked, not copied: the server's wheels are a few hundred megabytes.
    shutil.copytree(wheels, context / "wheels", copy_function=os.link)
    with step("project wheel", quiet_below=2):
        build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
        run([*build, "--directory", context / "wheels"], cwd=ROOT)


def _wheels(requirements: Path) -> Path:
    """The locked wheels of an image, downloaded once for each content of its requirements."""
    key = hashlib.sha256(requirements.read_bytes() + _PYTHON.encode()).hexdigest()[:16]
    target = cache() / "wheels" / f"{requirements.stem}-{key}"
    with locked(cache() / "wheels" / ".lock", "another download of wheels"):
        if target.is_dir():
            return target
        with (
            step(f"wheels of {requirements.name}"),
            tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as folder,
        ):
            downloaded = Path(folder) / "wheels"
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(downloaded)]
            run([*command, *_other_python()])
            downloaded.rename(target)
    return target


def _other_python() -> list[str]:
    """What pip has to be told when the image's Python is not the one that runs this."""
    if ".".join(map(str, sys.version_info[:2])) == _PYTHON:
        return []
    machine = platform.machine()
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(_GLIBC, 4, -1)]
    tags += [f"manylinux2014_{machine}", f"linux_{machine}"]
    return [f"--python-version={_PYTHON}", "--implementation=cp", *(f"--platform={tag}" for tag in tags)]
