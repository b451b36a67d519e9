"""A bare control plane with nodes that pretend: etcd, API server, controllers, scheduler and kwok as processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from onnx_operator.api.contract import StartFacts, WarmUpFacts
from onnx_operator.api.crd import to_yaml
from tests.cluster import probe, tools
from tests.cluster.cluster import OPERATOR_NAMESPACE, Cluster
from tests.cluster.components import api_server_argv, etcd_argv
from tests.cluster.errors import ClusterError, tail
from tests.cluster.layout import BIN
from tests.cluster.pki import Authority, write_signing_pair
from tests.cluster.stores import free_port

OPERATOR = f"system:serviceaccount:{OPERATOR_NAMESPACE}:onnx-operator"
CLIENT = "system:serviceaccount:default:raw-client"
"""Service accounts, so that the API server gives both the same share of its attention."""
_PODS_PER_NODE = 250
_LOADING_MILLISECONDS = 100

_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": [OPERATOR]}, {"level": "None"}],
}


@dataclass
class Plane:
    """The processes of a control plane, and who may call it."""

    folder: Path
    address: str
    authority: Authority
    cluster: Cluster
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def audit_log(self) -> Path:
        """The operator's calls, and nobody else's."""
        return self.folder / "audit.log"

    def kubeconfig(self, name: str, user: str, *groups: str) -> Path:
        """A file by which ``user`` may call the API server."""
        path = self.folder / f"{name}.kubeconfig"
        self.authority.kubeconfig(path, self.address, name, user, groups)
        return path

    def start(self, name: str, *arguments: str) -> None:
        """Start a program, which dies with this process."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", str(BIN / name), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def check(self) -> None:
        """Raise :class:`ClusterError` where a program has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise ClusterError(f"{name} ended with {process.returncode}:\n{tail(self.folder / f'{name}.log')}")

    def stop(self) -> None:
        """End all programs, and forget what they knew."""
        for process in reversed(self.processes.values()):
            process.kill()
        for process in self.processes.values():
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def control_plane(pods: int) -> Iterator[Plane]:
    """A control plane with room for so many pods at a time, for as long as the block lasts."""
    tools.ensure("kubernetes", "kwok")
    folder = Path(tempfile.mkdtemp(prefix="onnx-operator-plane-"))
    port = free_port()
    authority = Authority("onnx-operator-benchmark")
    plane = Plane(folder, f"https://127.0.0.1:{port}", authority, Cluster(folder / "admin.kubeconfig", programs=BIN))
    plane.kubeconfig("admin", "benchmark-admin", "system:masters")
    plane.cluster = Cluster(folder / "admin.kubeconfig", programs=BIN, audit_log=plane.audit_log, is_local=True)
    try:
        _start_api_server(plane, port)
        _start_controllers(plane)
        _prepare(plane, nodes=max(2, -(-pods // _PODS_PER_NODE)))
        yield plane
    finally:
        plane.stop()


def _start_api_server(plane: Plane, port: int) -> None:
    folder, (client, peer) = plane.folder, (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    (folder / "ca.crt").write_bytes(plane.authority.certificate)
    plane.authority.write(folder, "apiserver", "kube-apiserver", hosts=["127.0.0.1", "localhost"])
    plane.authority.write(folder, "kubelet-client", "kube-apiserver-kubelet-client", ["system:masters"])
    write_signing_pair(folder, "service-accounts")
    (folder / "audit-policy.yaml").write_text(yaml.safe_dump(_AUDIT_POLICY))
    plane.start("etcd", *etcd_argv(client, peer, str(folder / "etcd")), "--quota-backend-bytes=8589934592")
    plane.start(
        "kube-apiserver",
        *api_server_argv(str(folder), client, str(folder / "audit-policy.yaml"), str(plane.audit_log)),
        # Of flags given twice the last counts: the log must not be rotated while it is read.
        "--audit-log-maxsize=100000",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder}/made",
        "--endpoint-reconciler-type=none",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-client-certificate={folder}/kubelet-client.crt",
        f"--kubelet-client-key={folder}/kubelet-client.key",
    )
    deadline = time.monotonic() + 90
    while not probe.ready("127.0.0.1", port, folder / "ca.crt"):
        plane.check()
        if time.monotonic() > deadline:
            raise ClusterError(f"the API server is not ready:\n{tail(folder / 'kube-apiserver.log')}")
        time.sleep(0.1)


def _start_controllers(plane: Plane) -> None:
    folder = plane.folder
    for name in ("kube-controller-manager", "kube-scheduler"):
        config = plane.kubeconfig(name, f"system:{name}", "system:masters")
        more = []
        if name == "kube-controller-manager":
            more = [
                f"--root-ca-file={folder}/ca.crt",
                f"--service-account-private-key-file={folder}/service-accounts.key",
            ]
        plane.start(
            name,
            f"--kubeconfig={config}",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=200",
            "--kube-api-burst=300",
            *more,
        )
    port = free_port()
    plane.authority.write(folder, "kwok", "kwok", hosts=["127.0.0.1"])
    (folder / "server.log").write_text(_LOG)
    (folder / "kwok.yaml").write_text(yaml.safe_dump_all(_kwok(folder / "server.log")))
    plane.start(
        "kwok",
        f"--config={folder}/kwok.yaml",
        f"--kubeconfig={plane.kubeconfig('kwok', 'system:kwok', 'system:masters')}",
        "--manage-all-nodes=true",
        "--node-ip=127.0.0.1",
        f"--node-port={port}",
        f"--server-address=127.0.0.1:{port}",
        f"--tls-cert-file={folder}/kwok.crt",
        f"--tls-private-key-file={folder}/kwok.key",
        "--cidr=10.245.0.1/16",
        "--node-lease-duration-seconds=40",
    )


_LOG = (
    # As container runtimes write logs down, and kwok reads them.
    "2026-01-01T00:00:00.000000000Z stdout F "
    + StartFacts(
        execution_providers=["CPUExecutionProvider"],
        load_seconds=0.1,
        warm_up_seconds=0.1,
        warm_up=WarmUpFacts(warmed=True, message="one row of zeros", request_cpu_seconds=0.0001),
        resident_memory_bytes=70 * 2**20,
        intra_op_threads=1,
        processes=1,
    ).model_dump_json(by_alias=True, exclude_none=True)
    + "\n"
)
"""What every server says: one line, which the operator reads once a revision."""


def _kwok(log: Path) -> Iterator[dict[str, Any]]:
    """Pods that download, load and get ready as real ones do, and that have a log."""
    version = "kwok.x-k8s.io/v1alpha1"
    yield {
        "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
        "kind": "KwokConfiguration",
        "options": {"enableDebuggingHandlers": True},
    }
    logs = [{"containers": ["server"], "logsFile": str(log), "follow": False}]
    yield {"apiVersion": version, "kind": "ClusterLogs", "metadata": {"name": "servers"}, "spec": {"logs": logs}}
    here = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}
    fetching = ".status.initContainerStatuses.[].state.running.startedAt"
    loading = '.status.conditions.[] | select( .type == "ContainersReady" ) | .reason'
    stages = {
        "pod-fetching": (
            [here, {"key": ".status.podIP", "operator": "DoesNotExist"}],
            {"statusTemplate": _status("Pending", initialized=False, ready=False)},
        ),
        "pod-loading": (
            [here, {"key": fetching, "operator": "Exists"}],
            {"statusTemplate": _status("Running", initialized=True, ready=False)},
        ),
        "pod-ready": (
            [here, {"key": loading, "operator": "In", "values": ["Loading"]}],
            {"statusTemplate": _status("Running", initialized=True, ready=True)},
        ),
        "pod-gone": (
            [{"key": ".metadata.deletionTimestamp", "operator": "Exists"}],
            {"finalizers": {"empty": True}, "delete": True},
        ),
    }
    for name, (expressions, following) in stages.items():
        spec: dict[str, Any] = {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {"matchExpressions": expressions},
            "next": following,
        }
        if name in ("pod-loading", "pod-ready"):
            spec["delay"] = {"durationMilliseconds": _LOADING_MILLISECONDS}
        yield {"apiVersion": version, "kind": "Stage", "metadata": {"name": name}, "spec": spec}


def _status(phase: str, *, initialized: bool, ready: bool) -> str:
    """The template of a pod's status, in Go's language of templates; a JSON object is YAML, too."""
    now, message = "{{ Now }}", json.dumps({"phase": "Downloading"})
    conditions = [{"type": "Initialized", "status": str(initialized), "lastTransitionTime": now}]
    for kind in ("ContainersReady", "Ready"):
        # Conditions are merged: a reason that is left out would stay, and the stage that it wakes would never end.
        reason = "Loading" if initialized and not ready else ""
        conditions.append({"type": kind, "status": str(ready), "reason": reason, "lastTransitionTime": now})
    waiting = {"waiting": {"reason": "PodInitializing"}}
    done = {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now, "message": message}
    fetch = {"terminated": done} if initialized else {"running": {"startedAt": now}}
    server = {"running": {"startedAt": now}} if initialized else waiting
    fixed = {"phase": phase, "conditions": conditions, "startTime": now}
    lines = [f"{key}: {json.dumps(value)}" for key, value in fixed.items()]
    lines += ["hostIP: {{ NodeIPWith .spec.nodeName | Quote }}"]
    address = '{{ PodIPWith .spec.nodeName false ( or .metadata.uid "" ) .metadata.name .metadata.namespace | Quote }}'
    lines += [f"podIP: {address}"]
    for field_name, containers, state, is_ready in (
        ("initContainerStatuses", ".spec.initContainers", fetch, initialized),
        ("containerStatuses", ".spec.containers", server, ready),
    ):
        identity = "name: {{ .name | Quote }}, image: {{ .image | Quote }}"
        flags = f"ready: {json.dumps(is_ready)}, restartCount: 0, started: {json.dumps(initialized)}"
        lines += [
            f"{field_name}:",
            f"{{{{ range {containers} }}}}",
            f"- {{{identity}, {flags}, state: {json.dumps(state)}}}",
            "{{ end }}",
        ]
    return "\n".join(lines) + "\n"


def _prepare(plane: Plane, nodes: int) -> None:
    cluster = plane.cluster
    binding = "rbac.authorization.k8s.io"
    cluster.apply(
        [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_NAMESPACE}},
            {
                "apiVersion": f"{binding}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": "benchmark"},
                "roleRef": {"apiGroup": binding, "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"apiGroup": binding, "kind": "User", "name": user} for user in (OPERATOR, CLIENT)],
            },
        ]
    )
    cluster.apply(to_yaml())
    cluster.kubectl("wait", "--for=condition=Established", "crd/onnxmodels.onnx-operator.dev", "--timeout=30s")
    cluster.fake_nodes(nodes, pool="bench", gpus=0, cpu="1000", memory="4000Gi")
    plane.check()
