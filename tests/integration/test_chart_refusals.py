"""What Helm takes as values of the chart, and what it refuses, by name, before anything reaches a cluster."""

from typing import Any

import pytest

from tests.integration.charts import Chart

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"settings": {"wrokers": 3}}, "wrokers"),
    ({"settings": {"workers": 0}}, "workers"),
    ({"settings": {"sources": {"s3": {"endpiont": "x"}}}}, "endpiont"),
    ({"settings": {"sources": {"ftp": {}}}}, "ftp"),
    ({"settings": {"sources": {"hf": {"token": "x"}}}}, "token"),
    ({"settings": {"sources": {"oci": {"plainHttpRegistries": "registry"}}}}, "plainHttpRegistries"),
    ({"settings": {"signatures": {"publicKey": "x"}}}, "publicKey"),
    ({"settings": {"pools": [{"runtime": "GPU"}]}}, "name"),
    ({"settings": {"pools": [{"name": "a", "runtime": "TPU"}]}}, "runtime"),
    ({"settings": {"pools": [{"name": "a", "tolerations": [{"efect": "NoSchedule"}]}]}}, "efect"),
    ({"replicaCount": 3}, "replicaCount"),
    ({"replicas": "three"}, "replicas"),
    ({"image": {"repo": "x"}}, "repo"),
    ({"logLevel": "loud"}, "logLevel"),
    ({"networkPolicy": {"enable": True}}, "enable"),
    ({"image": {"digest": "abc"}}, "/image/digest"),
    ({"image": {"digest": "sha256:ABC"}}, "/image/digest"),
    ({"image": {"tag": "a b"}}, "/image/tag"),
    ({"image": {"repository": ""}}, "/image/repository"),
    ({"image": {"repository": "registry.example.com/onnx-operator:0.1.0"}}, "/image/repository"),
    ({"image": {"pullPolicy": "always"}}, "/image/pullPolicy"),
    ({"imagePullSecrets": [{"name": "pull"}]}, "/imagePullSecrets/0"),
    ({"replicas": 0}, "/replicas"),
    ({"replicas": -1}, "/replicas"),
    ({"replicas": 1.5}, "/replicas"),
    ({"fullnameOverride": "Blue Operator"}, "/fullnameOverride"),
    ({"nameOverride": "a" * 64}, "/nameOverride"),
    ({"settings": {"namespaces": ["Vision_Team"]}}, "/settings/namespaces/0"),
    ({"settings": {"namespaces": [""]}}, "/settings/namespaces/0"),
    ({"settings": {"namespaces": ["a.b"]}}, "/settings/namespaces/0"),
    ({"settings": {"namespaces": "vision"}}, "/settings/namespaces"),
    ({"settings": {"runAsUser": 0}}, "/settings/runAsUser"),
    ({"settings": {"runAsUser": -5}}, "/settings/runAsUser"),
    ({"settings": {"runAsUser": 2**31}}, "/settings/runAsUser"),
    ({"settings": {"runAsUser": "65532"}}, "/settings/runAsUser"),
    ({"settings": {"serverImage": "registry.example.com/onnx server"}}, "/settings/serverImage"),
    ({"settings": {"resources": {"maxCpu": "two"}}}, "/settings/resources/maxCpu"),
    ({"settings": {"resources": {"limits": "Never"}}}, "/settings/resources/limits"),
    ({"settings": {"inspection": {"maxModelBytes": 0}}}, "/settings/inspection/maxModelBytes"),
    ({"settings": {"sources": {"allowedNetworks": ["example.com"]}}}, "/settings/sources/allowedNetworks/0"),
    ({"settings": {"sources": {"s3": {"endpoint": "s3.example.com"}}}}, "/settings/sources/s3/endpoint"),
    ({"settings": {"sources": {"s3": {"endpoint": "https://me:key@s3.example.com"}}}}, "/settings/sources/s3/endpoint"),
    ({"settings": {"sources": {"https": {"caBundle": "/etc/ssl/ca.crt"}}}}, "/settings/sources/https/caBundle"),
    ({"settings": {"sources": {"oci": {"plainHttpRegistries": ["http://r:5000"]}}}}, "/plainHttpRegistries/0"),
    ({"settings": {"pools": [{"name": "Big Pool"}]}}, "/settings/pools/0/name"),
    ({"settings": {"pools": [{"name": "a", "acceleratorMemory": "16 GB"}]}}, "/pools/0/acceleratorMemory"),
    ({"settings": {"pools": [{"name": "a", "allowedNamespaces": ["*"]}]}}, "/pools/0/allowedNamespaces/0"),
    ({"settings": {"modelSelector": {"matchLabels": {"a b": "c"}}}}, "/settings/modelSelector/matchLabels"),
    ({"settings": {"modelSelector": {"matchExpressions": [{"key": "a", "operator": "in"}]}}}, "operator"),
    ({"templates": {"../deployment.yaml.j2": ""}}, "/templates"),
    ({"controller": {"resources": {"limits": {"memory": "1Gib"}}}}, "/controller/resources/limits/memory"),
    ({"controller": {"resources": {"limits": {"memory": -1}}}}, "/controller/resources/limits/memory"),
    ({"inspector": {"resources": {"limit": {"memory": "1Gi"}}}}, "limit"),
    ({"inspector": {"env": [{"name": "A", "valueForm": {}}]}}, "valueForm"),
    ({"inspector": {"env": {"A": "b"}}}, "/inspector/env"),
    ({"serviceAccount": {"annotations": {"a": 1}}}, "/serviceAccount/annotations/a"),
    ({"podLabels": {"team": "a b"}}, "/podLabels/team"),
    ({"nodeSelector": {"gpu": True}}, "/nodeSelector/gpu"),
    ({"tolerations": [{"key": "a", "operator": "exists"}]}, "/tolerations/0/operator"),
    ({"affinity": {"nodeAffinty": {}}}, "nodeAffinty"),
    ({"topologySpreadConstraints": [{"maxSkew": 1}]}, "topologyKey"),
    ({"priorityClassName": "Very High"}, "/priorityClassName"),
    ({"terminationGracePeriodSeconds": 0}, "/terminationGracePeriodSeconds"),
    ({"podDisruptionBudget": {"maxUnavailable": "half"}}, "/podDisruptionBudget/maxUnavailable"),
    ({"service": {"port": 70000}}, "/service/port"),
    ({"serviceMonitor": {"interval": "30"}}, "/serviceMonitor/interval"),
    ({"networkPolicy": {"metricsFrom": [{}]}}, "/networkPolicy/metricsFrom/0"),
    ({"networkPolicy": {"egress": [{"ports": [{"protocol": "tcp"}]}]}}, "protocol"),
]
TAKEN: list[dict[str, Any]] = [
    {"image": {"digest": f"sha256:{'0a' * 32}"}},
    {"image": {"repository": "[fd00::1]:5000/onnx-operator"}},
    {"image": {"repository": "localhost:5000/team/onnx-operator"}},
    {"image": {"repository": "registry.example.com/a/b__c/d.e-f"}},
    {"settings": {"runAsUser": None}},
    {"settings": {"runAsUser": 1000680000}},
    {"settings": {"resources": {"maxCpu": "500m", "requestsPerSecond": 0.5}}},
    {"settings": {"sources": {"connectTimeoutSeconds": 0.5, "allowedNetworks": ["10.0.0.7", "fd00::/8"]}}},
    {"controller": {"resources": {"requests": {"cpu": 0.5, "memory": "1.5Gi"}, "limits": {"cpu": 2, "memory": "1e9"}}}},
    {"controller": {"resources": {"limits": {"memory": None}}}},
    {"podDisruptionBudget": {"maxUnavailable": "50%"}},
    {"networkPolicy": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": "https"}]}]}},
    {"global": {"whatever": {"a": "parent"}}},
]


@pytest.mark.parametrize(("values", "field"), REFUSED, ids=[f"{field}-{i}" for i, (_, field) in enumerate(REFUSED)])
def test_a_wrong_value_is_refused_by_name(chart: Chart, values: dict[str, Any], field: str) -> None:
    assert field in chart.refusal(values)


@pytest.mark.parametrize("values", TAKEN, ids=str)
def test_a_right_value_is_taken(chart: Chart, values: dict[str, Any]) -> None:
    assert chart.template(values)
