"""Who may create pods in one namespace, and nothing else, brings the operator to do nothing elsewhere.

The real API server, whose audit log tells every call of the operator's, and the operator's own processes. No pod runs.
"""

import json
import time
import uuid
from pathlib import Path

import pytest

from onnx_operator.api import names
from tests.cluster.fixtures import _fresh_namespace
from tests.integration.test_controller_process import Operator

TRAVERSALS = [
    "../../../../../../api/v1/namespaces/{a}/pods/evil/log",
    "../../{b}/onnxmodels/victim",
    "evil.{a}.svc/x/../../../../{b}/onnxmodels/victim",
    "..%2f..%2f{b}%2fonnxmodels%2fvictim",
    "victim?labelSelector=a",
    "victim/status",
    "..",
    "x" * 100_000,
]


@pytest.fixture
def victim_namespace(apiserver, request):
    yield from _fresh_namespace(apiserver, request)


@pytest.fixture
def operator(apiserver, crd, api_namespace, victim_namespace, tmp_path, monkeypatch):
    """The operator over both namespaces; its Lease is in the victim's."""
    running = Operator(apiserver, victim_namespace, tmp_path, namespaces=[api_namespace, victim_namespace])
    yield running
    running.stop()


def model(name):
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {"model": {"uri": "s3://models/m.onnx", "credentials": {"secretName": "nowhere"}}},
    }


def pod(name, labels, references):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "ownerReferences": references},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }


def reference(name, **changes):
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": name,
        "uid": str(uuid.uuid4()),
        "controller": True,
        **changes,
    }


def test_pods_with_forged_owners_and_labels_lead_nowhere(apiserver, api_namespace, victim_namespace, operator):
    mine, theirs = api_namespace, victim_namespace
    apiserver.wait(lambda: json.loads(operator.get("/readyz"))["leading"], 60, "the controller to lead")
    apiserver.apply(model("victim"), theirs)

    def verdict(name, namespace):
        found = apiserver.get("onnx", name, namespace).get("status", {}).get("conditions", [])
        return {c["type"]: c["reason"] for c in found}

    apiserver.wait(lambda: verdict("victim", theirs).get("ModelValid") == "CredentialsNotFound", 60, "the verdict")
    before = apiserver.get("onnx", "victim", theirs)
    # The verdict's last retry is over, and what follows is the pods' doing.
    since = time.time()

    for number, name in enumerate(TRAVERSALS):
        forged = name.format(a=mine, b=theirs)
        apiserver.apply(pod(f"evil-{number}", {names.LABEL_MODEL: f"x{number}"}, [reference(forged)]), mine)
    apiserver.apply(pod("evil", {names.LABEL_MODEL: "victim"}, [reference("victim")]), mine)
    # Looked at after all of these: the operator has seen them.
    apiserver.apply(model("last"), mine)
    apiserver.wait(lambda: verdict("last", mine).get("ModelValid") == "CredentialsNotFound", 60, "the last model")

    def calls():
        events = apiserver.audit_events(since, user_agent="onnx-operator/")
        return [e for e in events if e.resource not in ("leases", "events")]

    for event in calls():
        assert ".." not in event.uri
        assert "%2" not in event.uri.partition("?")[0]
        if event.namespace != mine:
            # Its own retries of the Secret that is not there.
            assert (event.namespace, event.name) in ((theirs, "victim"), (theirs, "nowhere"), (theirs, "")), event
        else:
            # Models that the labels name, and that are not there, are not even asked for.
            assert event.name in ("last", "nowhere", ""), event
            assert not (event.is_write and event.subresource != "status"), event
        assert event.subresource != "log"
        assert not event.is_write or event.name in ("last", "victim"), event
    after = apiserver.get("onnx", "victim", theirs)
    for field in ("url", "selector", "conditions"):
        assert after["status"].get(field) == before["status"].get(field)
    for kind in ("deployments", "services", "controllerrevisions", "poddisruptionbudgets"):
        assert not [o for n in (mine, theirs) for o in apiserver.list(kind, n) if names.LABEL_MODEL in str(o)]
    assert json.loads(operator.get("/healthz")) == {"status": "ok"}


def test_watches_keep_nothing_of_what_strangers_label(apiserver, api_namespace, operator):
    """Large pods pass through the operator's watches one at a time, and leave nothing behind."""
    apiserver.wait(lambda: json.loads(operator.get("/readyz"))["leading"], 60, "the controller to lead")
    large = pod("large", {names.LABEL_MODEL: "nobody"}, [])
    large["spec"]["containers"][0]["env"] = [{"name": "A", "value": "x" * 900_000}]

    def peak():
        lines = Path(f"/proc/{operator.controller.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

    before = peak()
    for number in range(60):
        large["metadata"]["name"] = f"large-{number}"
        apiserver.kubectl("create", "-n", api_namespace, "-f", "-", input=json.dumps(large))
    apiserver.apply(model("last"), api_namespace)
    apiserver.wait(
        lambda: 'onnx_operator_models{ready="False",reason="CredentialsNotFound"} 1.0' in operator.get("/metrics"),
        60,
        "the model to be looked at",
    )
    assert peak() - before < 48 * 1024, "54 MB of pods"
