"""What the chaos tests take for an orphan, a contradiction, a stranger's pod and a different end."""

import copy

from tests.chaos import outcome as outcomes
from tests.chaos.api import KINDS

OWN, REVISION = "onnx-operator.dev/model", "onnx-operator.dev/revision"


def owned(kind, name, owner, **metadata):
    reference = {"kind": kind, "name": name, "uid": owner, "controller": True}
    return {"name": name, "namespace": "orchard", "ownerReferences": [reference], **metadata}


def pod(ready=True, revision="quince-1"):
    fetch = {"name": "fetch", "env": [{"name": "PLAN", "value": '{"uri":"https://h/a.onnx"}'}]}
    metadata = owned("ReplicaSet", "quince-5d4f9", "s", uid="p", labels={OWN: "quince", REVISION: revision})
    return {
        "metadata": {**metadata, "name": "quince-5d4f9-x"},
        "spec": {"containers": [{"name": "server", "args": ["serve", "--name=quince"]}], "initContainers": [fetch]},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def items():
    """A model with one pod, as it is once it serves."""
    said = {"observedGeneration": 2, "status": "True", "message": "revision quince-1 runs", "lastTransitionTime": "t"}
    status = {
        "observedGeneration": 2,
        "readyReplicas": 1,
        "serving": {"revision": "quince-1"},
        "conditions": [{"type": kind, **said} for kind in ("Ready", "Available")],
    }
    template = {"metadata": {"labels": {REVISION: "quince-1"}}}
    child = {"metadata": owned("OnnxModel", "quince", "u", uid="d"), "spec": {"template": template}}
    metadata = {"name": "quince", "namespace": "orchard", "uid": "u", "generation": 2}
    found = {plural: [] for plural in KINDS}
    return found | {
        "onnxmodels": [{"metadata": metadata, "spec": {"replicas": 1}, "status": status}],
        "deployments": [child],
        "replicasets": [{"metadata": owned("Deployment", "quince", "d", uid="s")}],
        "pods": [pod()],
    }


def test_a_model_that_serves_is_neither_orphaned_nor_contradicted():
    assert outcomes.orphans(items()) == []
    assert outcomes.contradictions(items(), "quince") == []


def test_what_a_deleted_model_leaves_behind_is_an_orphan():
    found = items()
    found["onnxmodels"] = []
    assert outcomes.orphans(found) == ["deployments/quince belongs to nobody"]
    found["deployments"] = []
    assert outcomes.orphans(found) == ["replicasets/quince belongs to nobody"]


def test_a_status_of_another_generation_or_of_other_pods_is_a_contradiction():
    found = items()
    found["onnxmodels"][0]["metadata"]["generation"] = 3
    assert "observedGeneration is 2 at generation 3" in outcomes.contradictions(found, "quince")
    found = items()
    found["pods"] = [pod(ready=False)]
    assert "readyReplicas is 1, and 0 pods are ready" in outcomes.contradictions(found, "quince")
    found["pods"] = [pod(revision="quince-2")]
    assert "serving is 'quince-1', pods are of ['quince-2']" in outcomes.contradictions(found, "quince")


def test_a_pod_of_another_models_template_is_a_stranger():
    assert outcomes.served_by_another(pod(), {"a", "b"}) == ""
    assert "fetches ['a']" in outcomes.served_by_another(pod(), {"b"})
    other = pod()
    other["metadata"]["labels"][OWN] = "other"
    assert "takes traffic of 'other'" in outcomes.served_by_another(other, {"a"})


def test_ends_are_compared_without_names_and_times_and_with_all_that_is_told():
    first = items()
    second = copy.deepcopy(first)
    for condition in second["onnxmodels"][0]["status"]["conditions"]:
        condition["lastTransitionTime"] = "later"
    assert outcomes.outcome(first, "quince") == outcomes.outcome(second, "quince")
    second["onnxmodels"][0]["status"]["conditions"][0]["message"] = "something else"
    lines = outcomes.differences(outcomes.outcome(first, "quince"), outcomes.outcome(second, "quince"))
    assert len(lines) == 1
    assert "something else" in lines[0]
