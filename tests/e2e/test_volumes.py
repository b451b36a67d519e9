"""Models on volumes: a short pod in their namespace looks at them, and only then do pods serve them."""

import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests import models as files
from tests.cluster.cluster import OPERATOR_NAMESPACE, Cluster
from tests.e2e.system import (
    READY_SECONDS,
    Models,
    conditions,
    expected,
    operator_to_be_killed,
    operator_undisturbed,
    wait_for_operator,
)
from tests.e2e.test_operator_killed import killed_at_random

INPUTS = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}
CLAIM = "weights"
WRITER = "writer"
SOON_SECONDS = 60
REFRESH = "onnx-operator.dev/refresh"
INSPECTION = "onnx-operator.dev/inspection"
SAVE = "import base64, pathlib, sys; p = pathlib.Path(sys.argv[1]); p.parent.mkdir(parents=True, exist_ok=True); "
SAVE += "t = p.with_suffix('.part'); t.write_bytes(base64.b64decode(sys.stdin.read())); t.rename(p)"


@dataclass(frozen=True)
class Volume:
    """A claim, and a pod that writes to it as somebody who uploads models would."""

    models: Models

    @property
    def cluster(self) -> Cluster:
        return self.models.cluster

    def write(self, path: str, content: bytes) -> str:
        """Put a file onto the volume, at once under its whole name, and return its URI."""
        self.cluster.kubectl(
            "exec", "-i", WRITER, "-n", self.models.namespace, "--", "python3", "-c", SAVE, f"/volume/{path}",
            input=base64.b64encode(content).decode(),
        )  # fmt: skip
        return f"pvc://{CLAIM}/{path}"

    def inspection_pods(self) -> list[str]:
        """Names of the short pods that are there now, and not on their way out."""
        found = self.cluster.list("pods", self.models.namespace, INSPECTION)
        return [p["metadata"]["name"] for p in found if "deletionTimestamp" not in p["metadata"]]


def _image(cluster: Cluster) -> str:
    """One that the nodes have, with a Python in it: the operator's."""
    pod = cluster.get("deployment", "onnx-operator", OPERATOR_NAMESPACE)["spec"]["template"]["spec"]
    return str(pod["containers"][0]["image"])


@pytest.fixture
def volume(models: Models) -> Iterator[Volume]:
    """A volume on the node's disk, claimed, with a writer; the namespace takes restricted pods alone afterwards."""
    cluster, namespace = models.cluster, models.namespace
    name = f"models-{namespace}"
    storage = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": ""}
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                **storage,
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": namespace, "name": CLAIM},
                "hostPath": {"path": f"/tmp/onnx-operator-volumes/{name}", "type": "DirectoryOrCreate"},
            },
        }
    )
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM},
        "spec": {
            "accessModes": storage["accessModes"],
            "storageClassName": "",
            "volumeName": name,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    cluster.apply(claim, namespace)
    writer = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": WRITER},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
            "containers": [
                {
                    "name": "writer",
                    "image": _image(cluster),
                    "command": ["python3", "-c", "import time; time.sleep(86400)"],
                    "volumeMounts": [{"name": "volume", "mountPath": "/volume"}],
                }
            ],
            "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": CLAIM}}],
        },
    }
    cluster.apply(writer, namespace)
    cluster.wait_condition("pod", WRITER, namespace, "Ready", timeout=60)
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    yield Volume(models)
    clear = "import shutil; shutil.rmtree('/volume', ignore_errors=True)"
    cluster.run_kubectl("exec", WRITER, "-n", namespace, "--", "python3", "-c", clear, check=False)
    cluster.run_kubectl("delete", "persistentvolume", name, "--wait=false", check=False)


def test_a_model_on_a_volume_is_inspected_in_its_namespace_and_served(models: Models, volume: Volume) -> None:
    content = files.linear(80)
    models.apply("linear", volume.write("team/linear.onnx", content))
    model = models.wait_ready("linear")
    assert np.allclose(models.predict("linear", INPUTS)["y"], expected(content, INPUTS)["y"], atol=1e-5)
    assert model["status"]["model"]["digest"].startswith("sha256:")
    # Nothing of the inspection is left, and its pod never was one of the Service's.
    assert volume.inspection_pods() == []
    slices = models.cluster.list("endpointslices", models.namespace, "kubernetes.io/service-name=linear")
    served = {e["targetRef"]["name"] for s in slices for e in s["endpoints"]}
    assert served == {p["metadata"]["name"] for p in models.pods("linear")}


def test_a_file_that_is_not_there_is_named_and_found_when_it_comes(models: Models, volume: Volume) -> None:
    models.apply("later", f"pvc://{CLAIM}/later.onnx")
    model = models.wait_for("later", ready="False", reason="SourceNotFound", timeout=READY_SECONDS)
    assert "later.onnx" in conditions(model)["ModelValid"]["message"]
    volume.write("later.onnx", files.linear(81))
    models.wait_ready("later")


def test_a_bad_model_on_a_volume_never_reaches_a_serving_pod(models: Models, volume: Volume) -> None:
    models.apply("text", volume.write("text.onnx", b"<html>Sign in</html>"))
    models.apply("unknown", volume.write("unknown.onnx", files.unknown_operator()))
    models.apply("digest", volume.write("digest.onnx", files.linear(82)), model={"sha256": "0" * 64})
    models.wait_for("text", ready="False", reason="NotOnnx")
    model = models.wait_for("unknown", ready="False", reason="UnknownOperator")
    models.wait_for("digest", ready="False", reason="DigestMismatch")
    assert "mystery" in conditions(model)["ModelValid"]["message"]
    assert not [p for name in ("text", "unknown", "digest") for p in models.pods(name)]
    assert volume.inspection_pods() == []


def test_refresh_looks_again_and_rolls_out_what_changed(models: Models, volume: Volume) -> None:
    uri = volume.write("linear.onnx", files.linear(83))
    models.apply("linear", uri)
    before = models.wait_ready("linear")["status"]["serving"]["revision"]
    changed = files.linear(84)
    volume.write("linear.onnx", changed)
    models.cluster.kubectl("annotate", "onnx", "linear", "-n", models.namespace, f"{REFRESH}=1")
    models.wait_for("linear", ready="True", where=lambda m: m["status"]["serving"]["revision"] != before)
    assert np.allclose(models.predict("linear", INPUTS)["y"], expected(changed, INPUTS)["y"], atol=1e-5)


def test_bytes_that_changed_on_the_volume_are_held_until_somebody_asks_for_them(models: Models, volume: Volume) -> None:
    reviewed, other = files.linear(89), files.linear(90)
    models.apply("held", volume.write("held.onnx", reviewed), model={"onChange": "Hold"})
    before = models.wait_ready("held")["status"]["serving"]["revision"]
    volume.write("held.onnx", other)
    # As after a drain: a pod starts where the reviewed bytes are no more.
    models.patch("held", {"replicas": 2})
    model = models.wait_for("held", ready="False", reason="SourceHeld")
    assert conditions(model)["Available"]["status"] == "True"
    assert model["status"]["serving"]["revision"] == before
    assert np.allclose(models.predict("held", INPUTS)["y"], expected(reviewed, INPUTS)["y"], atol=1e-5)
    models.cluster.kubectl("annotate", "onnx", "held", "-n", models.namespace, f"{REFRESH}=reviewed")
    models.wait_for("held", ready="True", where=lambda m: m["status"]["serving"]["revision"] != before)
    assert np.allclose(models.predict("held", INPUTS)["y"], expected(other, INPUTS)["y"], atol=1e-5)


def test_an_operator_that_is_killed_again_and_again_inspects_all_the_same_and_leaves_nothing(
    models: Models, volume: Volume
) -> None:
    content = files.linear(88)
    uri = volume.write("linear.onnx", content)
    with operator_to_be_killed(), killed_at_random(models.cluster, 80, 3):
        models.apply("linear", uri)
        models.wait_for("linear", ready="True", timeout=240)
    assert np.allclose(models.predict("linear", INPUTS)["y"], expected(content, INPUTS)["y"], atol=1e-5)
    models.cluster.wait(lambda: not volume.inspection_pods(), 30, "the inspection's pods to go", models.namespace)


def test_a_claim_that_does_not_exist_is_told_soon_and_served_once_it_does(models: Models, volume: Volume) -> None:
    volume.write("linear.onnx", files.linear(85))
    with operator_undisturbed():
        wait_for_operator(models.cluster)
        models.apply("lost", "pvc://no-such-claim/linear.onnx")
        model = models.wait_for("lost", ready="False", reason="SourceNotFound", timeout=SOON_SECONDS)
    message = conditions(model)["ModelValid"]["message"]
    assert "'no-such-claim'" in message
    assert models.namespace in message
    assert conditions(model)["Stalled"]["status"] == "True"
    models.patch("lost", {"model": {"uri": f"pvc://{CLAIM}/linear.onnx"}})
    models.wait_ready("lost")


def test_a_quota_that_leaves_no_room_for_the_inspection_is_told(models: Models, volume: Volume) -> None:
    uri = volume.write("linear.onnx", files.linear(86))
    hard = {"pods": "1"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": hard}}
    models.cluster.apply(quota, models.namespace)
    models.cluster.wait(
        lambda: models.cluster.get("resourcequota", "full", models.namespace)["status"]["used"]["pods"] == "1",
        30,
        "the quota to be counted",
    )
    models.apply("squeezed", uri)
    model = models.wait_for("squeezed", ready="False", reason="QuotaExceeded", timeout=SOON_SECONDS)
    assert any("exceeded quota" in each["message"] for each in conditions(model).values())
    models.cluster.kubectl("delete", "resourcequota", "full", "-n", models.namespace)
    models.wait_ready("squeezed")


def test_a_service_account_that_does_not_exist_is_told(models: Models) -> None:
    manifest = models.manifest("nobody", "s3://models/nothing.onnx", serviceAccountName="nobody")
    manifest["spec"]["model"].pop("credentials")
    models.cluster.apply(manifest)
    found = models.wait_for("nobody", ready="False", reason="CreationFailed", timeout=SOON_SECONDS)
    assert any('"nobody" not found' in each["message"] for each in conditions(found).values())


def test_the_models_own_service_account_reads_what_the_operator_may_not(models: Models) -> None:
    """No cloud is here to know the account: that a pod asked in its name, and what it was told, is what shows."""
    if not models.cluster.is_local:
        pytest.skip("the audit log of another cluster cannot be read")
    began = time.time()
    models.cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}}, models.namespace
    )
    manifest = models.manifest("own", models.upload(files.linear(87)), serviceAccountName="reader")
    manifest["spec"]["model"].pop("credentials")
    models.cluster.apply(manifest)
    found = models.wait_for("own", ready="False", timeout=SOON_SECONDS, where=_is_judged)
    assert conditions(found)["ModelValid"]["reason"] in ("SourceUnauthorized", "SourceUnreachable")
    made = models.cluster.audit_events(began, verbs=["create"], resource="pods", namespace=models.namespace)
    assert any(event.name.startswith("own-inspect-") for event in made), made


def _is_judged(model: dict[str, Any]) -> bool:
    return "ModelValid" in conditions(model)
