"""Trouble of every kind reaches `status` by its cause."""

import json
import shlex
from typing import Any

import numpy as np

from tests import models as files
from tests.e2e.system import READY_SECONDS, REVISION_LABEL, Models, conditions, expected

X = np.array([[0.5, -1.0, 2.0, 3.0]], np.float32)


def test_a_node_without_room_is_said_and_cured_by_asking_for_less(models: Models) -> None:
    uri = models.upload(files.linear(20))
    models.apply("large", uri, resources={"requests": {"cpu": "500"}})
    model = models.wait_for("large", ready="False", reason="Unschedulable")
    assert conditions(model)["Progressing"]["status"] == "True"
    assert conditions(model)["Reconciling"]["status"] == "True"
    assert "cpu" in conditions(model)["Progressing"]["message"].lower()
    failures = model["status"]["failures"]
    assert failures[0]["reason"] == "Unschedulable"
    assert failures[0]["count"] == 1
    models.apply("large", uri)
    models.wait_ready("large")


def test_an_update_that_finds_no_room_leaves_the_old_revision_serving(models: Models) -> None:
    old = files.linear(21)
    models.apply("room", models.upload(old, "old"))
    models.wait_ready("room")
    models.apply("room", models.upload(files.linear(22), "new"), resources={"requests": {"cpu": "500"}})
    model = models.wait_for("room", ready="False", reason="Unschedulable")
    assert conditions(model)["Available"]["status"] == "True"
    np.testing.assert_allclose(models.predict("room", {"x": X})["y"], expected(old, {"x": X})["y"], rtol=1e-5)


def test_a_quota_is_named(models: Models) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "tight"},
        "spec": {"hard": {"requests.cpu": "1m"}},
    }
    models.cluster.apply(quota, models.namespace)
    models.apply("quota", models.upload(files.linear(23)))
    model = models.wait_for("quota", ready="False", reason="QuotaExceeded")
    assert "tight" in conditions(model)["Progressing"]["message"]
    models.cluster.kubectl("delete", "resourcequota", "tight", "-n", models.namespace)
    models.wait_ready("quota", timeout=180)


def test_an_image_that_cannot_be_pulled_is_named(models: Models) -> None:
    template = {"spec": {"containers": [{"name": "server", "image": "localhost/no-such-image:1"}]}}
    models.apply("image", models.upload(files.linear(24)), podTemplate=template)
    model = models.wait_for("image", ready="False", reason="ImagePullFailed")
    assert "localhost/no-such-image:1" in conditions(model)["Progressing"]["message"]
    assert conditions(model)["Reconciling"]["status"] == "True"


def told_of_warm_up(models: Models, name: str, status: str, timeout: float = READY_SECONDS) -> str:
    """Wait until a model that is Ready tells whether it was warmed up, and return the message."""

    def told(model: dict[str, Any]) -> bool:
        # A model becomes ready before the last facts of its pods are in its status.
        return conditions(model).get("WarmedUp", {}).get("status") == status

    message: str = conditions(models.wait_for(name, ready="True", where=told, timeout=timeout))["WarmedUp"]["message"]
    return message


def test_a_model_whose_made_up_input_takes_too_much_memory_serves_and_says_that_it_is_not_warm(models: Models) -> None:
    limits = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "150Mi"}}
    models.apply("hungry", models.upload(files.hungry(400)), resources=limits)
    assert "killed the process" in told_of_warm_up(models, "hungry", "False", timeout=300)
    models.patch("hungry", {"resources": {"limits": {"memory": "2Gi"}}})
    told_of_warm_up(models, "hungry", "True")


def test_a_first_version_that_answers_none_of_our_guesses_is_ready_and_says_so(models: Models) -> None:
    models.apply("first", models.upload(files.fails_warm_up()))
    assert "lookup" in told_of_warm_up(models, "first", "False")


def test_an_update_that_cannot_answer_what_warmed_the_old_one_is_taken_back(models: Models) -> None:
    old = files.linear(25)
    models.apply("loads", models.upload(old, "good"))
    told_of_warm_up(models, "loads", "True")
    pods = {p["metadata"]["name"] for p in models.pods("loads")}
    models.apply("loads", models.upload(files.answers_no_more(), "bad"))
    model = models.wait_for("loads", ready="False", reason="RolledBack", where=lambda m: "Stalled" in conditions(m))
    assert "InterfaceChanged" in conditions(model)["Progressing"]["message"]
    assert "lookup" in conditions(model)["Progressing"]["message"]
    assert conditions(model)["Available"]["status"] == "True"
    assert conditions(model)["Stalled"]["status"] == "True"
    assert pods <= {p["metadata"]["name"] for p in models.pods("loads")}
    np.testing.assert_allclose(models.predict("loads", {"x": X})["y"], expected(old, {"x": X})["y"], rtol=1e-5)


def test_an_update_of_another_interface_serves_only_once_it_is_warm(models: Models) -> None:
    old = files.linear(29)
    models.apply("other", models.upload(old, "good"))
    models.wait_ready("other")
    models.apply("other", models.upload(files.fails_warm_up(), "bad"), rollout={"acceptInterface": "Any"})
    model = models.wait_for("other", ready="False", reason="RolledBack")
    assert "NoInputFound" in conditions(model)["Progressing"]["message"]
    assert "lookup" in conditions(model)["Progressing"]["message"]
    assert conditions(model)["Available"]["status"] == "True"
    np.testing.assert_allclose(models.predict("other", {"x": X})["y"], expected(old, {"x": X})["y"], rtol=1e-5)


def test_an_update_that_would_break_callers_waits_for_its_owners_word(models: Models) -> None:
    old, new = files.linear(60), files.linear(61, features=5)
    models.apply("gated", models.upload(old, "four"))
    models.wait_ready("gated")
    pods = {p["metadata"]["name"] for p in models.pods("gated")}
    models.apply("gated", models.upload(new, "five"))
    message = conditions(models.wait_for("gated", ready="False", reason="InterfaceChanged"))["Ready"]["message"]
    assert pods == {p["metadata"]["name"] for p in models.pods("gated")}
    np.testing.assert_allclose(models.predict("gated", {"x": X})["y"], expected(old, {"x": X})["y"], rtol=1e-5)

    models.patch("gated", {"replicas": 2})
    held = models.wait_for("gated", reason="InterfaceChanged", where=lambda m: m["status"].get("readyReplicas") == 2)
    assert conditions(held)["Available"]["status"] == "True"

    # As the message says it, word for word.
    models.cluster.kubectl(*shlex.split(message.partition("kubectl ")[2]))
    models.wait_ready("gated")
    wide = np.array([[0.5, -1.0, 2.0, 3.0, 1.0]], np.float32)
    np.testing.assert_allclose(models.predict("gated", {"x": wide})["y"], expected(new, {"x": wide})["y"], rtol=1e-5)


def test_a_pod_template_that_the_api_server_refuses_starts_nothing(models: Models) -> None:
    uri = models.upload(files.linear(26))
    models.apply("template", uri, podTemplate={"spec": {"nodeSelectr": {"a": "b"}}})
    model = models.wait_for("template", ready="False", reason="PodTemplateRejected")
    assert "nodeSelectr" in conditions(model)["ModelValid"]["message"]
    assert models.cluster.find("deployment", "template", models.namespace) is None
    models.patch("template", {"podTemplate": {"spec": {"nodeSelectr": None, "hostname": "fine"}}})
    models.wait_ready("template")
    assert models.pods("template")[0]["spec"]["hostname"] == "fine"


def test_a_name_that_is_taken_is_not_taken_over(models: Models) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"}, "spec": {"ports": [{"port": 80}]}}
    models.cluster.apply(service, models.namespace)
    models.apply("taken", models.upload(files.linear(27)))
    model = models.wait_for("taken", ready="False", reason="NameConflict")
    assert "Service" in conditions(model)["Progressing"]["message"]
    assert models.cluster.get("service", "taken", models.namespace)["spec"].get("selector") is None
    models.cluster.kubectl("delete", "service", "taken", "-n", models.namespace)
    models.wait_ready("taken")


def test_an_object_overwritten_after_inspection_is_never_served_unseen(models: Models) -> None:
    old, new = files.linear(28), files.linear(29)
    uri = models.upload(old, "moving")
    models.apply("moving", uri)
    first = models.wait_ready("moving")["status"]["model"]["digest"]
    running = models.pods("moving")[0]["metadata"]["uid"]

    models.upload(new, "moving")
    # Nothing looks at the store while nothing is due: the running pod goes on.
    assert conditions(models.get("moving"))["Ready"]["status"] == "True"
    assert models.pods("moving")[0]["metadata"]["uid"] == running
    np.testing.assert_allclose(models.predict("moving", {"x": X})["y"], expected(old, {"x": X})["y"], rtol=1e-5)

    # A new pod finds other bytes: they are inspected, and become a revision of their own.
    models.patch("moving", {"replicas": 2})
    model = models.wait_for(
        "moving",
        ready="True",
        where=lambda m: m["status"]["model"]["digest"] != first and m["status"].get("readyReplicas") == 2,
    )
    revisions = {p["metadata"]["labels"][REVISION_LABEL] for p in models.pods("moving")}
    assert revisions == {model["status"]["serving"]["revision"]}
    np.testing.assert_allclose(models.predict("moving", {"x": X})["y"], expected(new, {"x": X})["y"], rtol=1e-5)


def test_a_pinned_object_that_is_overwritten_is_refused_and_the_running_pods_go_on(models: Models) -> None:
    import hashlib

    old = files.linear(30)
    uri = models.upload(old, "pinned")
    models.apply("pinned", uri, model={"sha256": hashlib.sha256(old).hexdigest()})
    models.wait_ready("pinned")
    running = models.pods("pinned")[0]["metadata"]["uid"]
    models.upload(files.linear(31), "pinned")
    models.patch("pinned", {"replicas": 2})
    model = models.wait_for("pinned", ready="False", reason="DigestMismatch")
    assert conditions(model)["Available"]["status"] == "True"
    assert running in {p["metadata"]["uid"] for p in models.pods("pinned")}
    np.testing.assert_allclose(models.predict("pinned", {"x": X})["y"], expected(old, {"x": X})["y"], rtol=1e-5)
    # The right bytes again, and a look at them, heal it.
    models.upload(old, "pinned")
    refresh = "onnx-operator.dev/refresh=again"
    models.cluster.kubectl("annotate", "onnx", "pinned", refresh, "-n", models.namespace)
    models.wait_for("pinned", ready="True", where=lambda m: m["status"].get("readyReplicas") == 2, timeout=180)


def test_refresh_takes_what_was_uploaded_since(models: Models) -> None:
    uri = models.upload(files.linear(32), "fresh")
    models.apply("fresh", uri)
    first = models.wait_ready("fresh")["status"]["model"]["digest"]
    models.upload(files.linear(33), "fresh")
    models.cluster.kubectl("annotate", "onnx", "fresh", "onnx-operator.dev/refresh=1", "-n", models.namespace)
    models.wait_for("fresh", ready="True", where=lambda m: m["status"]["model"]["digest"] != first)


def test_events_tell_each_change_of_a_reason(models: Models) -> None:
    models.apply("told", models.upload(files.newer_opset()))
    models.wait_for("told", ready="False", reason="UnsupportedOpset")
    found = json.loads(
        models.cluster.kubectl(
            "get", "events.events.k8s.io", "-n", models.namespace, "-o", "json",
            "--field-selector=regarding.name=told,reason=UnsupportedOpset",
        )
    )["items"]  # fmt: skip
    assert [e["type"] for e in found] == ["Warning"]
