"""A way from this machine to a Service, in any cluster."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.layout import KUBECTL_CACHE

_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


@contextmanager
def forward(cluster: Cluster, namespace: str, service: str, port: int, timeout: float = 30) -> Iterator[str]:
    """Forward a free local port to a port of a Service; gives the URL of this end."""
    built = cluster.programs / "kubectl" if cluster.programs else None
    program = str(built) if built and built.exists() else "kubectl"
    access = [f"--kubeconfig={cluster.kubeconfig}", f"--cache-dir={KUBECTL_CACHE}", f"--namespace={namespace}"]
    command = [program, *access, "port-forward", "--address=127.0.0.1", f"service/{service}", f":{port}"]
    # A file, because a pipe that nobody empties would stop kubectl in the end.
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield f"http://127.0.0.1:{_local_port(process, log, timeout)}"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _local_port(process: subprocess.Popen[bytes], log: Path, timeout: float) -> int:
    deadline = time.monotonic() + timeout
    while True:
        said = log.read_text(errors="replace")
        if found := _FORWARDING.search(said):
            return int(found[1])
        if process.poll() is not None or time.monotonic() > deadline:
            raise ClusterError(f"kubectl does not forward the port: {said.strip() or 'it says nothing'}")
        time.sleep(0.05)
