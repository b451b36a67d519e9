"""Which cluster the demonstration uses."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import lifecycle
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.layout import BIN
from tests.cluster.progress import run


@contextmanager
def target(context: str | None) -> Iterator[Cluster]:
    """The local cluster, brought up if it is not; or the one of a context in the user's kubeconfig."""
    if context is None:
        yield lifecycle.up()
        return
    # A file with this context alone: nothing that is run later can reach another cluster by mistake.
    with tempfile.TemporaryDirectory(prefix="onnx-demo-") as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(_only(context))
        cluster = Cluster(kubeconfig, programs=BIN)
        try:
            cluster.kubectl("get", "--raw=/readyz", "--request-timeout=15s")
        except ClusterError as error:
            raise ClusterError(f"the cluster of context {context} does not answer: {error}") from error
        yield cluster


def _only(context: str) -> str:
    built = BIN / "kubectl"
    kubectl = built if built.exists() else "kubectl"
    return run([kubectl, "config", "view", "--minify", "--flatten", "--raw", f"--context={context}"]).stdout
