"""Models, pods and settings that the controller's tests are made from."""

from collections.abc import Mapping
from typing import Any

from onnx_operator.api import names
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.report import MemoryEstimate, ModelReport, TensorSpec
from onnx_operator.api.sources import SourcePin
from onnx_operator.controller.quantities import MEBIBYTE
from onnx_operator.controller.settings import Pool, Settings, parse_settings

DIGEST = "ab" * 32
URI = "s3://models/resnet50.onnx"
Object = dict[str, Any]


def spec(**fields: Any) -> OnnxModelSpec:
    """A spec in the words of a manifest."""
    model = {"uri": URI} | fields.pop("model", {})
    return OnnxModelSpec.model_validate({"model": model, **fields})


def report(megabytes: float = 100, **changes: Any) -> ModelReport:
    values: dict[str, Any] = {
        "source": SourcePin(kind="Conditional", value='"etag-1"'),
        "digest": f"sha256:{DIGEST}",
        "size_bytes": int(megabytes * MEBIBYTE),
        "ir_version": 8,
        "opsets": {"ai.onnx": 17},
        "inputs": [TensorSpec(name="x", datatype="FP32", shape=["N", 3, 224, 224])],
        "outputs": [TensorSpec(name="y", datatype="FP32", shape=["N", 1000])],
        "memory": MemoryEstimate(
            weights_bytes=int(megabytes * MEBIBYTE),
            activations_bytes=10 * MEBIBYTE,
            resident_bytes=int((megabytes + 90) * MEBIBYTE),
        ),
    }
    return ModelReport(**(values | changes))


def settings(**fields: Any) -> Settings:
    """Settings in the words of the file."""
    return parse_settings({"serverImage": "registry.example/onnx-server:1.0", **fields})


def pool(name: str = "cpu", **fields: Any) -> Pool:
    return Pool.model_validate({"name": name, **fields})


T4 = {
    "name": "t4",
    "runtime": "GPU",
    "nodeSelector": {"gpu": "t4"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "gpuResource": "nvidia.com/gpu",
    "acceleratorMemory": "16Gi",
    "serverImage": "registry.example/onnx-server-gpu:1.0",
}
A100 = {
    "name": "a100",
    "runtime": "GPU",
    "nodeSelector": {"gpu": "a100", "zone": "b"},
    "acceleratorMemory": "80Gi",
    "serverImage": "registry.example/onnx-server-gpu:1.0",
    "allowedNamespaces": ["research"],
}


def pod(
    name: str = "resnet50-1-a",
    *,
    revision: str = "resnet50-1",
    ready: bool = False,
    phase: str = "Pending",
    fetch: Mapping[str, Any] | None = None,
    server: Mapping[str, Any] | None = None,
    conditions: list[Object] | None = None,
    **metadata: Any,
) -> Object:
    """A pod as the API server shows it; ``fetch`` and ``server`` are its containers' statuses."""
    status: Object = {"phase": phase, "conditions": [*(conditions or [])]}
    status["conditions"].append({"type": "Ready", "status": "True" if ready else "False"})
    if fetch is not None:
        status["initContainerStatuses"] = [{"name": names.CONTAINER_FETCH, "image": "registry.example/i:1", **fetch}]
    if server is not None:
        status["containerStatuses"] = [{"name": names.CONTAINER_SERVER, "image": "registry.example/i:1", **server}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {names.LABEL_MODEL: "resnet50", names.LABEL_REVISION: revision},
            **metadata,
        },
        "spec": {
            "initContainers": [{"name": "fetch", "resources": {"limits": {"memory": "256Mi"}}}],
            "containers": [{"name": "server", "resources": {"limits": {"memory": "300Mi"}}}],
        },
        "status": status,
    }


def running(**last: Any) -> Object:
    """A container that runs, after one that ended so."""
    return {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}} | (
        {"lastState": {"terminated": last}} if last else {}
    )


def waiting(reason: str, message: str = "", /, **last: Any) -> Object:
    return {"state": {"waiting": {"reason": reason, "message": message}}} | (
        {"lastState": {"terminated": last}} if last else {}
    )


def terminated(exit_code: int, reason: str = "Error", message: str = "") -> Object:
    return {"state": {"terminated": {"exitCode": exit_code, "reason": reason, "message": message}}}


FETCHED = terminated(0, "Completed", '{"phase":"Downloading","message":""}')


def deployment(
    *,
    revision: str = "resnet50-1",
    wanted: int = 1,
    ready: int = 0,
    updated: int | None = None,
    total: int | None = None,
    conditions: list[Object] | None = None,
    generation: int = 3,
    observed: int = 3,
) -> Object:
    """A Deployment with its status."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "resnet50", "generation": generation},
        "spec": {"replicas": wanted, "template": {"metadata": {"labels": {names.LABEL_REVISION: revision}}}},
        "status": {
            "observedGeneration": observed,
            "replicas": wanted if total is None else total,
            "updatedReplicas": wanted if updated is None else updated,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "conditions": conditions or [],
        },
    }
