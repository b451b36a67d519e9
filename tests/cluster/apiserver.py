"""An API server without a node: for tests that need the real API and no running pods."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.cluster import config, probe, processes, tools
from tests.cluster.cluster import Cluster
from tests.cluster.components import api_server_argv, etcd_argv
from tests.cluster.errors import ClusterError, tail
from tests.cluster.layout import BIN, STATE
from tests.cluster.pki import Authority, write_signing_pair
from tests.cluster.progress import locked

_FOLDER = STATE / "apiservers"
_ATTEMPTS = 3


def other_kubeconfig() -> Path | None:
    """The kubeconfig that the environment aims the tests at, if it names one."""
    for variable in ("ONNX_OPERATOR_KUBECONFIG", "KUBECONFIG"):
        value = os.environ.get(variable)
        if value and Path(value).is_file():
            return Path(value)
    return None


def programs() -> Path | None:
    """Where etcd and kube-apiserver are, without building them."""
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        return Path(assets)
    return BIN if (BIN / "kube-apiserver").exists() and (BIN / "etcd").exists() else None


@contextlib.contextmanager
def api_server() -> Iterator[Cluster]:
    """An API server for as long as the context lasts, or the cluster that the environment names.

    There are no controllers: namespaces are never emptied, owners' deletions do not spread, and no
    service accounts are made.
    """
    folder = programs()
    if folder is None and (kubeconfig := other_kubeconfig()):
        yield Cluster(kubeconfig)
        return
    if folder is None:
        tools.ensure(*tools.API_SERVER_ROWS)
        folder = BIN
    _sweep()
    server = _start(folder)
    try:
        yield server.cluster
    finally:
        server.stop()


@dataclass
class _Server:
    folder: Path
    cluster: Cluster
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def stop(self) -> None:
        for process in reversed(self.running):
            process.kill()
        for process in self.running:
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _sweep() -> None:
    """Remove the folders of test runs that were killed; their servers died with them."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with locked(_FOLDER / ".lock", "another test run that starts"):
        for path in _FOLDER.iterdir():
            pid, _, rest = path.name.partition("-")
            if path.is_dir() and not processes.is_alive(int(pid), rest.partition("-")[0]):
                shutil.rmtree(path, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _start(folder: Path) -> _Server:
    # Between finding a free port and listening there, another process may take it.
    for attempt in range(_ATTEMPTS):
        try:
            return _start_once(folder, attempt)
        except ClusterError as error:
            if attempt == _ATTEMPTS - 1 or "address already in use" not in str(error):
                raise
    raise AssertionError("unreachable")


def _start_once(binaries: Path, attempt: int) -> _Server:
    own_start = processes.start_time(os.getpid())
    folder = _FOLDER / f"{os.getpid()}-{own_start}-{time.monotonic_ns()}-{attempt}"
    folder.mkdir(parents=True)
    client, peer, secure = _free_ports(3)
    authority = Authority("onnx-operator-api-server")
    (folder / "ca.crt").write_bytes(authority.certificate)
    authority.write(folder, "apiserver", "kube-apiserver", hosts=["127.0.0.1", "localhost"])
    write_signing_pair(folder, "service-accounts")
    (folder / "audit-policy.yaml").write_text(yaml.safe_dump(config.AUDIT_POLICY))
    address = f"https://127.0.0.1:{secure}"
    kubeconfig = folder / "kubeconfig"
    authority.kubeconfig(kubeconfig, address, "onnx-operator-api-server", "onnx-operator-admin", ["system:masters"])
    audit_log = folder / "audit.log"
    server = _Server(folder, Cluster(kubeconfig, programs=binaries, audit_log=audit_log))
    commands = {
        "etcd": etcd_argv(f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}", str(folder / "etcd")),
        "kube-apiserver": [
            *api_server_argv(
                str(folder), f"http://127.0.0.1:{client}", str(folder / "audit-policy.yaml"), str(audit_log)
            ),
            "--bind-address=127.0.0.1",
            f"--secure-port={secure}",
            f"--cert-dir={folder}/made",
            # Loopback is no address that a service may point to.
            "--endpoint-reconciler-type=none",
            "--allow-privileged=true",
            # Nobody makes service accounts here, and pods would be refused without.
            "--disable-admission-plugins=ServiceAccount",
        ],
    }
    # A killed test run must not leave a server behind; elsewhere than on Linux it may.
    bound = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    try:
        for name, arguments in commands.items():
            with (folder / f"{name}.log").open("wb") as log:
                process = subprocess.Popen(
                    [*bound, str(binaries / name), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            server.running.append(process)
        _wait_ready(server, secure, list(commands))
    except BaseException:
        server.stop()
        raise
    return server


def _wait_ready(server: _Server, port: int, names: list[str], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not probe.ready("127.0.0.1", port, server.folder / "ca.crt"):
        logs = {name: server.folder / f"{name}.log" for name in names}
        for name, process in zip(names, server.running, strict=True):
            if process.poll() is not None:
                raise ClusterError(f"{name} ended with {process.returncode}:\n{tail(logs[name])}")
        if time.monotonic() > deadline:
            text = "\n".join(f"{name}:\n{tail(log)}" for name, log in logs.items())
            raise ClusterError(f"the API server was not ready in {timeout:g} s\n{text}")
        time.sleep(0.05)
    # Made by the server itself, a moment after it says it is ready.
    server.cluster.wait(lambda: server.cluster.find("namespace", "default"), 30, "the default namespace")
