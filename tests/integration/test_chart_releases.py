"""Releases of the chart in a real cluster: upgraded from the previous chart, side by side, and removed."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.apiserver import api_server
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.integration.charts import CHART, Chart

PREVIOUS = Path(__file__).parent / "previous" / "onnx-operator-0.1.0.tgz"
CRD = "onnxmodels.onnx-operator.dev"
KINDS = (
    "deployments,services,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets,"
    "clusterroles,clusterrolebindings,customresourcedefinitions"
)
VALUES: dict[str, Any] = {
    "replicas": 3,
    "podLabels": {"team": "platform"},
    "podAnnotations": {"a": "b"},
    "image": {"repository": "registry.example.com/team/onnx-operator", "tag": "1.2.3"},
    "controller": {"env": [{"name": "A", "value": "b"}], "resources": {"limits": {"memory": "1Gi"}}},
    "settings": {
        "workers": 4,
        "pools": [{"name": "big", "nodeSelector": {"size": "big"}}],
        "sources": {"s3": {"endpoint": "https://s3.example.com"}},
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    """An API server of this module's own: its CRD must be no one else's."""
    try:
        with api_server() as running:
            yield running
    except ClusterError as error:
        pytest.fail(f"no API server: {error}")


class Releases:
    """Helm's releases in one namespace."""

    def __init__(self, chart: Chart, server: Cluster, namespace: str) -> None:
        self._chart = chart
        self.server = server
        self.namespace = namespace

    def helm(self, *command: str, values: dict[str, Any] | None = None) -> str:
        """One command that must succeed, in a minute at most."""
        where = ("--kubeconfig", str(self.server.kubeconfig), "--namespace", self.namespace)
        done = self._chart.run(*command, *where, values=values, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refusal(self, *command: str, values: dict[str, Any] | None = None) -> str:
        """What Helm says against a command."""
        where = ("--kubeconfig", str(self.server.kubeconfig), "--namespace", self.namespace)
        done = self._chart.run(*command, *where, values=values, timeout=60)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def objects(self, release: str) -> dict[tuple[str, str], dict[str, Any]]:
        """Everything of a release, by kind and name."""
        selector = f"app.kubernetes.io/instance={release}"
        return {(o["kind"], o["metadata"]["name"]): o for o in self.server.list(KINDS, selector=selector)}

    def serve(self, name: str) -> None:
        """A model, and a Deployment of it as the operator makes one."""
        self.server.kubectl("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=30s")
        model = {
            "apiVersion": "onnx-operator.dev/v1alpha1",
            "kind": "OnnxModel",
            "metadata": {"name": name, "labels": {"operator": "blue"}},
            "spec": {"model": {"uri": "https://models.example.com/a.onnx"}},
        }
        self.server.wait(lambda: self.server.apply(model, self.namespace), 30, "OnnxModel to be served")
        uid = self.server.get("onnxmodel", name, self.namespace)["metadata"]["uid"]
        owner = {"apiVersion": model["apiVersion"], "kind": "OnnxModel", "name": name, "uid": uid, "controller": True}
        labels = {"onnx-operator.dev/model": name}
        pod = {"containers": [{"name": "server", "image": "registry.example.com/onnx-server:1"}]}
        self.server.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": pod},
                },
            },
            self.namespace,
        )


@pytest.fixture
def releases(chart: Chart, server: Cluster) -> Iterator[Releases]:
    """A namespace of the test's own; nothing of it stays in the cluster."""
    namespace = f"releases-{uuid.uuid4().hex[:6]}"
    server.kubectl("create", "namespace", namespace)
    found = Releases(chart, server, namespace)
    yield found
    for name in json.loads(found.helm("list", "--output=json")):
        found.helm("uninstall", name["name"])
    server.kubectl("delete", "crd", CRD, "--ignore-not-found", "--timeout=60s")


def _settings(objects: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(objects["ConfigMap", "onnx-operator"]["data"]["settings.yaml"])
    return loaded


def _holds(now: Any, was: Any) -> None:
    """Every setting that there was is what it was; new ones may have come beside them."""
    if not isinstance(was, dict):
        assert now == was
        return
    for name, value in was.items():
        _holds(now[name], value)


@pytest.mark.parametrize("way", ["--values", "--reset-then-reuse-values"])
def test_an_upgrade_from_the_previous_chart_keeps_values_models_and_objects(releases: Releases, way: str) -> None:
    releases.helm("install", "onnx-operator", str(PREVIOUS), values=VALUES)
    releases.serve("iris")
    before = releases.objects("onnx-operator")
    model = releases.server.get("onnxmodel", "iris", releases.namespace)
    # Nothing is given at the command line the second way: what was given first holds.
    reuse = (way,) if way != "--values" else ()
    releases.helm("upgrade", "onnx-operator", str(CHART), *reuse, values={} if reuse else VALUES)
    after = releases.objects("onnx-operator")
    assert before.keys() <= after.keys()
    for key, old in before.items():
        assert after[key]["metadata"]["uid"] == old["metadata"]["uid"], f"{key} was replaced"
    deployment = after["Deployment", "onnx-operator"]["spec"]
    assert deployment["replicas"] == 3
    assert deployment["selector"] == before["Deployment", "onnx-operator"]["spec"]["selector"]
    template = deployment["template"]
    assert template["metadata"]["labels"]["team"] == "platform"
    assert template["spec"]["securityContext"]["runAsUser"] == 65532
    assert [c["securityContext"].get("runAsUser") for c in template["spec"]["containers"]] == [None, 65533]
    assert template["spec"]["containers"][0]["image"] == "registry.example.com/team/onnx-operator:1.2.3"
    # As the lease and the seal's key are named by it, a new name would be another installation.
    old = before["Deployment", "onnx-operator"]["spec"]["template"]["spec"]["containers"]
    assert template["spec"]["containers"][0]["args"] == old[0]["args"]
    _holds(_settings(after), _settings(before))
    kept = releases.server.get("onnxmodel", "iris", releases.namespace)
    assert (kept["metadata"]["uid"], kept["metadata"]["generation"], kept["spec"]) == (
        model["metadata"]["uid"],
        model["metadata"]["generation"],
        model["spec"],
    )
    # And back.
    releases.helm("rollback", "onnx-operator", "1")
    again = releases.objects("onnx-operator")
    assert again["Deployment", "onnx-operator"]["spec"]["template"]["spec"]["containers"][0]["args"] == old[0]["args"]


def test_values_of_the_previous_chart_alone_are_refused_with_what_to_do(releases: Releases) -> None:
    releases.helm("install", "onnx-operator", str(PREVIOUS))
    refused = releases.refusal("upgrade", "onnx-operator", str(CHART), "--reuse-values")
    assert "--reset-then-reuse-values" in refused


def test_common_labels_can_be_changed_in_a_running_release(releases: Releases) -> None:
    releases.helm("install", "onnx-operator", str(CHART), values={"commonLabels": {"team": "a"}})
    releases.helm("upgrade", "onnx-operator", str(CHART), values={"commonLabels": {"squad": "b"}})
    objects = releases.objects("onnx-operator")
    assert len(objects) >= 12
    assert all(o["metadata"]["labels"].get("squad") == "b" for o in objects.values())
    assert not any("team" in o["metadata"]["labels"] for o in objects.values())


def test_an_uninstall_leaves_resource_models_and_what_serves(releases: Releases) -> None:
    releases.helm("install", "onnx-operator", str(CHART))
    releases.serve("iris")
    releases.helm("uninstall", "onnx-operator", "--timeout=50s")
    assert set(releases.objects("onnx-operator")) == {("CustomResourceDefinition", CRD)}
    model = releases.server.get("onnxmodel", "iris", releases.namespace)
    deployment = releases.server.get("deployment", "iris", releases.namespace)
    assert "deletionTimestamp" not in model["metadata"]
    assert "deletionTimestamp" not in deployment["metadata"]
    # Nobody is needed any more to delete it.
    releases.server.kubectl("delete", "onnxmodel", "iris", "-n", releases.namespace, "--timeout=30s")


def test_a_release_that_comes_back_takes_the_resource_over(releases: Releases) -> None:
    releases.helm("install", "onnx-operator", str(CHART))
    releases.serve("iris")
    releases.helm("uninstall", "onnx-operator")
    releases.helm("install", "onnx-operator", str(CHART))
    assert releases.server.find("onnxmodel", "iris", releases.namespace)


def test_with_the_resource_an_uninstall_takes_all_models_along(releases: Releases) -> None:
    releases.helm("install", "onnx-operator", str(CHART))
    releases.serve("iris")
    releases.helm("upgrade", "onnx-operator", str(CHART), values={"crds": {"keep": False}})
    releases.helm("uninstall", "onnx-operator", "--timeout=50s")
    releases.server.wait(lambda: releases.server.find("crd", CRD) is None, 60, "the CRD to go")
    assert not releases.objects("onnx-operator")


def test_two_releases_live_side_by_side_and_one_goes_alone(releases: Releases) -> None:
    blue = {"settings": {"modelSelector": {"matchLabels": {"operator": "blue"}}}}
    green = {"settings": {"modelSelector": {"matchLabels": {"operator": "green"}}}, "crds": {"enabled": False}}
    releases.helm("install", "blue", str(CHART), values=blue)
    # The first has the CRD; the second may not take it away from it.
    refused = releases.refusal("install", "green", str(CHART))
    assert CRD in refused
    assert "ownership" in refused
    assert not releases.objects("green")
    releases.helm("install", "green", str(CHART), values=green)
    first = releases.objects("blue")
    assert ("CustomResourceDefinition", CRD) in first
    assert not first.keys() & releases.objects("green").keys()
    releases.serve("iris")
    releases.helm("uninstall", "green")
    assert releases.objects("blue").keys() == first.keys()
    assert releases.server.find("onnxmodel", "iris", releases.namespace)


def test_the_longest_name_of_a_release_fits_all_objects(releases: Releases) -> None:
    name = "r" * 53
    releases.helm("install", name, str(CHART), values={"templates": {"a.yaml.j2": ""}})
    assert len(releases.objects(name)) >= 12
