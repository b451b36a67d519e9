"""The chart, as Helm renders it and as a real API server takes it."""

import json
from typing import Any

import pytest
import yaml

from onnx_operator.api import crd, names
from onnx_operator.controller.cluster.kinds import CHILD_KINDS, CONTROLLER_REVISION, ONNX_MODEL, POD, Kind
from onnx_operator.controller.rollout.shapes import shapes
from onnx_operator.controller.settings.settings import Settings, parse_settings
from tests.cluster.cluster import Cluster
from tests.integration.charts import CHART, NAMESPACE, Chart
from tests.unit.controller.samples import certificate, public_key

POOL = {
    "name": "t4",
    "runtime": "GPU",
    "nodeSelector": {"accelerator": "t4"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "gpuResource": "nvidia.com/gpu",
    "acceleratorMemory": "16Gi",
    "serverImage": "registry.example.com/onnx-server-gpu:1",
    "allowedNamespaces": ["vision"],
}
EVERYTHING: dict[str, Any] = {
    "settings": {
        "imagePullSecrets": ["pull"],
        "namespaces": ["vision", "speech"],
        "modelSelector": {
            "matchLabels": {"example.com/operator": "blue"},
            "matchExpressions": [{"key": "retired", "operator": "DoesNotExist"}],
        },
        "pools": [POOL],
        "sources": {
            "allowedNetworks": ["10.0.0.0/8"],
            "useOperatorIdentity": True,
            "https": {"caBundle": certificate()},
            "s3": {"endpoint": "https://s3.example.com", "region": "eu-1", "virtualHostedStyle": True},
            "gs": {"endpoint": "https://gs.example.com", "caBundle": certificate()},
            "az": {"account": "models", "endpoint": "https://az.example.com:10000"},
            "oci": {"plainHttpRegistries": ["registry:5000"]},
            "hf": {"endpoint": "https://mirror.example.com/hf"},
            "mlflow": {"trackingUri": "https://mlflow.example.com"},
        },
        "signatures": {
            "required": True,
            "publicKeys": public_key(),
            "certificateAuthorities": certificate(),
            "certificateSubjects": ["CN=release"],
        },
        "inspection": {"maxModelBytes": 2**40, "maxNodes": 2**30, "timeoutSeconds": 60},
        "workers": 16,
        "egress": {"configMapName": "egress", "secretName": "egress-secret"},
        "runAsUser": 1000680000,
    },
    "templates": {"service.yaml.j2": "apiVersion: v1\nkind: Service\nmetadata: {name: {{ name }}}\n"},
    "image": {"repository": "registry.example.com/team/onnx-operator", "digest": f"sha256:{'0' * 64}"},
    "imagePullSecrets": ["pull"],
    "replicas": 3,
    "logLevel": "debug",
    "controller": {"env": [{"name": "A", "value": "b"}]},
    "inspector": {"env": [{"name": "A", "value": "b"}]},
    "serviceAccount": {"annotations": {"a": "b"}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "platform"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
    ],
    "priorityClassName": "system-cluster-critical",
    "service": {"annotations": {"a": "b"}},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}, "alertLabels": {"team": "platform"}},
    "dashboards": {"enabled": True, "labels": {"team": "platform"}, "annotations": {"grafana_folder": "ONNX"}},
    "networkPolicy": {
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}],
        "egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
    },
}
RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/enforce-version": "latest",
}


def _one(objects: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    (found,) = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    return found


def _settings(objects: list[dict[str, Any]]) -> Settings:
    return parse_settings(yaml.safe_load(_one(objects, "ConfigMap", "onnx-operator")["data"]["settings.yaml"]))


def _pod(objects: list[dict[str, Any]]) -> dict[str, Any]:
    template: dict[str, Any] = _one(objects, "Deployment")["spec"]["template"]
    return template


def _rights(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


def _needed() -> set[tuple[str, str, str]]:
    """What the controller's own lists of kinds, and its few other calls, ask for."""

    def rights(kind: Kind, *verbs: str) -> set[tuple[str, str, str]]:
        return {(kind.api_version.rpartition("/")[0], kind.plural, verb) for verb in verbs}

    needed = rights(ONNX_MODEL, "get", "list", "watch")
    for kind in shapes(lambda item, model: None):
        needed |= rights(kind, "list", "watch")
    for kind in (*CHILD_KINDS, CONTROLLER_REVISION):
        needed |= rights(kind, "get", "create", "patch", "delete")
    needed |= rights(POD, "get", "create", "delete")
    return needed | {
        (names.GROUP, f"{names.PLURAL}/status", "patch"),
        (names.GROUP, f"{names.PLURAL}/finalizers", "update"),
        ("apps", "replicasets", "list"),
        ("", "pods/log", "get"),
        ("", "secrets", "get"),
        ("", "configmaps", "get"),
        ("", "configmaps", "list"),
        ("", "configmaps", "watch"),
        ("events.k8s.io", "events", "create"),
    }


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_lint_finds_nothing(chart: Chart, values: dict[str, Any]) -> None:
    done = chart.run("lint", "--strict", str(CHART), values=values)
    assert done.returncode == 0, done.stdout


def test_the_operator_may_do_what_it_does_and_nothing_else(chart: Chart) -> None:
    objects = chart.template()
    assert _rights(_one(objects, "ClusterRole", "onnx-operator")["rules"]) == _needed()
    at_home = _one(objects, "Role")
    assert at_home["metadata"]["namespace"] == NAMESPACE
    # The Lease, and the key of seals: of these names alone, but that RBAC cannot hold a create to a name.
    kinds = (("coordination.k8s.io", "leases"), ("", "secrets"))
    assert _rights(at_home["rules"]) == {(*kind, verb) for kind in kinds for verb in ("create", "get", "update")}
    named = {name for rule in at_home["rules"] for name in rule.get("resourceNames", [])}
    assert named == {"onnx-operator", "onnx-operator-seal"}
    assert all(rule["verbs"] == ["create"] for rule in at_home["rules"] if "resourceNames" not in rule)
    bound = [o["roleRef"]["name"] for o in objects if o["kind"].endswith("RoleBinding")]
    assert sorted(bound) == ["onnx-operator", "onnx-operator-lease"]


@pytest.mark.parametrize(
    ("setting", "needless"),
    [
        ("allowCredentials", {("", "secrets", "get")}),
        ("allowScoring", {("", "configmaps", verb) for verb in ("get", "list", "watch")}),
        ("allowInspectionPods", {("", "pods", verb) for verb in ("get", "create", "delete")}),
    ],
)
def test_a_right_that_a_setting_makes_needless_is_not_granted(
    chart: Chart, setting: str, needless: set[tuple[str, str, str]]
) -> None:
    objects = chart.template({"settings": {setting: False}})
    assert _rights(_one(objects, "ClusterRole", "onnx-operator")["rules"]) == _needed() - needless
    assert needless <= _needed()
    # The operator is told, and does not try.
    assert _settings(objects).model_dump(by_alias=True)[setting] is False


def test_with_namespaces_the_operator_has_no_right_in_the_whole_cluster(chart: Chart) -> None:
    objects = chart.template({"settings": {"namespaces": ["vision", "speech"]}})
    assert not [o for o in objects if o["kind"] == "ClusterRoleBinding"]
    assert not [o for o in objects if o["kind"] == "ClusterRole" and o["metadata"]["name"] == "onnx-operator"]
    for namespace in ("vision", "speech"):
        (role,) = [o for o in objects if o["kind"] == "Role" and o["metadata"]["namespace"] == namespace]
        assert _rights(role["rules"]) == _needed()
        (binding,) = [o for o in objects if o["kind"] == "RoleBinding" and o["metadata"]["namespace"] == namespace]
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "onnx-operator", "namespace": NAMESPACE}]
    assert _settings(objects).namespaces == ["vision", "speech"]


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_only_the_controller_can_reach_a_token(chart: Chart, values: dict[str, Any]) -> None:
    objects = chart.template(values)
    pod = _pod(objects)["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert _one(objects, "ServiceAccount", "onnx-operator")["automountServiceAccountToken"] is False
    (token,) = [v["name"] for v in pod["volumes"] if "serviceAccountToken" in json.dumps(v)]
    mounts = {c["name"]: [m["name"] for m in c["volumeMounts"]] for c in pod["containers"]}
    assert token in mounts["controller"]
    assert token not in mounts["inspector"]
    users = {c["name"]: c["securityContext"].get("runAsUser") for c in pod["containers"]}
    assert users["controller"] != users["inspector"]
    assert not pod.get("shareProcessNamespace")


def test_the_settings_file_holds_the_values(chart: Chart) -> None:
    settings = _settings(chart.template(EVERYTHING))
    expected = {
        **EVERYTHING["settings"],
        "serverImage": "registry.example.com/team/onnx-server:0.1.0",
        "inspectorImage": f"registry.example.com/team/onnx-operator@sha256:{'0' * 64}",
        "templatesDirectory": "/etc/onnx-operator/templates",
    }
    assert settings == parse_settings(expected)


def test_two_releases_in_a_namespace_have_no_object_lease_or_key_in_common(chart: Chart) -> None:
    def made(release: str, **values: Any) -> tuple[set[tuple[str, str]], set[str]]:
        objects = chart.template(values, release=release)
        arguments = _pod(objects)["spec"]["containers"][0]["args"]
        lease = next(a for a in arguments if a.startswith("--lease-name=")).partition("=")[2]
        rules = _one(objects, "Role", f"{lease}-lease")["rules"]
        named = {name for rule in rules for name in rule.get("resourceNames", [])}
        assert named == {lease, f"{lease}-seal"}
        return {(o["kind"], o["metadata"]["name"]) for o in objects}, named

    blue, green = made("blue"), made("green", crds={"enabled": False})
    assert not blue[0] & green[0]
    assert not blue[1] & green[1]


def test_inspection_pods_run_the_operators_image_unless_another_is_given(chart: Chart) -> None:
    own = _pod(chart.template())["spec"]["containers"][0]["image"]
    assert _settings(chart.template()).inspector_image == own
    given = {"settings": {"inspectorImage": "registry.example.com/inspector:2"}}
    assert _settings(chart.template(given)).inspector_image == "registry.example.com/inspector:2"


def test_a_user_that_is_left_to_the_platform_is_named_nowhere(chart: Chart) -> None:
    objects = chart.template({"settings": {"runAsUser": None}})
    pod = _pod(objects)["spec"]
    contexts = [pod["securityContext"], *(c["securityContext"] for c in pod["containers"])]
    assert not {key for each in contexts for key in each} & {"runAsUser", "runAsGroup", "fsGroup", "supplementalGroups"}
    assert pod["securityContext"]["runAsNonRoot"] is True
    # The operator is told, and not left to its default.
    assert _settings(objects).run_as_user is None
    # Nobody owns it who runs here: whoever mounts it may read it, and that is the controller alone.
    (token,) = [v for v in pod["volumes"] if "serviceAccountToken" in json.dumps(v)]
    assert token["projected"]["defaultMode"] == 0o444


def test_proxies_and_authorities_reach_the_inspector_and_a_change_of_them_no_pod(chart: Chart) -> None:
    pod = _pod(chart.template(EVERYTHING))["spec"]
    (volume,) = [v for v in pod["volumes"] if v["name"] == "egress"]
    assert volume["projected"]["sources"] == [
        {"configMap": {"name": "egress", "optional": True}},
        {"secret": {"name": "egress-secret", "optional": True}},
    ]
    mounts = {
        c["name"]: [m["mountPath"] for m in c["volumeMounts"] if m["name"] == "egress"] for c in pod["containers"]
    }
    assert mounts == {"controller": [], "inspector": ["/etc/onnx-operator/egress"]}


def test_new_settings_replace_the_pods(chart: Chart) -> None:
    first, again, other = (
        _pod(chart.template(values))["metadata"]["annotations"]
        for values in ({}, {"replicas": 5}, {"settings": {"workers": 2}})
    )
    assert first == again
    assert first != other


def test_the_crd_is_the_generated_one_and_outlives_the_release(chart: Chart) -> None:
    rendered = _one(chart.template(), "CustomResourceDefinition")
    annotations = rendered["metadata"]["annotations"]
    assert annotations["helm.sh/resource-policy"] == "keep"
    expected = yaml.safe_load(crd.to_yaml())
    assert rendered["metadata"]["name"] == expected["metadata"]["name"]
    assert rendered["spec"] == expected["spec"]


def test_the_crd_can_be_left_out_or_removed_with_the_release(chart: Chart) -> None:
    kinds = {o["kind"] for o in chart.template({"crds": {"enabled": False}})}
    assert "CustomResourceDefinition" not in kinds
    removable = _one(chart.template({"crds": {"keep": False}}), "CustomResourceDefinition")
    assert "helm.sh/resource-policy" not in removable["metadata"].get("annotations", {})


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_a_real_api_server_takes_every_object(
    chart: Chart, apiserver: Cluster, namespace: str, values: dict[str, Any]
) -> None:
    settings = values.get("settings", {}) | ({"namespaces": [namespace]} if values else {})
    objects = chart.template({**values, "settings": settings}, namespace=namespace)
    # The Prometheus Operator's kinds are not known here.
    known = [o for o in objects if o["apiVersion"] != "monitoring.coreos.com/v1"]
    apiserver.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-", input=yaml.safe_dump_all(known)
    )  # fmt: skip


def test_the_pod_fits_the_restricted_pod_security_standard(chart: Chart, apiserver: Cluster, namespace: str) -> None:
    labels = [f"{key}={value}" for key, value in RESTRICTED.items()]
    apiserver.kubectl("label", "namespace", namespace, *labels)
    template = _pod(chart.template(namespace=namespace))
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": "operator", "namespace": namespace},
        "spec": template["spec"],
    }
    apiserver.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", input=json.dumps(pod))


def test_the_operators_account_is_held_to_its_rights(chart: Chart, apiserver: Cluster, namespace: str) -> None:
    values = {"settings": {"namespaces": [namespace]}, "crds": {"enabled": False}}
    roles = [o for o in chart.template(values, namespace=namespace) if o["kind"] in ("Role", "RoleBinding")]
    apiserver.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(roles))

    def may(*what: str, where: str = namespace) -> bool:
        user = f"--as=system:serviceaccount:{namespace}:onnx-operator"
        done = apiserver.run_kubectl("auth", "can-i", *what, "-n", where, user, check=False)
        return done.stdout.strip() == "yes"

    assert may("get", "secrets")
    assert may("patch", "deployments.apps")
    assert may("update", "leases.coordination.k8s.io/onnx-operator")
    assert not may("list", "secrets")
    assert may("create", "pods")
    assert not may("patch", "pods")
    assert not may("create", "pods", "--subresource=exec")
    assert not may("update", "leases.coordination.k8s.io/other")
    assert not may("update", "secrets/other")
    assert not may("patch", "onnxmodels.onnx-operator.dev")
    assert not may("create", "rolebindings.rbac.authorization.k8s.io")
    assert not may("get", "secrets", where="kube-system")
    assert not may("patch", "deployments.apps", where="default")
