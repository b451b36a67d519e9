"""What the controller keeps of a model that serves: of five thousand, little enough for one process.

``python -m tests.unit.controller.test_memory_of_models 1000`` tells it by kind, and of the process.
"""

import gc
import json
import sys
import tracemalloc

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.report import InspectionResult
from onnx_operator.controller.cluster.kinds import CONTROLLER_REVISION, KINDS, ONNX_MODEL, POD
from onnx_operator.controller.cluster.owners import owner_reference
from onnx_operator.controller.cluster.store import Store
from onnx_operator.controller.inspection.inspections import _Entry
from onnx_operator.controller.revision.render import RenderInput, render
from onnx_operator.controller.revision.revisions import (
    RevisionData,
    controller_revision,
    decode,
    new_revision,
    pod_spec,
)
from onnx_operator.controller.revision.seal import Key, Sealer
from onnx_operator.controller.rollout.children import desired_children
from onnx_operator.controller.rollout.shapes import shapes
from tests.unit.controller.samples import files, pool, report, settings

MAX_BYTES = 30 * 1024
NAMESPACE = "models"
SEALER = Sealer(Key(b"k" * 32))
MANAGED = [{"manager": "kubectl", "operation": "Apply", "fieldsV1": {f"f:field-{n}": {} for n in range(50)}}]


def read(item, model):
    return decode(item, model["metadata"]["name"], model["metadata"]["namespace"], SEALER)


def live(item, number, version, **more):
    """As the API server shows it."""
    metadata = {"uid": f"{item['kind']}-{number:032d}", "resourceVersion": str(version), "managedFields": MANAGED}
    copy = json.loads(json.dumps(item))
    return {**copy, "metadata": {**copy["metadata"], "generation": 1, **metadata}, **more}


def condition(kind, name):
    return {
        "type": kind,
        "status": "True",
        "reason": Reason.COMPLETE,
        "message": f"revision {name}-0123456789 runs on all replicas",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }


def objects(number):
    """All objects of a model that serves with one pod."""
    name = f"model-{number}"
    told = report().model_dump(mode="json", by_alias=True, exclude_none=True)
    status = {
        "conditions": [condition(kind, name) for kind in ("Ready", "ModelValid", "Progressing", "Available")],
        "model": told,
        "url": f"http://{name}.{NAMESPACE}.svc",
    }
    wanted = {"model": {"uri": f"s3://models/{name}.onnx", "credentials": {"secretName": "keys"}}, "replicas": 1}
    bare = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": wanted,
    }
    model = live(bare, number, number * 10 + 1, status=status)
    yield ONNX_MODEL, model
    spec = OnnxModelSpec.model_validate(wanted)
    rendered = render(RenderInput(name, NAMESPACE, spec, report(), files(), pool("cpu"), settings()))
    data = RevisionData(
        spec=pod_spec(spec), report=report(), interface="f", files=files(), pool="cpu", manifests=rendered
    )
    revision = new_revision(name, 1, data, "key")
    stored = controller_revision(revision, name, NAMESPACE, SEALER)
    stored["metadata"]["ownerReferences"] = [owner_reference(model)]
    yield CONTROLLER_REVISION, live(stored, number, number * 10 + 2)
    counts = dict.fromkeys(("replicas", "readyReplicas", "updatedReplicas", "availableReplicas"), 1)
    for child in desired_children(model, spec, revision):
        yield KINDS[child["kind"]], live(child, number, number * 10 + 3, status=counts)
    template = next(m for m in rendered if m["kind"] == "Deployment")["spec"]["template"]
    replica_set = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{name}-5d4f9", "controller": True}
    labels = {names.LABEL_MODEL: name, names.LABEL_REVISION: revision.name}
    metadata = {
        "name": f"{name}-5d4f9-abcde",
        "namespace": NAMESPACE,
        "labels": labels,
        "ownerReferences": [replica_set],
    }
    running = [{"name": "server", "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]
    state = {"phase": "Running", "containerStatuses": running, "conditions": [{"type": "Ready", "status": "True"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    yield POD, live(pod, number, number * 10 + 4, status=state)


def inspected():
    """What is kept of an inspection that is over."""
    entry = _Entry("key")
    entry.result = InspectionResult(
        outcome="Accepted", source=report().source, report=report(), interface="f", files=files()
    )
    return entry


def tell(store, number):
    for kind, item in objects(number):
        store.watched(kind, None, "ADDED", item)


def measured(count):
    """A store of so many models, and the bytes that each takes, of whatever is kept of it."""
    store = Store(shapes(read))
    # What is made once for all is no model's.
    tell(store, 1_000_000)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    results = []
    for number in range(count):
        tell(store, number)
        results.append(inspected())
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return store, taken / len(results)


def test_a_model_takes_little_of_the_controllers_memory():
    store, taken = measured(100)
    assert len(store.keys(ONNX_MODEL)) == 101
    assert taken < MAX_BYTES, f"{taken:.0f} bytes a model"


if __name__ == "__main__":
    many = int(sys.argv[1])
    filled, each = measured(many)
    print(f"{each / 1024:.1f} KiB a model")
    for shape in filled.shapes:
        entries = filled._kinds[shape].entries.values()
        print(f"{shape.kind:22} {sum(entry.size for entry in entries) / 1024 / many:6.2f} KiB a model")
