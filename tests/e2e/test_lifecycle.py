"""What happens to a model from `kubectl apply` to `kubectl delete`."""

import json
import subprocess
import time

import numpy as np

from tests import models as files
from tests.e2e.system import MODEL_LABEL, REVISION_LABEL, Models, conditions, expected

X = np.array([[0.5, -1.0, 2.0, 3.0]], np.float32)


def test_the_smallest_manifest_becomes_a_scored_prediction(models: Models) -> None:
    content = files.linear(1)
    models.apply("smallest", models.upload(content), small=False)
    model = models.wait_ready("smallest")

    assert model["spec"]["replicas"] == 1
    status = model["status"]
    assert status["url"] == f"http://smallest.{models.namespace}.svc"
    assert status["model"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}]
    assert conditions(model)["ModelValid"]["reason"] == "Inspected"
    assert conditions(model)["Available"]["status"] == "True"
    assert "Stalled" not in conditions(model)
    assert "Reconciling" not in conditions(model)
    np.testing.assert_allclose(models.predict("smallest", {"x": X})["y"], expected(content, {"x": X})["y"], rtol=1e-5)


def test_kubectl_understands_it(models: Models) -> None:
    run = models.cluster.kubectl
    where = ("-n", models.namespace)
    models.apply("tools", models.upload(files.linear(2)))
    run("wait", "--for=condition=Ready", "onnx/tools", *where, "--timeout=120s", timeout=130)
    assert "successfully rolled out" in run("rollout", "status", "deployment/tools", *where, "--timeout=30s")
    table = run("get", "onnx", *where).splitlines()
    assert table[0].split() == ["NAME", "READY", "REASON", "REPLICAS", "RUNTIME", "MODEL", "URL", "AGE"]
    assert table[1].split()[:5] == ["tools", "True", "Complete", "1", "CPU"]

    run("scale", "onnx/tools", "--replicas=2", *where)
    model = models.wait_for("tools", ready="True", where=lambda m: m["status"].get("readyReplicas") == 2)
    assert model["spec"]["replicas"] == 2
    assert len(models.pods("tools")) == 2
    described = run("describe", "onnx", "tools", *where)
    assert "Inspected" in described
    assert "RollingOut" in described


def test_a_healthy_start_and_scaling_leave_no_warning_and_ready_never_falls(models: Models) -> None:
    models.apply("quiet", models.upload(files.linear(9)))
    since = conditions(models.wait_ready("quiet"))["Ready"]["lastTransitionTime"]
    models.patch("quiet", {"replicas": 2})
    model = models.wait_for(
        "quiet", ready="True", reason="Complete", where=lambda m: m["status"].get("readyReplicas") == 2
    )
    assert conditions(model)["Ready"]["lastTransitionTime"] == since
    pods = {p["metadata"]["name"] for p in models.pods("quiet")}
    events = models.cluster.list("events", models.namespace, "")
    warnings = [e for e in events if e["type"] == "Warning" and e["involvedObject"]["name"] in {*pods, "quiet"}]
    assert [(e["reason"], e["message"]) for e in warnings] == []


def test_kubectl_autoscale_works_on_the_smallest_manifest(models: Models) -> None:
    models.apply("auto", models.upload(files.linear(3)))
    models.wait_ready("auto")
    models.cluster.kubectl("autoscale", "onnx/auto", "-n", models.namespace, "--min=2", "--max=3", "--cpu=80%")
    model = models.wait_for("auto", ready="True", where=lambda m: m["status"].get("readyReplicas") == 2)
    assert model["spec"]["replicas"] == 2

    def has_metrics() -> bool:
        autoscaler = models.cluster.get("hpa", "auto", models.namespace)
        state = {c["type"]: c["status"] for c in autoscaler["status"].get("conditions", [])}
        return state.get("AbleToScale") == "True" and state.get("ScalingActive") == "True"

    models.cluster.wait(has_metrics, 120, "the autoscaler to read the pods' metrics", models.namespace, interval=1)


def test_a_new_model_takes_over_only_when_it_is_ready(models: Models) -> None:
    old, new = files.linear(4), files.linear(5)
    models.apply("update", models.upload(old, "old"))
    first = models.wait_ready("update")["status"]["serving"]
    before = models.predict("update", {"x": X})["y"]

    models.apply("update", models.upload(new, "new"))
    # Whatever is asked at any moment in between is answered, by the one or by the other.
    answers = []
    for _ in range(400):
        answers.append(models.predict("update", {"x": X})["y"])
        model = models.get("update")
        serving = model["status"].get("serving", {})
        if serving.get("revision") != first["revision"] and conditions(model)["Ready"]["status"] == "True":
            break
        time.sleep(0.1)
    after = models.predict("update", {"x": X})["y"]
    np.testing.assert_allclose(before, expected(old, {"x": X})["y"], rtol=1e-5)
    np.testing.assert_allclose(after, expected(new, {"x": X})["y"], rtol=1e-5)
    for answer in answers:
        assert np.allclose(answer, before, rtol=1e-5) or np.allclose(answer, after, rtol=1e-5)
    revisions = models.cluster.list("controllerrevisions", models.namespace, f"{MODEL_LABEL}=update")
    assert sorted(r["revision"] for r in revisions) == [1, 2]


def test_a_refused_first_version_starts_no_pod(models: Models) -> None:
    models.apply("refused", models.upload(files.unknown_operator()))
    model = models.wait_for("refused", ready="False", reason="UnknownOperator")
    message = conditions(model)["ModelValid"]["message"]
    assert "mystery" in message
    assert "FancyGelu" in message
    assert conditions(model)["Stalled"]["status"] == "True"
    assert conditions(model)["Available"]["status"] == "False"
    for kind in ("deployments", "services", "pods", "poddisruptionbudgets", "controllerrevisions"):
        assert not models.cluster.list(kind, models.namespace, f"{MODEL_LABEL}=refused"), kind


def test_a_refused_update_leaves_the_running_revision_alone(models: Models) -> None:
    content = files.linear(6)
    models.apply("kept", models.upload(content, "good"))
    models.wait_ready("kept")
    pods = {p["metadata"]["uid"] for p in models.pods("kept")}
    deployment = models.cluster.get("deployment", "kept", models.namespace)["metadata"]["generation"]

    models.apply("kept", models.upload(files.newer_opset(), "bad"))
    model = models.wait_for("kept", ready="False", reason="UnsupportedOpset")
    assert conditions(model)["Available"]["status"] == "True"
    assert conditions(model)["Stalled"]["status"] == "True"
    assert "99" in conditions(model)["ModelValid"]["message"]
    assert {p["metadata"]["uid"] for p in models.pods("kept")} == pods
    assert models.cluster.get("deployment", "kept", models.namespace)["metadata"]["generation"] == deployment
    np.testing.assert_allclose(models.predict("kept", {"x": X})["y"], expected(content, {"x": X})["y"], rtol=1e-5)

    # What runs can still be scaled, and going back to the good model needs no new pods.
    models.patch("kept", {"replicas": 2})
    models.cluster.wait(lambda: len(models.pods("kept")) == 2, 60, "a second pod", models.namespace)
    models.patch("kept", {"replicas": 1, "model": {"uri": models.system.store.uri(f"{models.namespace}/good.onnx")}})
    models.wait_ready("kept")
    assert {p["metadata"]["uid"] for p in models.pods("kept")} <= pods | {
        p["metadata"]["uid"] for p in models.pods("kept")
    }


def test_suspend_runs_no_pods_and_resuming_brings_them_back(models: Models) -> None:
    models.apply("pause", models.upload(files.linear(7)))
    models.wait_ready("pause")
    models.patch("pause", {"suspend": True})
    model = models.wait_for("pause", ready="False", reason="Suspended")
    assert conditions(model)["Available"]["reason"] == "Suspended"
    assert not {"Stalled", "Reconciling"} & set(conditions(model))
    models.cluster.wait(lambda: not models.pods("pause"), 60, "the pods to go", models.namespace)
    models.patch("pause", {"suspend": None})
    models.wait_ready("pause")

    models.cluster.kubectl("scale", "onnx/pause", "--replicas=0", "-n", models.namespace)
    model = models.wait_for("pause", ready="True", reason="ScaledToZero")
    assert conditions(model)["Available"]["status"] == "False"


def test_deleting_leaves_nothing(models: Models) -> None:
    models.apply("gone", models.upload(files.linear(8)))
    models.wait_ready("gone")
    assert "finalizers" not in models.get("gone")["metadata"]
    models.cluster.kubectl("delete", "onnx", "gone", "-n", models.namespace)

    def nothing_left() -> bool:
        kinds = "deployments,replicasets,services,pods,poddisruptionbudgets,controllerrevisions,endpointslices"
        left = json.loads(
            models.cluster.kubectl("get", kinds, "-n", models.namespace, "-l", f"{MODEL_LABEL}=gone", "-o", "json")
        )["items"]
        return not left

    models.cluster.wait(nothing_left, 90, "all children to go", models.namespace)


def test_hand_edits_of_what_we_own_are_undone_and_additions_of_others_stay(models: Models) -> None:
    run, where = models.cluster.kubectl, ("-n", models.namespace)
    models.apply("owned", models.upload(files.linear(9)))
    models.wait_ready("owned")
    run("set", "image", "deployment/owned", "server=localhost/other:1", *where)
    run(
        "patch",
        "service",
        "owned",
        *where,
        "--type=merge",
        "--patch",
        '{"spec":{"selector":{"onnx-operator.dev/model":"x"}}}',
    )
    run("delete", "pdb", "owned", *where)
    run("annotate", "deployment", "owned", "team=vision", *where)

    def restored() -> bool:
        deployment = models.cluster.get("deployment", "owned", models.namespace)
        service = models.cluster.get("service", "owned", models.namespace)
        image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        return (
            image != "localhost/other:1"
            and service["spec"]["selector"] == {MODEL_LABEL: "owned"}
            and models.cluster.find("pdb", "owned", models.namespace) is not None
            and deployment["metadata"]["annotations"].get("team") == "vision"
        )

    models.cluster.wait(restored, 60, "the children to be restored", models.namespace)
    models.wait_ready("owned")

    revision = models.pods("owned")[0]["metadata"]["labels"][REVISION_LABEL]
    run("rollout", "restart", "deployment/owned", *where)
    run("rollout", "status", "deployment/owned", *where, "--timeout=100s")
    models.wait_ready("owned")
    template = models.cluster.get("deployment", "owned", models.namespace)["spec"]["template"]["metadata"]
    assert "kubectl.kubernetes.io/restartedAt" in template["annotations"]
    assert {p["metadata"]["labels"][REVISION_LABEL] for p in models.pods("owned")} == {revision}


def test_applying_the_same_again_changes_nothing(models: Models) -> None:
    uri = models.upload(files.linear(10))
    manifest = models.manifest("same", uri)
    models.cluster.apply(manifest)
    models.wait_ready("same")
    before = models.get("same")["metadata"]
    assert "unchanged" in models.cluster.apply(manifest)
    diff = models.cluster.run_kubectl("diff", "-f", "-", input=json.dumps(manifest), check=False)
    assert diff.returncode == 0, diff.stdout
    # Server-side, as Argo CD does it: the first time takes part of the ownership, after that nothing changes.
    for _ in range(2):
        models.cluster.kubectl(
            "apply", "--server-side", "--field-manager=argocd-controller", "--force-conflicts", "-f", "-",
            input=json.dumps(manifest),
        )  # fmt: skip
    diff = models.cluster.run_kubectl(
        "diff", "--server-side", "--field-manager=argocd-controller", "--force-conflicts", "-f", "-",
        input=json.dumps(manifest), check=False,
    )  # fmt: skip
    assert isinstance(diff, subprocess.CompletedProcess)
    assert diff.returncode == 0, diff.stdout
    after = models.get("same")["metadata"]
    assert after["generation"] == before["generation"]
