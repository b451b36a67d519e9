"""The Debian packages that a node needs, installed where that is possible."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.cluster.errors import ClusterError, ClusterUnavailableError
from tests.cluster.progress import run, step

# What is looked for, the package that holds it, and what it is for.
_NEEDED = (
    ("runc", "runc", "starts containers"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins", "gives pods their network"),
    ("ip", "iproute2", "joins host and node"),
    ("nft", "nftables", "service addresses"),
    ("conntrack", "conntrack", "service addresses"),
    ("buildah", "buildah", "builds images without a daemon"),
    ("mmdebstrap", "mmdebstrap", "makes the base image"),
    ("mount", "mount", "the node's file system"),
    ("unshare", "util-linux", "makes the node"),
    ("nsenter", "util-linux", "enters the node"),
)


def missing() -> list[tuple[str, str, str]]:
    """What is needed and not there: program, package, purpose."""
    found = []
    for program, package, purpose in _NEEDED:
        there = Path(program).exists() if program.startswith("/") else _which(program) is not None
        if not there:
            found.append((program, package, purpose))
    return found


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def refuse_unfit_machine() -> None:
    """Fail with the one reason why no cluster can run here, if there is one."""
    if not sys.platform.startswith("linux"):
        raise ClusterUnavailableError(f"a local cluster needs Linux; this is {sys.platform}")
    if os.geteuid() != 0:
        raise ClusterUnavailableError("a local cluster needs root, for namespaces, links and control groups")
    if "overlay" not in Path("/proc/filesystems").read_text() and not shutil.which("modprobe"):
        raise ClusterUnavailableError("a local cluster needs the kernel's overlay file system")


def ensure() -> None:
    """Install what is missing, or list it with the reason."""
    lacking = missing()
    if not lacking:
        return
    packages = sorted({package for _, package, _ in lacking})
    if not _is_debian() or not shutil.which("apt-get"):
        listed = [f"  {program} (Debian package {package}): {why}" for program, package, why in lacking]
        reason = "a local cluster cannot run here because these programs are missing:"
        raise ClusterUnavailableError("\n".join([reason, *listed]))
    with step(f"packages: {' '.join(packages)}"):
        install = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        try:
            run(install, env=environment)
        except ClusterError:
            # The lists may be old, or there may be none yet.
            run(["apt-get", "update"], env=environment)
            run(install, env=environment)
    if lacking := missing():
        names = ", ".join(program for program, _, _ in lacking)
        raise ClusterUnavailableError(f"still missing after installing: {names}")


def _is_debian() -> bool:
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        return False
    return any(f"{key}=debian" in text.replace('"', "") for key in ("ID", "ID_LIKE"))
