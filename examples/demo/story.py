"""The chapters of the demonstration."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import numpy as np

from examples.demo.console import heading, line, timed
from examples.demo.install import Images, install_operator
from examples.demo.models import Model, make_broken, make_models
from examples.demo.predict import Prediction, predict, reach
from examples.demo.store import Store
from examples.demo.watch import KIND, condition, follow, is_ready, is_refused
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.layout import ROOT
from tests.cluster.progress import step

NAMESPACE = "onnx-demo"
READY_SECONDS = 300
REFUSED_SECONDS = 60
# Other builds of ONNX Runtime add up in another order.
_TOLERANCE = 1e-3
EXAMPLES = ROOT / "examples"


def set_up_store(cluster: Cluster, image: str | None) -> Store:
    """The S3 server, and the Secret by which the models of the namespace read it."""
    heading(f"An S3 server in the namespace {NAMESPACE}")
    with step("server"):
        store = Store.deploy(cluster, NAMESPACE, image)
    cluster.apply(store.credentials_secret(), NAMESPACE)
    line(f"{store.endpoint}, and a Secret models-read with its keys")
    return store


def install(cluster: Cluster, store: Store, images: Images | None) -> None:
    """The operator, told where `s3://` leads."""
    heading("The operator: images, and helm upgrade --install onnx-operator charts/onnx-operator")
    with step("installed and ready"):
        install_operator(cluster, {"sources": {"s3": {"endpoint": store.endpoint}}}, images=images)


def upload_models(store: Store) -> list[tuple[Model, str]]:
    """Make the models and upload them; each comes with the ETag of its file."""
    heading("Three models and a broken one, uploaded through S3")
    with step("make the models (kept in .cluster/demo)"):
        models = make_models()
        broken = make_broken()
    etags: dict[str, str] = {}
    for name, content in [*((m.name, m.content) for m in models), ("broken", broken)]:
        started = time.monotonic()
        etags[name] = store.upload(f"{name}.onnx", content)
        timed(f"{store.uri(f'{name}.onnx'):<29} {_size(len(content))}", started)
    return [(model, etags[model.name]) for model in models]


def apply_examples(cluster: Cluster, uploaded: list[tuple[Model, str]]) -> None:
    """Apply, and wait until all of them are Ready with the bytes that were uploaded."""
    heading(f"kubectl apply -n {NAMESPACE} -f examples/")
    line(cluster.kubectl("apply", "--namespace", NAMESPACE, f"--filename={EXAMPLES}"))
    line()
    names = [model.name for model, _ in uploaded]
    found = follow(cluster, NAMESPACE, names, is_ready, READY_SECONDS)
    for model, etag in uploaded:
        _refresh(cluster, model.name, etag, found[model.name])
    line()
    line(cluster.kubectl("get", "onnx", "--namespace", NAMESPACE))


def _refresh(cluster: Cluster, name: str, etag: str, found: dict[str, Any]) -> None:
    """Replace the file that an earlier version of this demonstration uploaded under the same name."""

    def serves_it(seen: dict[str, Any]) -> bool:
        return is_ready(seen) and seen["status"]["model"]["source"]["value"] == etag

    if serves_it(found):
        return
    line(f"{name} serves an older file: the annotation onnx-operator.dev/refresh makes the operator look again")
    annotation = f"onnx-operator.dev/refresh={hashlib.sha256(etag.encode()).hexdigest()[:12]}"
    cluster.kubectl("annotate", KIND, name, annotation, "--overwrite", "--namespace", NAMESPACE)
    follow(cluster, NAMESPACE, [name], serves_it, READY_SECONDS)


def score(cluster: Cluster, models: list[Model]) -> None:
    """Two inputs to each model, through its Service."""
    heading("Two predictions of each through its Service, compared with onnxruntime on this machine")
    for model in models:
        with reach(cluster, NAMESPACE, model.name) as url:
            predictions = predict(url, model)
        for number, prediction in enumerate(predictions, 1):
            line(f"{model.name:<11} input {number}: {_told(model, prediction)}")
        _check(model, predictions)


def show_refusal(cluster: Cluster) -> None:
    """A model that no runtime can run: it is refused, and no pod starts."""
    heading(f"kubectl apply -n {NAMESPACE} -f examples/refused/broken.yaml")
    line(cluster.kubectl("apply", "--namespace", NAMESPACE, f"--filename={EXAMPLES / 'refused' / 'broken.yaml'}"))
    line()
    broken = follow(cluster, NAMESPACE, ["broken"], is_refused, REFUSED_SECONDS)["broken"]
    line()
    line(cluster.kubectl("get", "onnx", "--namespace", NAMESPACE))
    verdict = condition(broken, "ModelValid") or {}
    line()
    line(f"ModelValid=False, {verdict.get('reason')}: {verdict.get('message')}")
    if cluster.find("deployment", "broken", NAMESPACE) is not None:
        raise ClusterError("a refused model has a Deployment")
    line("no Deployment and no pod of it exists")


def _told(model: Model, prediction: Prediction) -> str:
    scores = prediction.outputs[model.scores].ravel()
    top = int(scores.argmax())
    name = f" ({model.classes[top]})" if model.classes else ""
    return (
        f"class {top}{name} with {scores[top]:.4f}; largest difference {prediction.difference:.1e}; "
        f"{prediction.seconds * 1000:.0f} ms with JSON"
    )


def _check(model: Model, predictions: list[Prediction]) -> None:
    worst = max(p.difference for p in predictions)
    if not worst <= _TOLERANCE:
        raise ClusterError(f"{model.name} answers otherwise than onnxruntime does here: by {worst:g}")
    first, second = (p.outputs[model.scores] for p in predictions)
    if np.allclose(first, second):
        raise ClusterError(f"{model.name} answers the same to two different inputs")


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count} bytes"
