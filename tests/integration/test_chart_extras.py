"""What a platform team adds to the chart's objects, and how little of it the chart prescribes."""

from typing import Any

import pytest
import yaml

from tests.cluster.cluster import Cluster
from tests.integration.charts import Chart

MOUNT = {"name": "extra", "mountPath": "/etc/extra", "readOnly": True}
ADDED: dict[str, Any] = {
    "commonLabels": {"team": "platform", "app.kubernetes.io/name": "other", "app.kubernetes.io/part-of": "ml"},
    "extraObjects": [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "{{ .Release.Name }}-extra"},
            "data": {
                "operator": '{{ include "onnx-operator.fullname" . }}',
                "user": "{{ .Values.settings.runAsUser }}",
            },
        },
        "apiVersion: v1\nkind: Secret\nmetadata: {name: text}\nstringData: {release: {{ .Release.Name | quote }}}\n",
    ],
    "deploymentAnnotations": {"reloader.example.com/auto": "true"},
    "podLabels": {"team": "pods", "app.kubernetes.io/instance": "other"},
    "runtimeClassName": "gvisor",
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["10.0.0.10"], "options": [{"name": "ndots", "value": "2"}]},
    "hostAliases": [{"ip": "10.0.0.7", "hostnames": ["models.internal"]}],
    "extraVolumes": [{"name": "extra", "secret": {"secretName": "extra", "optional": True}}],
    "podSecurityContext": {"runAsUser": 1000680000, "supplementalGroups": [1000680001]},
    "controller": {
        "envFrom": [{"secretRef": {"name": "variables", "optional": True}}],
        "extraArgs": ["--host=0.0.0.0"],
        "extraVolumeMounts": [MOUNT],
        "securityContext": {"runAsGroup": 1000680002},
    },
    "inspector": {
        "envFrom": [{"prefix": "A_", "configMapRef": {"name": "variables", "optional": True}}],
        "extraArgs": ["--inspector-socket=/run/onnx-operator/inspector.sock"],
        "extraVolumeMounts": [MOUNT],
        "securityContext": {"runAsUser": 1000680003},
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus", "team": "monitoring"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "networkPolicy": {"metricsFrom": [{"podSelector": {}}]},
}


def _deployment(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [o for o in objects if o["kind"] == "Deployment"]
    return found


def _containers(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {c["name"]: c for c in _deployment(objects)["spec"]["template"]["spec"]["containers"]}


def _selectors(node: Any) -> list[dict[str, str]]:
    """Every selector by labels anywhere in an object."""
    if isinstance(node, list):
        return [found for item in node for found in _selectors(item)]
    if not isinstance(node, dict):
        return []
    found = [inner for name, inner in node.items() if name == "matchLabels" and isinstance(inner, dict)]
    return found + [each for inner in node.values() for each in _selectors(inner)]


def test_common_labels_are_on_every_object_and_in_no_selector(chart: Chart) -> None:
    objects = chart.template(ADDED)
    own = [o for o in objects if o["metadata"]["name"] not in ("onnx-operator-extra", "text")]
    assert len(own) == len(objects) - 2
    for each in [*own, _deployment(own)["spec"]["template"]]:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "ml", each["kind"]
        # The chart's own selectors depend on this one; what `helm test` runs has its own.
        assert labels["app.kubernetes.io/name"] in ("onnx-operator", "onnx-operator-test")
    # A label that is given for some objects alone wins over the common one.
    teams = {o["kind"]: o["metadata"]["labels"]["team"] for o in own}
    assert teams["ServiceMonitor"] == "monitoring"
    assert teams["Service"] == "platform"
    assert _deployment(own)["spec"]["template"]["metadata"]["labels"]["team"] == "pods"
    (service,) = [o for o in own if o["kind"] == "Service"]
    selectors = [*_selectors([o for o in own if o["kind"] != "CustomResourceDefinition"]), service["spec"]["selector"]]
    assert len(selectors) >= 6
    names = {selector.pop("app.kubernetes.io/name") for selector in selectors}
    assert names == {"onnx-operator", "onnx-operator-test"}
    only = {"app.kubernetes.io/instance": "onnx-operator"}
    assert all(selector == only for selector in selectors), "immutable, or it would lose its pods"


def test_no_label_of_pods_takes_them_from_their_selector(chart: Chart) -> None:
    deployment = _deployment(chart.template(ADDED))["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()


def test_extra_objects_are_rendered_whether_objects_or_text(chart: Chart) -> None:
    objects = {o["metadata"]["name"]: o for o in chart.template(ADDED, release="blue")}
    assert objects["blue-extra"]["data"] == {"operator": "blue-onnx-operator", "user": "65532"}
    assert objects["text"]["stringData"] == {"release": "blue"}


def test_both_containers_take_volumes_variables_and_arguments(chart: Chart) -> None:
    objects = chart.template(ADDED)
    assert ADDED["extraVolumes"][0] in _deployment(objects)["spec"]["template"]["spec"]["volumes"]
    for name, container in _containers(objects).items():
        assert MOUNT in container["volumeMounts"]
        assert container["envFrom"] == ADDED[name]["envFrom"]
        # After the command, so that they are its own.
        assert container["args"].index(name) < container["args"].index(ADDED[name]["extraArgs"][0])


def test_where_and_how_pods_run_is_the_platforms_choice(chart: Chart) -> None:
    deployment = _deployment(chart.template(ADDED))
    pod = deployment["spec"]["template"]["spec"]
    for name in ("runtimeClassName", "dnsPolicy", "dnsConfig", "hostAliases"):
        assert pod[name] == ADDED[name]
    assert deployment["metadata"]["annotations"] == ADDED["deploymentAnnotations"]


def test_users_of_the_operators_pods_can_be_told_apart_from_those_of_models(chart: Chart) -> None:
    objects = chart.template(ADDED)
    pod = _deployment(objects)["spec"]["template"]["spec"]["securityContext"]
    # Large numbers stay whole numbers.
    assert pod == {
        "runAsUser": 1000680000,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "supplementalGroups": [1000680001],
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    contexts = {name: c["securityContext"] for name, c in _containers(objects).items()}
    assert contexts["controller"]["runAsGroup"] == 1000680002
    assert contexts["inspector"]["runAsUser"] == 1000680003
    # What the chart hardens stays.
    assert all(c["allowPrivilegeEscalation"] is False and c["readOnlyRootFilesystem"] for c in contexts.values())
    (settings,) = [o for o in objects if o["kind"] == "ConfigMap" and o["metadata"]["name"] == "onnx-operator"]
    assert yaml.safe_load(settings["data"]["settings.yaml"])["runAsUser"] == 65532


def test_the_inspectors_user_follows_the_controllers(chart: Chart) -> None:
    objects = chart.template({"podSecurityContext": {"runAsUser": 2000}})
    assert _containers(objects)["inspector"]["securityContext"]["runAsUser"] == 2001


@pytest.mark.parametrize("release", ["123", "1e5", "true"])
def test_a_name_that_looks_like_a_number_stays_a_text(chart: Chart, release: str) -> None:
    objects = chart.template(release=release)
    assert _deployment(objects)["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"] == release
    assert all(isinstance(v, str) for o in objects for v in o["metadata"]["labels"].values())


def test_openshifts_restricted_v2_finds_no_user_to_refuse(chart: Chart) -> None:
    values = {"settings": {"runAsUser": None}, "podSecurityContext": {"seccompProfile": None}}
    objects = chart.template(values)
    assert _deployment(objects)["spec"]["template"]["spec"]["securityContext"] == {"runAsNonRoot": True}
    for container in _containers(objects).values():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_a_real_api_server_takes_every_addition(chart: Chart, apiserver: Cluster, namespace: str) -> None:
    gvisor = {"metadata": {"name": "gvisor"}, "handler": "runsc"}
    apiserver.apply({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", **gvisor})
    objects = chart.template(ADDED, namespace=namespace)
    for each in objects:
        # Helm puts what names no namespace into the release's.
        if each["kind"] in ("ConfigMap", "Secret"):
            each["metadata"]["namespace"] = namespace
    known = [o for o in objects if o["apiVersion"] != "monitoring.coreos.com/v1"]
    apiserver.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-", input=yaml.safe_dump_all(known)
    )  # fmt: skip
