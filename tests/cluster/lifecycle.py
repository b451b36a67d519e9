"""Bringing the local cluster up, saying how it is, and taking it down."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import cgroups, config, images, machine, network, packages, probe, tools
from tests.cluster.cluster import Cluster
from tests.cluster.components import components
from tests.cluster.errors import ClusterError, ClusterUnavailableError, tail
from tests.cluster.layout import (
    API_SERVER,
    AUDIT_LOG,
    BIN,
    CGROUP,
    CONTEXT,
    ETC,
    KUBECONFIG,
    KUBERNETES_ADDRESS,
    LOGS,
    MACHINE_LOCK,
    NODE,
    NODE_ADDRESS,
    NODE_NAME,
    PKI,
    PROCESSES,
    ROOT,
    STATE,
)
from tests.cluster.pki import Authority, write_signing_pair
from tests.cluster.progress import locked, run, say, step

_WAITING_FOR = "another command that changes this machine's cluster"
# Kept so that nobody complains of a child that was left to run: that is its purpose.
_launched: list[subprocess.Popen[bytes]] = []


def _fingerprint() -> str:
    # Of the cluster's own programs: a test that builds another tool beside them must not restart it under the others.
    rows = (tools.ROWS[row].programs for row in tools.CLUSTER_ROWS)
    programs = sorted(str(link.readlink()) for row in rows for name in row if (link := BIN / name).is_symlink())
    return json.dumps([config.fingerprint(), programs, images.base_key()])


def _processes() -> dict[str, dict[str, Any]]:
    try:
        seen: dict[str, dict[str, Any]] = json.loads(PROCESSES.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return seen


def _ended() -> dict[str, str]:
    return {name: seen["ended"] for name, seen in _processes().items() if seen["ended"]}


def _ready() -> bool:
    return probe.ready(NODE_ADDRESS, 6443, PKI / "ca.crt")


def trouble() -> str | None:
    """Why the cluster of this clone is not usable, in a sentence; None when it is up and well."""
    record = machine.read()
    if record is None:
        return "it is not up"
    if record["folder"] != str(ROOT):
        return f"this machine runs the cluster of {record['folder']}"
    if machine.holder() is None:
        return "the process that holds the node has ended"
    if record["phase"] != "ready":
        return "an earlier bring-up was not finished"
    if ended := _ended():
        return ", ".join(f"{name} ended ({how})" for name, how in ended.items())
    if not KUBECONFIG.exists():
        return f"{KUBECONFIG} is missing"
    if not _ready():
        return "the API server does not answer"
    return None


def _write_files() -> None:
    for folder in (PKI, ETC, NODE, LOGS):
        folder.mkdir(parents=True, exist_ok=True)
    for file, content in config.files().items():
        path = ETC / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    authority = Authority("onnx-operator-local")
    front_proxy = Authority("onnx-operator-local-front-proxy")
    for name, issuer in (("ca", authority), ("front-proxy-ca", front_proxy)):
        (PKI / f"{name}.crt").write_bytes(issuer.certificate)
    (PKI / "ca.key").touch(mode=0o600)
    (PKI / "ca.key").write_bytes(authority.key)
    write_signing_pair(PKI, "service-accounts")
    names = ["kubernetes", *(f"kubernetes.default{end}" for end in ("", ".svc", ".svc.cluster.local"))]
    addresses = [NODE_ADDRESS, KUBERNETES_ADDRESS, "127.0.0.1", "localhost"]
    authority.write(PKI, "apiserver", "kube-apiserver", hosts=[*addresses, *names])
    authority.write(PKI, "apiserver-kubelet", "kube-apiserver-kubelet-client", ["system:masters"])
    authority.write(PKI, "kubelet", f"system:node:{NODE_NAME}", ["system:nodes"], [NODE_ADDRESS, NODE_NAME])
    front_proxy.write(PKI, "front-proxy", "front-proxy")
    users: dict[str, tuple[str, list[str]]] = {
        "kube-controller-manager": ("system:kube-controller-manager", []),
        "kube-scheduler": ("system:kube-scheduler", []),
        "kube-proxy": ("system:kube-proxy", []),
        "kubelet": (f"system:node:{NODE_NAME}", ["system:nodes"]),
        # Programs that charts would give roles; here they only have to work.
        "coredns": ("system:coredns", ["system:masters"]),
        "metrics-server": ("system:metrics-server", ["system:masters"]),
        "kwok": ("system:kwok", ["system:masters"]),
    }
    for file, (user, groups) in users.items():
        authority.kubeconfig(ETC / f"{file}.kubeconfig", API_SERVER, file, user, groups)
    authority.kubeconfig(KUBECONFIG, API_SERVER, CONTEXT, "onnx-operator-admin", ["system:masters"])


def _wait(what: str, check: Callable[[], bool], log: str, timeout: float = 60) -> None:
    with step(what):
        deadline = time.monotonic() + timeout
        # Death first: what is waited for may be there although another component just ended.
        while _all_run(what) and not check():
            if time.monotonic() > deadline:
                path = LOGS / f"{log}.log"
                raise ClusterError(f"not in {timeout:g} s: {what}\nthe end of {path}:\n{tail(path)}")
            time.sleep(0.1)


def _all_run(what: str) -> bool:
    """True, or the error of the component that ended."""
    if machine.holder() is None:
        raise ClusterError(f"the node ended; its log says:\n{tail(LOGS / 'node.log')}")
    if ended := _ended():
        logs = [f"{name}: {how}\n{tail(LOGS / f'{name}.log')}" for name, how in ended.items()]
        raise ClusterError("\n".join([f"while waiting for: {what}", *logs]))
    return True


def _works(*command: str) -> bool:
    try:
        run(command, timeout=20)
    except ClusterError:
        return False
    return True


def _launch() -> None:
    with (LOGS / "node.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.launch", str(os.getpid())],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _launched.append(process)
    deadline = time.monotonic() + 15
    while True:
        pid = machine.node_pid()
        # The child exists a moment before it is in its own namespaces.
        if pid is not None and not _same_network(pid):
            break
        if process.poll() is not None or time.monotonic() > deadline:
            raise ClusterError(f"the node did not start; its log says:\n{tail(LOGS / 'node.log')}")
        time.sleep(0.02)
    network.connect(pid)


def _same_network(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
    except OSError:
        return True


def _api_service_available(cluster: Cluster) -> bool:
    return _is_true(cluster.find("apiservice", "v1beta1.metrics.k8s.io"), "Available")


def _node_ready(cluster: Cluster) -> bool:
    return _is_true(cluster.find("node", NODE_NAME), "Ready")


def _is_true(found: dict[str, Any] | None, condition: str) -> bool:
    conditions = (found or {}).get("status", {}).get("conditions", [])
    return any(c["type"] == condition and c["status"] == "True" for c in conditions)


def _dns_answers() -> bool:
    """Ask for the API server's name, by hand: the host's resolver knows nothing of the cluster."""
    name = b"".join(bytes([len(x)]) + x for x in b"kubernetes.default.svc.cluster.local".split(b".")) + b"\0"
    question = b"\x0b\x0b\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + name + b"\x00\x01\x00\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(1)
        try:
            connection.sendto(question, (NODE_ADDRESS, 53))
            answer = connection.recv(512)
        except OSError:
            return False
    return answer.endswith(bytes(map(int, KUBERNETES_ADDRESS.split("."))))


def up() -> Cluster:
    """Bring the local cluster up; at once when it is up, from scratch when anything about it is not well."""
    packages.refuse_unfit_machine()
    started = time.monotonic()
    with locked(MACHINE_LOCK, _WAITING_FOR):
        tools.ensure(*tools.CLUSTER_ROWS)
        reason = trouble()
        record = machine.read() or {}
        if reason is None and record.get("fingerprint") == _fingerprint():
            return Cluster.local()
        packages.ensure()
        images.ensure_base()
        if record:
            say(f"starting anew: {reason or 'its configuration has changed'}")
        _bring_up()
    say(f"  {time.monotonic() - started:6.1f} s  in all; kubeconfig: {KUBECONFIG}")
    return Cluster.local()


def _bring_up() -> None:
    with step("remove what an earlier run left", quiet_below=0.5):
        machine.remove()
    network.refuse_conflicts()
    machine.write(machine.new_record())
    STATE.mkdir(exist_ok=True)
    shutil.rmtree(LOGS, ignore_errors=True)
    for path in STATE.glob(f"{AUDIT_LOG.stem}*{AUDIT_LOG.suffix}"):
        path.unlink()
    _write_files()
    cgroups.create(CGROUP)
    with step("node and network"):
        _launch()
    cluster = Cluster.local()
    _wait("containerd", lambda: _works(*machine.enter(_ctr("version"))), "containerd")
    images.load_base()
    _wait("API server", _ready, "kube-apiserver")
    _wait("objects", lambda: _applied(cluster), "kube-apiserver")
    _wait("node ready", lambda: _node_ready(cluster), "kubelet")
    _wait("DNS", _dns_answers, "coredns")
    _wait(
        "default service account",
        lambda: cluster.find("serviceaccount", "default", "default") is not None,
        "kube-controller-manager",
    )
    _wait("metrics", lambda: _api_service_available(cluster), "metrics-server", timeout=90)
    record = machine.read()
    if record is None:
        raise ClusterError("the record of the cluster has gone while it was brought up")
    record.update(phase="ready", fingerprint=_fingerprint())
    machine.write(record)


def _ctr(*args: str) -> list[str]:
    return ["/run/cluster/bin/ctr", "--address", "/run/containerd/containerd.sock", *args]


def _applied(cluster: Cluster) -> bool:
    try:
        cluster.kubectl("apply", "--server-side", f"--filename={ETC / 'objects.yaml'}")
    except ClusterError as error:
        # The namespace of the system's own objects comes a moment after the first answer.
        if "not found" in str(error) or "NotFound" in str(error):
            return False
        raise
    return True


def down() -> None:
    """Take this machine's cluster down, whichever clone brought it up, and check that nothing is left."""
    packages.refuse_unfit_machine()
    if packages.missing():
        raise ClusterUnavailableError("nothing to take down: this machine never had what a cluster needs")
    with locked(MACHINE_LOCK, _WAITING_FOR), step("down"):
        machine.remove()
        if left := machine.leftovers():
            raise ClusterError(f"this is left: {', '.join(left)}")


@dataclass(frozen=True)
class ComponentState:
    """How one component is."""

    name: str
    state: str
    healthy: bool
    log: str = ""


def status() -> tuple[str | None, list[ComponentState]]:
    """What is wrong as a whole, if anything, and how each component is; never waits."""
    problem = trouble()
    record = machine.read()
    if record is None or record["folder"] != str(ROOT):
        return problem, []
    seen = _processes() if machine.holder() else {}
    states = []
    for component in components():
        process = seen.get(component.name)
        if process is None:
            states.append(ComponentState(component.name, "not started", False))
        elif process["ended"]:
            log = tail(LOGS / f"{component.name}.log", 10)
            states.append(ComponentState(component.name, process["ended"], False, log))
        else:
            minutes = (time.time() - process["started"]) / 60
            states.append(ComponentState(component.name, f"running for {minutes:.1f} min", True))
    return problem, states
