"""Models, pods and settings that the controller's tests are made from."""

import datetime
import functools
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from onnx_operator.api import names
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.report import MemoryEstimate, ModelReport, TensorSpec
from onnx_operator.api.sources import ModelFiles, SourceFile, SourcePin
from onnx_operator.controller.settings.quantities import MEBIBYTE
from onnx_operator.controller.settings.settings import Pool, Settings, parse_settings

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


def files(found: ModelReport | None = None, **changes: Any) -> ModelFiles:
    """The files of a model of one file, as inspected."""
    found = found or report()
    file = SourceFile(
        name="resnet50.onnx",
        pin=found.source,
        size_bytes=found.size_bytes,
        sha256=found.digest.removeprefix("sha256:"),
    )
    return ModelFiles(**({"files": [file], "model": file.name} | changes))


def many_files(count: int, **changes: Any) -> ModelFiles:
    """A model whose weights lie in ``count`` files beside it, with names as long as exporters give them."""
    names_ = [
        "model.onnx",
        *(f"weights/onnx__MatMul_{n}_layer.{n}.attention.output.dense.weight" for n in range(count)),
    ]
    return ModelFiles(
        files=[
            SourceFile(name=name, pin=SourcePin(kind="Conditional", value=f'"{n:032x}"'), size_bytes=5 * MEBIBYTE)
            for n, name in enumerate(names_)
        ],
        model="model.onnx",
        **changes,
    )


def settings(**fields: Any) -> Settings:
    """Settings in the words of the file."""
    return parse_settings({"serverImage": "registry.example/onnx-server:1.0", **fields})


@functools.cache
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def certificate() -> str:
    """A certificate in PEM."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "store")])
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder(name, name, key().public_key(), x509.random_serial_number(), now, now)
    return built.sign(key(), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def public_key() -> str:
    """A public key in PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key().public_key().public_bytes(serialization.Encoding.PEM, form).decode()


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
    since: str = "",
    **metadata: Any,
) -> Object:
    """A pod as the API server shows it; ``fetch`` and ``server`` are its containers' statuses.

    It is ready, or not, ``since`` then.
    """
    status: Object = {"phase": phase, "conditions": [*(conditions or [])]}
    changed = {"lastTransitionTime": since} if since else {}
    status["conditions"].append({"type": "Ready", "status": "True" if ready else "False", **changed})
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


STARTED_AT = "2026-01-01T00:00:00Z"
"""When containers that run were started."""


def silent(**last: Any) -> Object:
    """A container that has started, and is not ready."""
    return {**running(**last), "started": True, "ready": False}


ROLLED_OUT = [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]
"""What a Deployment says whose rollout came to its end once."""


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
