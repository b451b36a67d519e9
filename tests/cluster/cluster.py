"""What tests do with a cluster, whether it is the local one or another that they are aimed at."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.cluster import audit
from tests.cluster.audit import AuditEvent
from tests.cluster.errors import ClusterError
from tests.cluster.layout import AUDIT_LOG, BIN, KUBECONFIG, KUBECTL_CACHE, NODE_NAME, STATE
from tests.cluster.progress import run

T = TypeVar("T")
OPERATOR_NAMESPACE = "onnx-operator-system"


@dataclass(frozen=True)
class Cluster:
    """A Kubernetes cluster, by its kubeconfig."""

    kubeconfig: Path
    programs: Path | None = None
    # Where the API server writes its audit log; None where only its owner could read it.
    audit_log: Path | None = None
    # Whether nodes may be patched and faked, images loaded, and the host reached from pods.
    is_local: bool = False
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def local(cls) -> Cluster:
        """The cluster of this repository's `up`."""
        return cls(KUBECONFIG, programs=BIN, audit_log=AUDIT_LOG, is_local=True)

    def _program(self, name: str) -> str:
        built = self.programs / name if self.programs else None
        return str(built) if built and built.exists() else name

    def run_kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002 - as in the standard library
        check: bool = True,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl and return how it ended; `check=False` for calls that are meant to fail."""
        return run(
            [
                self._program("kubectl"),
                f"--kubeconfig={self.kubeconfig}",
                f"--cache-dir={KUBECTL_CACHE}",
                *args,
            ],
            input=input,
            check=check,
            timeout=timeout,
        )

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002 - as in the standard library
        timeout: float = 120,
    ) -> str:
        """Run kubectl and return what it printed; raises `ClusterError` with its message."""
        return self.run_kubectl(*args, input=input, timeout=timeout).stdout

    def helm(self, *args: str, timeout: float = 300) -> str:
        """Run helm and return what it printed; its caches stay inside the repository."""
        kinds = ("cache", "config", "data")
        folders = {f"HELM_{kind.upper()}_HOME": str(STATE / "helm" / kind) for kind in kinds}
        command = [self._program("helm"), f"--kubeconfig={self.kubeconfig}", *args]
        return run(command, env=folders, timeout=timeout).stdout

    def apply(
        self, manifest: str | Mapping[str, Any] | Sequence[Mapping[str, Any]], namespace: str | None = None
    ) -> str:
        """`kubectl apply` of YAML text, one object or several."""
        if isinstance(manifest, str):
            text = manifest
        else:
            text = yaml.safe_dump_all([manifest] if isinstance(manifest, Mapping) else list(manifest))
        where = ["--namespace", namespace] if namespace else []
        return self.kubectl("apply", "--filename=-", *where, input=text)

    def find(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """An object, or None when there is none of this name."""
        where = ["--namespace", namespace] if namespace else []
        text = self.kubectl("get", kind, name, "--output=json", "--ignore-not-found", *where)
        return json.loads(text) if text.strip() else None

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        """An object; raises `ClusterError` when there is none of this name."""
        found = self.find(kind, name, namespace)
        if found is None:
            raise ClusterError(f"no {kind} {name} in namespace {namespace or 'default'}")
        return found

    def list(self, kind: str, namespace: str | None = None, selector: str | None = None) -> list[dict[str, Any]]:
        """The objects of a kind in one namespace, or in all."""
        args = ["--namespace", namespace] if namespace else ["--all-namespaces"]
        if selector:
            args.append(f"--selector={selector}")
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, "--output=json", *args))["items"]
        return items

    def wait(
        self,
        condition: Callable[[], T],
        timeout: float = 60,
        what: str = "the condition",
        namespace: str | None = None,
        interval: float = 0.2,
    ) -> T:
        """Call until the answer is true in Python's sense, and return it.

        `ClusterError`, `AssertionError` and `LookupError` (a status that is not there yet) count as "not
        yet". The failure says what was seen last and, with `namespace`, what goes on there.
        """
        started = time.monotonic()
        while True:
            try:
                value = condition()
                if value:
                    return value
                last = f"last answer: {value!r}"
            except (ClusterError, AssertionError, LookupError) as error:
                last = f"last failure: {error!r}"
            if time.monotonic() - started > timeout:
                context = f"\n{self.diagnose(namespace)}" if namespace else ""
                raise AssertionError(f"waited {timeout:g} s for {what}; {last[:4000]}{context}")
            time.sleep(interval)

    def wait_condition(
        self,
        kind: str,
        name: str,
        namespace: str | None,
        condition: str,
        status: str = "True",
        reason: str | None = None,
        timeout: float = 60,
    ) -> dict[str, Any]:
        """Wait until an object has a status condition, and return the object."""

        def reached() -> dict[str, Any] | None:
            found = self.get(kind, name, namespace)
            conditions = found.get("status", {}).get("conditions", [])
            for seen in conditions:
                if (seen["type"], seen["status"]) != (condition, status):
                    continue
                if reason in (None, seen.get("reason")):
                    return found
            raise AssertionError(f"conditions are {json.dumps(conditions)}")

        wanted = f"{kind}/{name} to be {condition}={status}{f' ({reason})' if reason else ''}"
        found = self.wait(reached, timeout, wanted, namespace)
        assert found is not None
        return found

    def diagnose(self, namespace: str, operator: bool = True) -> str:
        """Pods, events and the operator's log, for the report of a failure."""
        commands = [
            ["get", "all", "--output=wide", "--namespace", namespace],
            ["describe", "pods", "--namespace", namespace],
            ["get", "events", "--sort-by=.lastTimestamp", "--namespace", namespace],
        ]
        for pod in self._pod_names(namespace):
            logs = ["logs", pod, "--all-containers", "--prefix", "--tail=60", "--namespace", namespace]
            commands += [logs, [*logs, "--previous"]]
        if operator:
            for pod in self._pod_names(OPERATOR_NAMESPACE):
                logs = ["logs", pod, "--all-containers", "--prefix", "--tail=200"]
                commands.append([*logs, "--namespace", OPERATOR_NAMESPACE])
        parts = []
        for command in commands:
            try:
                done = self.run_kubectl(*command, check=False, timeout=20)
            except ClusterError as error:
                parts.append(f"$ kubectl {' '.join(command)}\n{error}")
                continue
            # Containers that never restarted have no previous log: not worth a line.
            if done.returncode == 0 or "--previous" not in command:
                parts.append(f"$ kubectl {' '.join(command)}\n{(done.stdout + done.stderr).rstrip()}")
        return "\n\n".join(parts)

    def _pod_names(self, namespace: str) -> Iterable[str]:
        get = ["get", "pods", "--output=name", "--namespace", namespace]
        done = self.run_kubectl(*get, check=False, timeout=20)
        return done.stdout.split()[:20]

    def audit_events(
        self,
        since: float,
        *,
        user_agent: str | None = None,
        username: str | None = None,
        verbs: Iterable[str] | None = None,
        resource: str | None = None,
        namespace: str | None = None,
        writes: bool = False,
    ) -> Sequence[AuditEvent]:
        """The API calls since a `time.time()`, narrowed down; text filters match any part.

        A call is in the log before its caller has the answer.
        """
        if self.audit_log is None:
            raise ClusterError("this cluster's audit log cannot be read; only the local cluster's can")
        wanted = frozenset(verbs) if verbs is not None else None
        return [
            event
            for event in audit.read(self.audit_log, since)
            if (user_agent is None or user_agent in event.user_agent)
            and (username is None or username in event.username)
            and (wanted is None or event.verb in wanted)
            and (resource is None or event.resource == resource)
            and (namespace is None or event.namespace == namespace)
            and (not writes or event.is_write)
        ]

    def patch_node_gpu(self, node: str = NODE_NAME, resource: str = "nvidia.com/gpu", count: int = 1) -> None:
        """Let a node claim devices that it does not have; a count of 0 takes the claim away."""
        self._require_local("nodes are patched")
        key = resource.replace("/", "~1")
        operations = []
        for kind in ("capacity", "allocatable"):
            present = resource in self.get("node", node)["status"].get(kind, {})
            if count:
                operations.append({"op": "add", "path": f"/status/{kind}/{key}", "value": str(count)})
            elif present:
                operations.append({"op": "remove", "path": f"/status/{kind}/{key}"})
        if operations:
            patch = ["patch", "node", node, "--subresource=status", "--type=json"]
            self.kubectl(*patch, "--patch", json.dumps(operations))

    def fake_nodes(
        self,
        count: int,
        *,
        gpus: int = 8,
        pool: str = "gpu",
        resource: str = "nvidia.com/gpu",
        labels: Mapping[str, str] | None = None,
        taints: Sequence[str] = (),
        cpu: str = "64",
        memory: str = "256Gi",
    ) -> Sequence[str]:
        """Make nodes `POOL-0`, `POOL-1`, … that accept pods and pretend to run them; wait until Ready.

        Taints are written as kubectl writes them: `nvidia.com/gpu=present:NoSchedule`.
        """
        self._require_local("nodes are faked")
        names = [f"{pool}-{index}" for index in range(count)]
        size = {"cpu": cpu, "memory": memory, "pods": "250", "ephemeral-storage": "1Ti"}
        if gpus:
            size[resource] = str(gpus)
        nodes = [
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": name,
                    "annotations": {"kwok.x-k8s.io/node": "fake"},
                    "labels": {
                        "kubernetes.io/hostname": name,
                        "kubernetes.io/os": "linux",
                        "kubernetes.io/arch": "amd64",
                        "onnx-operator.test/pool": pool,
                        **(labels or {}),
                    },
                },
                "spec": {"taints": [_taint(text) for text in taints]},
                "status": {"capacity": size, "allocatable": size},
            }
            for name in names
        ]
        if nodes:
            self.apply(nodes)
            targets = [f"node/{name}" for name in names]
            self.kubectl("wait", "--for=condition=Ready", "--timeout=60s", *targets)
        return names

    def remove_fake_nodes(self, pool: str) -> None:
        """Remove the fake nodes of a pool, and with them their pods."""
        self.kubectl("delete", "nodes", f"--selector=onnx-operator.test/pool={pool}", "--ignore-not-found")

    def _require_local(self, what: str) -> None:
        if not self.is_local:
            raise ClusterError(f"{what} only in the local cluster, and these tests are aimed at another")


def _taint(text: str) -> dict[str, str]:
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    if not key or effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
        raise ClusterError(f"a taint is written KEY[=VALUE]:EFFECT, not {text!r}")
    return {"key": key, "value": value, "effect": effect}
