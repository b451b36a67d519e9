"""The system under test: the operator as Helm installs it, an S3 store, and what tests say of models."""

from __future__ import annotations

import fcntl
import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from examples.demo.store import Store
from tests.cluster.cluster import OPERATOR_NAMESPACE, Cluster
from tests.cluster.layout import STATE

API_VERSION = "onnx-operator.dev/v1alpha1"
MODEL_LABEL = "onnx-operator.dev/model"
REVISION_LABEL = "onnx-operator.dev/revision"
CREDENTIALS = "models-read"
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}
READY_SECONDS = 120
_LOCK = STATE / "operator.lock"


def _pool(name: str, memory: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "runtime": "GPU",
        "nodeSelector": {"accelerator": name},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "acceleratorMemory": memory,
        **fields,
    }


# Fake nodes stand for the first three; the last is the real node, when a test lets it claim a GPU.
POOLS: list[dict[str, Any]] = [
    _pool("t4", "16Gi", gpuResource="nvidia.com/gpu"),
    _pool("a100", "80Gi", gpuResource="nvidia.com/gpu"),
    _pool("fleet", "160Gi"),
    {"name": "real", "runtime": "GPU", "gpuResource": "example.com/gpu"},
]


@dataclass(frozen=True)
class System:
    """The operator and its surroundings."""

    cluster: Cluster
    store: Store

    def upload(self, key: str, content: bytes) -> str:
        """Put a file into the store and return its URI."""
        self.store.upload(key, content)
        return self.store.uri(key)


@dataclass(frozen=True)
class Models:
    """One namespace's models."""

    system: System
    namespace: str

    @property
    def cluster(self) -> Cluster:
        """The cluster that they are in."""
        return self.system.cluster

    def upload(self, content: bytes, name: str = "model") -> str:
        """Put a model file of this namespace's own into the store."""
        return self.system.upload(f"{self.namespace}/{name}.onnx", content)

    def manifest(self, name: str, uri: str, *, small: bool = True, **spec: Any) -> dict[str, Any]:
        """An OnnxModel, with credentials where the store wants them; small enough for many on one node."""
        model = {"uri": uri, **spec.pop("model", {})}
        if uri.startswith("s3://"):
            model.setdefault("credentials", {"secretName": CREDENTIALS})
        if small:
            spec.setdefault("resources", SMALL)
        return {
            "apiVersion": API_VERSION,
            "kind": "OnnxModel",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"model": model, **spec},
        }

    def apply(self, name: str, uri: str, **spec: Any) -> None:
        """`kubectl apply` of an OnnxModel."""
        self.cluster.apply(self.manifest(name, uri, **spec))

    def get(self, name: str) -> dict[str, Any]:
        """The OnnxModel as it is."""
        return self.cluster.get("onnxmodels.onnx-operator.dev", name, self.namespace)

    def patch(self, name: str, spec: Mapping[str, Any]) -> None:
        """Merge into the spec."""
        patch = json.dumps({"spec": spec})
        self.cluster.kubectl("patch", "onnx", name, "-n", self.namespace, "--type=merge", "--patch", patch)

    def pods(self, name: str) -> list[dict[str, Any]]:
        """Pods of the model that are not on their way out."""
        found = self.cluster.list("pods", self.namespace, f"{MODEL_LABEL}={name}")
        return [p for p in found if "deletionTimestamp" not in p["metadata"]]

    def wait_for(
        self,
        name: str,
        *,
        ready: str | None = None,
        reason: str | None = None,
        where: Callable[[dict[str, Any]], bool] = lambda _: True,
        timeout: float = READY_SECONDS,
    ) -> dict[str, Any]:
        """Wait until the status speaks of the present spec, and Ready is so."""

        def reached() -> dict[str, Any]:
            model = self.get(name)
            status = model.get("status", {})
            seen = conditions(model)
            assert status.get("observedGeneration") == model["metadata"]["generation"], "status is of an older spec"
            told = seen["Ready"]
            assert ready in (None, told["status"]), told
            assert reason in (None, told["reason"]), told
            assert where(model), status
            return model

        what = f"{name} Ready={ready or '*'} {reason or ''}"
        return self.cluster.wait(reached, timeout, what, self.namespace, interval=0.3)

    def wait_ready(self, name: str, timeout: float = READY_SECONDS) -> dict[str, Any]:
        """Wait until the model serves what its spec asks for."""
        return self.wait_for(name, ready="True", timeout=timeout)

    def wait_settled(self, name: str, quiet: float = 5) -> dict[str, Any]:
        """Wait until the model is ready and nobody has written it for `quiet` seconds.

        A model becomes ready before the last facts of its pods are in its status (what was measured, events' counts).
        """
        version, since = "", 0.0

        def unchanged() -> dict[str, Any]:
            nonlocal version, since
            model = self.wait_ready(name)
            if model["metadata"]["resourceVersion"] != version:
                version, since = model["metadata"]["resourceVersion"], time.monotonic()
            assert time.monotonic() - since >= quiet, "still written"
            return model

        return self.cluster.wait(unchanged, READY_SECONDS, f"{name} to be left alone", self.namespace, interval=0.5)

    def predict(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference through the Service, by the Open Inference Protocol."""
        return infer(self.cluster, self.namespace, name, inputs)


def conditions(model: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The conditions by type; also checks what must always hold of them."""
    found = {c["type"]: c for c in model.get("status", {}).get("conditions", [])}
    assert not ("Reconciling" in found and "Stalled" in found), found
    assert "Ready" in found, "no conditions yet"
    return found


def infer(cluster: Cluster, namespace: str, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One inference through the API server's proxy to the Service, which works in any cluster."""
    body = {
        "inputs": [
            {"name": key, "shape": list(value.shape), "datatype": "FP32", "data": value.ravel().tolist()}
            for key, value in inputs.items()
        ]
    }
    if cluster.is_local:
        address = cluster.get("service", name, namespace)["spec"]["clusterIP"]
        request = urllib.request.Request(
            f"http://{address}/v2/models/{name}/infer",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
    else:
        path = f"/api/v1/namespaces/{namespace}/services/{name}:http/proxy/v2/models/{name}/infer"
        answer = json.loads(cluster.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(body)))
    return {o["name"]: np.array(o["data"], np.float32).reshape(o["shape"]) for o in answer["outputs"]}


def expected(model: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What onnxruntime answers on this machine."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


@contextmanager
def operator_undisturbed() -> Iterator[None]:
    """No other test kills the operator meanwhile; many tests may ask for this at the same time."""
    with _LOCK.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def operator_to_be_killed() -> Iterator[None]:
    """For whoever kills the operator: waits until nobody minds. It leads again when this ends."""
    with _LOCK.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def kill_operator(cluster: Cluster) -> None:
    """End the operator without any grace, as a failing node would."""
    cluster.kubectl(
        "delete", "pods", "-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/name=onnx-operator",
        "--grace-period=0", "--force", "--wait=false",
    )  # fmt: skip


def wait_for_operator(cluster: Cluster) -> None:
    """Wait until all operator pods are ready and one that is there holds the Lease."""

    def leads() -> bool:
        pods = cluster.list("pods", OPERATOR_NAMESPACE, "app.kubernetes.io/name=onnx-operator")
        ready = {
            p["metadata"]["name"]
            for p in pods
            if "deletionTimestamp" not in p["metadata"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))
        }
        wanted = cluster.get("deployment", "onnx-operator", OPERATOR_NAMESPACE)["spec"]["replicas"]
        lease = cluster.get("lease", "onnx-operator", OPERATOR_NAMESPACE)
        holder = (lease["spec"].get("holderIdentity") or "").partition("_")[0]
        assert len(ready) == wanted, f"ready: {ready}"
        assert holder in ready, f"the lease is held by {holder!r}, ready: {ready}"
        return True

    cluster.wait(leads, 120, "an operator that leads", OPERATOR_NAMESPACE)
