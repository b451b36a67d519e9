"""Prometheus and promtool of Debian's package, unpacked into the user's cache folder: nothing is installed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tests.cluster.errors import ClusterError, ClusterUnavailableError
from tests.cluster.layout import cache
from tests.cluster.progress import locked, run, step

_PACKAGE = "prometheus"


def program(name: str) -> Path:
    """The path of ``prometheus`` or ``promtool``, had from Debian if need be; no root is needed.

    Raises :class:`ClusterUnavailableError` where that is not possible, with the reason.
    """
    if found := shutil.which(name):
        return Path(found)
    target = cache() / "tools" / "prometheus-debian"
    if not target.is_dir():
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            raise ClusterUnavailableError(f"{name} is missing, and it comes from Debian's package {_PACKAGE}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent / ".prometheus.lock", "another download of Prometheus"):
            if not target.is_dir():
                with step("unpack Debian's package prometheus"):
                    _unpack(target)
    os.utime(target)
    return target / name


def _unpack(target: Path) -> None:
    # Complete or absent: what is interrupted leaves only a folder that nobody looks into.
    with tempfile.TemporaryDirectory(prefix=".prometheus-", dir=target.parent) as folder:
        try:
            run(["apt-get", "download", _PACKAGE], cwd=Path(folder))
        except ClusterError:
            # The lists may be old, or there may be none yet.
            run(["apt-get", "update"])
            run(["apt-get", "download", _PACKAGE], cwd=Path(folder))
        (package,) = Path(folder).glob("*.deb")
        run(["dpkg", "-x", package, f"{folder}/files"])
        (Path(folder) / "files/usr/bin").rename(target)
