"""What the platform team forbids is refused before the operator makes a pod or hands a key on, on a real API server."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnx_operator.api import names
from tests.cluster.cluster import Cluster
from tests.integration.test_controller_process import Operator

ROOT_POD = {
    "spec": {"securityContext": {"runAsUser": 0, "runAsNonRoot": False}, "tolerations": [{"operator": "Exists"}]}
}


@pytest.fixture
def operator(apiserver: Cluster, crd: None, api_namespace: str, tmp_path: Path) -> Iterator[Operator]:
    running = Operator(
        apiserver, api_namespace, tmp_path, allowPodTemplate=False, inspectorImage="registry.example/i:1"
    )
    yield running
    running.stop()


class Tenant:
    """May write OnnxModels and Secrets of the namespace, and looks at what comes of it."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def write(self, name: str, **spec: Any) -> None:
        manifest = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": name}, "spec": spec}
        self.cluster.kubectl("delete", "onnx", name, "-n", self.namespace, "--ignore-not-found")
        self.cluster.apply(manifest, self.namespace)

    def told(self, name: str) -> tuple[str, str]:
        conditions = self.cluster.get("onnx", name, self.namespace).get("status", {}).get("conditions", [])
        found = [(c["reason"], c["message"]) for c in conditions if c["type"] == "ModelValid"]
        return found[0] if found else ("", "")

    def pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.cluster.list("pods", self.namespace)]


def test_a_forbidden_pod_template_gets_no_inspection_pod(
    apiserver: Cluster, api_namespace: str, operator: Operator
) -> None:
    tenant = Tenant(apiserver, api_namespace)
    tenant.write("evil", model={"uri": "pvc://claim/m.onnx"}, podTemplate=ROOT_POD)
    apiserver.wait(lambda: tenant.told("evil")[0] == "PodTemplateRejected", 120, "the refusal")
    assert "allowPodTemplate" in tenant.told("evil")[1]
    # An honest one is inspected meanwhile: the operator works, and made no pod for the other.
    tenant.write("honest", model={"uri": "pvc://claim/m.onnx"})
    apiserver.wait(lambda: any(pod.startswith("honest-inspect-") for pod in tenant.pods()), 120, "the honest one's pod")
    assert not [pod for pod in tenant.pods() if pod.startswith("evil")]

    # It is no conclusion about the source: without the template the same source is looked at, with it no longer.
    change = '[{"op": "remove", "path": "/spec/podTemplate"}]'
    apiserver.kubectl("patch", "onnx", "evil", "-n", api_namespace, "--type=json", "--patch", change)
    apiserver.wait(lambda: any(pod.startswith("evil-inspect-") for pod in tenant.pods()), 120, "its pod")
    tenant.cluster.kubectl(
        "patch",
        "onnx",
        "evil",
        "-n",
        api_namespace,
        "--type=merge",
        "--patch",
        '{"spec": {"podTemplate": {"spec": {}}}}',
    )
    apiserver.wait(lambda: not any(pod.startswith("evil") for pod in tenant.pods()), 120, "its pod to go")
    assert tenant.told("evil")[0] == "PodTemplateRejected"


def test_a_secret_that_names_no_host_is_not_used_for_one(
    apiserver: Cluster, api_namespace: str, operator: Operator
) -> None:
    tenant = Tenant(apiserver, api_namespace)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "theirs", "labels": {names.LABEL_CREDENTIALS: "true"}},
        "stringData": {"HTTPS_BEARER_TOKEN": "T0PSECRET", "HTTPS_HOSTS": "models.example.com"},
    }
    apiserver.apply(secret, api_namespace)
    tenant.write("thief", model={"uri": "https://attacker.example/m.onnx", "credentials": {"secretName": "theirs"}})
    apiserver.wait(lambda: tenant.told("thief")[0] == "CredentialsNotFound", 120, "the refusal")
    assert "HTTPS_HOSTS: attacker.example" in tenant.told("thief")[1]
    assert "models.example.com" not in str(apiserver.get("onnx", "thief", api_namespace).get("status"))
    time.sleep(1)  # nothing more is told of it either
    assert "T0PSECRET" not in operator.log.read_text()
