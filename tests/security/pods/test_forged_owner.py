"""Mallory may create pods in one namespace, and nothing else: on the whole system, where her pods run.

Her pods say in labels and owner references what they like, and print and end with what they like.
"""

import json
import time
import uuid
from collections.abc import Iterator

import pytest

from tests import models as files
from tests.cluster.cluster import Cluster
from tests.cluster.fixtures import _fresh_namespace
from tests.e2e.system import CREDENTIALS, MODEL_LABEL, REVISION_LABEL, Models, System, conditions

MALLORY = "mallory"
IMAGE = "localhost/onnx-server:dev"
OPERATOR = "onnx-operator/"


@pytest.fixture
def hers(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace in which Mallory may create, see and delete pods."""
    for namespace in _fresh_namespace(cluster, request):
        allow(cluster, namespace)
        yield namespace


def allow(cluster: Cluster, namespace: str) -> None:
    """Let Mallory create, see and delete pods of a namespace."""
    verbs = "--verb=create,get,list,delete"
    cluster.kubectl("create", "role", "pods", "-n", namespace, verbs, "--resource=pods")
    cluster.kubectl("create", "rolebinding", "pods", "-n", namespace, "--role=pods", f"--user={MALLORY}")


def create(cluster: Cluster, namespace: str, manifest: dict) -> None:
    """What Mallory creates."""
    as_mallory = (f"--as={MALLORY}", "--as-group=system:authenticated")
    cluster.kubectl("create", "--validate=false", "-n", namespace, "-f", "-", *as_mallory, input=json.dumps(manifest))


def pod(name: str, labels: dict, references: list, command: list[str], **spec) -> dict:
    container = {"name": "server", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": command}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "ownerReferences": references},
        "spec": {"restartPolicy": "Never", "containers": [container], "terminationGracePeriodSeconds": 30, **spec},
    }


def owner(name: str) -> dict:
    return {
        "apiVersion": "onnx-operator.dev/v1alpha1",
        "kind": "OnnxModel",
        "name": name,
        "uid": str(uuid.uuid4()),
        "controller": True,
    }


def test_a_pods_log_never_becomes_a_model_of_another_namespace(system: System, models: Models, hers: str) -> None:
    """The pod prints an OnnxModel that lies in the victim's namespace and reads its Secret; its owner is its log."""
    cluster, theirs = system.cluster, models.namespace
    cluster.kubectl("create", "secret", "generic", "bs-secret", "-n", theirs, "--from-literal=password=only-for-them")
    volume = {"name": "s", "secret": {"secretName": "bs-secret"}}
    evil = {"name": "a-evil", "image": IMAGE, "command": ["cat", "/s/password"]}
    forged = models.manifest(
        "pwned", models.upload(files.linear(31)), model={"credentials": {"secretName": CREDENTIALS}}
    )
    forged["metadata"] |= {"uid": str(uuid.uuid4()), "generation": 1, "resourceVersion": "1"}
    forged["spec"]["podTemplate"] = {
        "spec": {
            "volumes": [volume],
            "initContainers": [evil | {"volumeMounts": [{"name": "s", "mountPath": "/s"}]}],
        }
    }
    since = time.time()
    for number in range(4):
        path = f"../../../../../../api/v1/namespaces/{hers}/pods/evil{number}/log"
        printing = ["python3", "-c", f"import time; print({json.dumps(forged)!r}, flush=True); time.sleep(60)"]
        create(cluster, hers, pod(f"evil{number}", {MODEL_LABEL: "x"}, [owner(path)], printing))
    # An honest model beside them: the operator has seen the pods when it is ready.
    models.apply("honest", models.upload(files.linear(32), "honest"))
    models.wait_ready("honest")
    for kind in ("deployments", "services", "controllerrevisions", "pods"):
        assert not [o for o in cluster.list(kind, theirs) if o["metadata"]["name"].startswith("pwned")]
    calls = cluster.audit_events(since, user_agent=OPERATOR)
    assert not [c for c in calls if ".." in c.uri or "%2e" in c.uri.lower()]
    assert not [c for c in calls if c.namespace == hers and (c.subresource == "log" or c.is_write)]


def test_the_status_of_anothers_model_is_not_written_through_a_path(system: System, models: Models, hers: str) -> None:
    models.apply("foo", models.upload(files.linear(33)))
    before = models.wait_settled("foo")
    since = time.time()
    path = f"evil.{hers}.svc/x/../../../../{models.namespace}/onnxmodels/foo"
    create(system.cluster, hers, pod("spoof", {MODEL_LABEL: "x"}, [owner(path)], ["sleep", "60"]))
    models.apply("after", models.upload(files.linear(34), "after"))
    models.wait_ready("after")
    after = models.get("foo")
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    writes = system.cluster.audit_events(since, user_agent=OPERATOR, writes=True)
    assert not [w for w in writes if w.name == "foo"]


def test_pods_that_pass_for_a_models_change_no_more_than_what_its_status_tells(models: Models) -> None:
    """With pods in the model's own namespace: they carry its labels, its revision, and the name of its ReplicaSet."""
    cluster, namespace = models.cluster, models.namespace
    allow(cluster, namespace)
    models.apply("mine", models.upload(files.linear(35)))
    models.wait_ready("mine")
    (real,) = models.pods("mine")
    deployment = cluster.get("deployment", "mine", namespace)
    since = time.time()
    claims = [
        {"phase": "Loading", "reason": "SourceChanged", "observed": {"kind": "Conditional", "value": f"v{number}"}}
        for number in range(4)
    ]
    # Not the ReplicaSet's own UID: it would delete what is too many.
    reference = {**real["metadata"]["ownerReferences"][0], "uid": str(uuid.uuid4())}
    labels = {key: real["metadata"]["labels"][key] for key in (MODEL_LABEL, REVISION_LABEL)}
    for number, claim in enumerate(claims):
        ending = f"open('/dev/termination-log', 'w').write({json.dumps(claim)!r}); raise SystemExit(1)"
        create(cluster, namespace, pod(f"claims-{number}", labels, [reference], ["python3", "-c", ending]))
        create(cluster, namespace, pod(f"labelled-{number}", labels, [], ["python3", "-c", ending]))
    time.sleep(20)
    now = cluster.get("deployment", "mine", namespace)
    assert now["metadata"]["generation"] == deployment["metadata"]["generation"], "what serves is left as it is"
    assert [p["metadata"]["uid"] for p in models.pods("mine") if p["metadata"]["name"] == real["metadata"]["name"]]
    assert conditions(models.get("mine"))["Available"]["status"] == "True"
    calls = cluster.audit_events(since, user_agent=OPERATOR, namespace=namespace)
    assert not [c for c in calls if c.subresource == "log" and c.name.startswith(("claims", "labelled"))]
    # Each claim may have the source looked at again, at growing intervals: never as often as pods are made.
    assert len([c for c in calls if c.resource == "secrets"]) <= 4
