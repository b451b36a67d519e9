"""Installing the operator as a platform team does: by Helm, from the chart of this repository."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.layout import ROOT, STATE
from tests.cluster.progress import locked
from tests.cluster.project_images import IMAGES, build_project_images

CHART = ROOT / "charts" / "onnx-operator"
RELEASE = "onnx-operator"
NAMESPACE = "onnx-operator-system"
_CONTENT = "onnx-operator.dev/image-content"


@dataclass(frozen=True)
class Images:
    """References of the two images that the cluster's nodes can pull or already have."""

    operator: str
    server: str


def install_operator(
    cluster: Cluster,
    settings: Mapping[str, Any],
    *,
    release: str = RELEASE,
    namespace: str = NAMESPACE,
    images: Images | None = None,
    values: Mapping[str, Any] | None = None,
    timeout: float = 180,
) -> None:
    """Install the operator or bring it up to date, and wait until it is ready.

    `settings` is the chart's value of that name; `values` are merged over what follows from the rest. Without
    `images` those of this repository are built and loaded, which only the local cluster can be given.
    """
    if not (CHART / "Chart.yaml").exists():
        raise ClusterError(f"there is no chart to install at {CHART}")
    if not cluster.is_local and images is None:
        raise ClusterError("this cluster cannot be given images: say where it finds the operator's and the server's")
    content = "" if images else _load_images()
    chosen = images or Images(IMAGES["operator"], IMAGES["server"])
    merged = _merge(_values(chosen, content, settings), values or {})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "values.yaml"
        file.write_text(yaml.safe_dump(merged))
        where = [release, str(CHART), "--namespace", namespace, "--create-namespace"]
        wait = ["--wait", f"--timeout={timeout:g}s"]
        with _alone(cluster, release, namespace):
            try:
                cluster.helm("upgrade", "--install", *where, "--values", str(file), *wait, timeout=timeout + 30)
            except ClusterError as error:
                raise ClusterError(f"the operator is not installed: {error}\n{cluster.diagnose(namespace)}") from error


@contextmanager
def _alone(cluster: Cluster, release: str, namespace: str) -> Iterator[None]:
    """Keep other installations away, and forget one that was killed: Helm would refuse to go on from it."""
    if not cluster.is_local:
        yield
        return
    with locked(STATE / "install.lock", "another installation of the operator"):
        unfinished = f"owner=helm,name={release},status in (pending-install, pending-upgrade, pending-rollback)"
        cluster.kubectl("delete", "secrets", f"--namespace={namespace}", f"--selector={unfinished}")
        yield


def _load_images() -> str:
    """Build and load this repository's images; return what changes with the content of the operator's."""
    keys = build_project_images()
    return hashlib.sha256(repr(sorted(keys.items())).encode()).hexdigest()[:16]


def _values(images: Images, content: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    repository, tag = split_reference(images.operator)
    values: dict[str, Any] = {
        "image": {"repository": repository, "tag": tag},
        "settings": {"serverImage": images.server, **settings},
    }
    # The tag of a local image never changes: only this tells that there is another one behind it.
    if content:
        values["podAnnotations"] = {_CONTENT: content}
    return values


def split_reference(reference: str) -> tuple[str, str]:
    """Repository and tag of an image reference; a port of the registry is no tag."""
    if "@" in reference:
        raise ClusterError(f"{reference}: the chart takes an image by its tag, not by its digest")
    repository, colon, tag = reference.rpartition(":")
    if not colon or "/" in tag:
        return reference, "latest"
    return repository, tag


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(below, value)
        else:
            merged[key] = value
    return merged
