"""Carol may write OnnxModels and ControllerRevisions in her namespace, and nothing else: on the whole system."""

import copy
import json
import time

from tests import models as files
from tests.e2e.system import MODEL_LABEL, Models

CAROL = ("--as=carol", "--as-group=system:authenticated")


def test_a_revision_that_a_tenant_wrote_starts_no_pod_anywhere(models: Models) -> None:
    cluster, namespace = models.cluster, models.namespace
    resources = "--resource=onnxmodels.onnx-operator.dev,controllerrevisions.apps"
    cluster.kubectl("create", "role", "carol", "-n", namespace, "--verb=*", resources)
    cluster.kubectl("create", "rolebinding", "carol", "-n", namespace, "--role=carol", "--user=carol")
    models.apply("mine", models.upload(files.linear(41)))
    models.wait_ready("mine")
    before = cluster.get("deployment", "mine", namespace)

    (real,) = cluster.list("controllerrevisions", namespace, f"{MODEL_LABEL}=mine")
    forged = copy.deepcopy(real)
    forged["metadata"] = {
        "name": "mine-forged",
        **{k: real["metadata"][k] for k in ("namespace", "labels", "annotations", "ownerReferences")},
    }
    deployment = next(m for m in forged["data"]["manifests"] if m["kind"] == "Deployment")
    elsewhere = copy.deepcopy(deployment)
    elsewhere["metadata"] |= {"namespace": "default", "name": "carols"}
    elsewhere["spec"]["template"]["spec"]["automountServiceAccountToken"] = True
    deployment["spec"]["template"]["spec"]["containers"][0]["command"] = ["sleep", "60"]
    forged["data"]["manifests"].append(elsewhere)
    forged["revision"] = real["revision"] + 1
    cluster.kubectl("create", "-f", "-", *CAROL, input=json.dumps({"kind": "ControllerRevision", **forged}))
    # The second revision of the model's own comes after hers, and is the one that is applied.
    since = time.time()
    models.patch("mine", {"session": {"intraOpThreads": 1}})
    models.wait_ready("mine")

    after = cluster.get("deployment", "mine", namespace)
    assert after["metadata"]["generation"] > before["metadata"]["generation"]
    server = after["spec"]["template"]["spec"]["containers"][0]
    assert "--intra-op-threads=1" in server["args"]
    assert "command" not in server
    assert not [d for d in cluster.list("deployments", "default") if d["metadata"]["name"] == "carols"]
    writes = cluster.audit_events(since, user_agent="onnx-operator/", writes=True)
    assert not [w for w in writes if w.namespace == "default"]
