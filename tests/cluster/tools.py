"""The programs of a cluster, built from pinned modules and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterUnavailableError
from tests.cluster.layout import BIN, cache
from tests.cluster.progress import locked, run, step

_FOLDER = Path(__file__).with_name("tools")
_VERSION = "k8s.io/component-base/version"
_UNUSED_DAYS = 45


@dataclass(frozen=True)
class Row:
    """Tools that share one go.mod."""

    programs: tuple[str, ...]
    # The name a program is built under, where it says too little.
    rename: tuple[tuple[str, str], ...] = ()
    link_flags: str = ""
    minutes: float = 1.5


ROWS = {
    "kubernetes": Row(
        (
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-proxy",
            "kube-scheduler",
            "kubectl",
            "kubelet",
        ),
        rename=(("server", "etcd"),),
        link_flags=f"-X {_VERSION}.gitVersion=v1.35.4 -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=35"
        f" -X {_VERSION}.gitTreeState=clean",
        minutes=5,
    ),
    "containerd": Row(("containerd", "containerd-shim-runc-v2", "ctr")),
    "coredns": Row(("coredns",)),
    "metrics-server": Row(("metrics-server",)),
    "kwok": Row(("kwok",)),
    "helm": Row(("helm",), link_flags="-X helm.sh/helm/v4/internal/version.version=v4.3.1"),
    "versitygw": Row(("versitygw",)),
    "fake-gcs-server": Row(("fake-gcs-server",), minutes=1),
    "oras": Row(("oras",), minutes=1),
    "grpcurl": Row(("grpcurl",), minutes=1),
    "ghz": Row(("ghz",), minutes=1),
}
# What `up` builds; the other rows are for tests that ask for them.
CLUSTER_ROWS = ("kubernetes", "containerd", "coredns", "metrics-server", "kwok", "helm")
API_SERVER_ROWS = ("kubernetes",)


def _go_version() -> str:
    if not shutil.which("go"):
        raise ClusterUnavailableError(
            "the cluster's programs are built from source, and there is no Go compiler (1.26 or later) in PATH"
        )
    return run(["go", "env", "GOVERSION"], cwd=_FOLDER).stdout.strip()


def _key(name: str, go: str) -> str:
    digest = hashlib.sha256()
    for part in ("go.mod", "go.sum"):
        digest.update((_FOLDER / name / part).read_bytes())
    digest.update(f"{ROWS[name].link_flags} {ROWS[name].rename} {go}".encode())
    return digest.hexdigest()[:16]


def _build(name: str, target: Path) -> None:
    row = ROWS[name]
    target.parent.mkdir(parents=True, exist_ok=True)
    # Complete or absent: a build that was killed leaves only a folder that nobody looks into.
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=target.parent) as folder:
        built = Path(folder) / "bin"
        build = ["nice", "go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false"]
        linking = ["-ldflags", f"-s -w {row.link_flags}".strip()]
        run(
            [*build, *linking, "-o", f"{built}/", "tool"],
            cwd=_FOLDER / name,
            env={"CGO_ENABLED": "0", "GOFLAGS": ""},
        )
        for old, new in row.rename:
            (built / old).rename(built / new)
        built.rename(target)


def ensure(*names: str) -> None:
    """Build what is not in the cache, and link all of it into `.cluster/bin`."""
    go = _go_version()
    for name in names:
        target = cache() / "tools" / f"{name}-{_key(name, go)}"
        if not target.is_dir():
            with locked(cache() / "tools" / f".{name}.lock", f"another build of {name}"):
                if not target.is_dir():
                    with step(f"build {name} (about {ROWS[name].minutes:g} minutes on two cores)"):
                        _build(name, target)
                    _forget_unused(target.parent)
        os.utime(target)
        BIN.mkdir(parents=True, exist_ok=True)
        for program in ROWS[name].programs:
            _link(BIN / program, target / program)


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def _forget_unused(folder: Path) -> None:
    """Drop builds that no clone has asked for in a long time, and what killed builds left."""
    now = time.time()
    for path in folder.iterdir():
        age = (now - path.stat().st_mtime) / 86400
        if path.is_dir() and age > (1 if path.name.startswith(".") else _UNUSED_DAYS):
            shutil.rmtree(path, ignore_errors=True)


def program(name: str) -> Path:
    """The path of a built tool; builds it if need be."""
    for row, content in ROWS.items():
        if name in content.programs:
            if not (BIN / name).exists():
                ensure(row)
            return BIN / name
    raise KeyError(name)
