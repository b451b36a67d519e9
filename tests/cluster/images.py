"""Container images without a daemon: built by buildah on the host, imported into the node."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.cluster import machine, packages
from tests.cluster.errors import ClusterError
from tests.cluster.layout import BASE_IMAGE, BIN, CONTAINERD_SOCKET, IN_NODE, PAUSE_IMAGE, cache
from tests.cluster.progress import locked, run, step

_LABEL = "onnx-operator.dev/content"
_SUITE = "bookworm"
# The last one in place of the package that would bring all of Perl.
_PACKAGES = "python3,python3-venv,ca-certificates,usr-is-merged"
_DEBIAN_OPTIONS = (
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "info", "locale", "man")),
)
# `python` as in the official images; the command lets a pod idle, which also makes it a sandbox image.
_BASE_DOCKERFILE = """\
FROM scratch
ADD base.tar /
RUN ln -s /usr/bin/python3 /usr/local/bin/python
CMD ["sleep", "infinity"]
"""
_KEPT_ARCHIVES = 2
# buildah leaves its storage mounted on itself, and a build that is killed leaves more.
_OWN_MOUNTS: tuple[str, ...] = ("unshare", "--mount")


def _folder() -> Path:
    folder = cache() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _buildah(*args: str | Path) -> str:
    storage = cache() / "buildah"
    command: list[str | Path] = [*_OWN_MOUNTS, "buildah", "--root", storage / "storage", "--runroot", storage / "run"]
    return run([*command, "--storage-driver", "overlay", *args]).stdout


def content_key(paths: Iterable[Path], *extra: str) -> str:
    """A hash of files and of all files below folders; names, modes and content count."""
    digest = hashlib.sha256(repr(extra).encode())
    for top in paths:
        files = [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file())
        for file in files:
            if "__pycache__" in file.parts:
                continue
            name = file.relative_to(top.parent)
            executable = bool(file.stat().st_mode & 0o100)
            digest.update(f"{name}\0{executable}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:32]


def _base_key() -> str:
    return content_key([], _SUITE, _PACKAGES, *_DEBIAN_OPTIONS, _BASE_DOCKERFILE)


def _archive(tag: str, key: str) -> Path:
    return _folder() / f"{tag.replace('/', '_').replace(':', '_')}-{key}.tar"


def ensure_base() -> Path:
    """The archive of the base image, a small Debian with Python; made when it is not in the cache."""
    archive = _archive(BASE_IMAGE, _base_key())
    if archive.exists():
        return archive
    packages.ensure()
    with locked(_folder() / ".lock", "another build of an image"):
        if not archive.exists():
            with step("base image"), tempfile.TemporaryDirectory(dir=_folder()) as context:
                tar = Path(context) / "base.tar"
                make: list[str | Path] = [*_OWN_MOUNTS, "mmdebstrap", "--variant=minbase", f"--include={_PACKAGES}"]
                run([*make, *_DEBIAN_OPTIONS, _SUITE, tar], env={"TMPDIR": context})
                dockerfile = Path(context) / "Dockerfile"
                dockerfile.write_text(_BASE_DOCKERFILE)
                _build(dockerfile, Path(context), BASE_IMAGE, {})
                _export(BASE_IMAGE, archive)
    return archive


def _build(dockerfile: Path, context: Path, tag: str, build_args: Mapping[str, str]) -> None:
    arguments = [part for name, value in build_args.items() for part in ("--build-arg", f"{name}={value}")]
    # Without cached layers: the cache does not notice that a folder bound into a step has changed.
    options = ["--isolation", "chroot", "--pull-never", "--quiet", "--tag", tag, *arguments]
    _buildah("bud", *options, "--file", dockerfile, context)


def _export(tag: str, archive: Path) -> None:
    fresh = archive.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    _buildah("push", "--quiet", tag, f"docker-archive:{fresh}:{tag}")
    fresh.replace(archive)
    same_name = archive.parent.glob(f"{archive.name.rpartition('-')[0]}-*.tar")
    for path in sorted(same_name, key=lambda p: p.stat().st_mtime, reverse=True)[_KEPT_ARCHIVES:]:
        path.unlink(missing_ok=True)
    # What was replaced under this name is of no more use.
    for image in _buildah("images", "--quiet", "--filter", "dangling=true").split():
        try:
            _buildah("rmi", image)
        except ClusterError:
            # Still the base of another image.
            continue


def _ensure_base_in_storage() -> None:
    archive = _archive(BASE_IMAGE, _base_key())
    # Clones of different versions share the storage, and each calls its base by the same name.
    stamp = cache() / "buildah" / "base"
    if not stamp.exists() or stamp.read_text() != _base_key():
        _buildah("pull", "--quiet", f"docker-archive:{archive}")
        stamp.write_text(_base_key())


def find_archive(tag: str, key: str) -> Path | None:
    """The archive of an image with this content, if it was built before."""
    archive = _archive(tag, key)
    if not archive.exists():
        return None
    # Old ones are dropped by age of use.
    os.utime(archive)
    return archive


def build_image(
    dockerfile: Path,
    context: Path,
    tag: str,
    build_args: Mapping[str, str] | None = None,
    key: str | None = None,
) -> tuple[Path, str]:
    """Build an image unless its content was built before; return its archive and its content's key.

    `key` names the content where that is known without reading the whole context. `FROM ${BASE}` gets the
    local base image unless the arguments say otherwise.
    """
    packages.ensure()
    arguments = {"BASE": BASE_IMAGE, **(build_args or {})}
    if key is None:
        key = content_key([dockerfile, context], repr(sorted(arguments.items())), _base_key())
    archive = _archive(tag, key)
    with locked(_folder() / ".lock", "another build of an image"):
        if archive.exists():
            os.utime(archive)
            return archive, key
    ensure_base()
    with locked(_folder() / ".lock", "another build of an image"):
        if not archive.exists():
            _ensure_base_in_storage()
            with step(f"build {tag}"):
                _build(dockerfile, context, tag, arguments)
                _export(tag, archive)
    return archive, key


def ctr(*args: str) -> str:
    """Run containerd's client in the node."""
    command = [str(IN_NODE / "bin/ctr"), "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", *args]
    if not (BIN / "ctr").exists():
        raise ClusterError("the node's tools are not built; run `python -m tests.cluster up`")
    return run(machine.enter(command)).stdout


def in_node(tag: str) -> str | None:
    """The key of the content that the node has under a tag; None when it has none."""
    for line in ctr("images", "list", f"name=={tag}").splitlines()[1:]:
        reference, *_, labels = line.split()
        if reference == tag:
            return next((x.partition("=")[2] for x in labels.split(",") if x.startswith(f"{_LABEL}=")), "")
    return None


def import_archive(archive: Path, tag: str | None = None, key: str | None = None) -> None:
    """Import an image archive into the node, unless the tag has this content already."""
    if tag and key and in_node(tag) == key:
        return
    with step(f"load {tag or archive.name}"):
        ctr("images", "import", str(archive.resolve()))
        if tag and key:
            ctr("images", "label", tag, f"{_LABEL}={key}")


def load_image(tag: str) -> None:
    """Bring an image from the build storage into the node."""
    if not _buildah("images", "--quiet", "--filter", f"reference={tag}").split():
        raise ClusterError(f"{tag} is neither a file nor an image that was built here")
    with tempfile.TemporaryDirectory(dir=_folder()) as folder:
        archive = Path(folder) / "image.tar"
        _buildah("push", "--quiet", tag, f"docker-archive:{archive}:{tag}")
        import_archive(archive)


def load_base() -> None:
    """Give the node its base image, which also holds pods' namespaces open."""
    import_archive(ensure_base(), BASE_IMAGE, _base_key())
    ctr("images", "tag", "--force", BASE_IMAGE, PAUSE_IMAGE)


def base_key() -> str:
    """Names the content of the base image."""
    return _base_key()


def forget(tag: str) -> None:
    """Remove an image's archives from the cache, so that the next build is a real one."""
    for path in _folder().glob(f"{tag.replace('/', '_').replace(':', '_')}-*.tar"):
        path.unlink(missing_ok=True)


def remove_storage() -> None:
    """Drop everything that buildah keeps; archives stay."""
    shutil.rmtree(cache() / "buildah", ignore_errors=True)
