"""values.schema.json of the chart, by which Helm refuses a wrong value before anything reaches a cluster.

Descriptions are the comments of values.yaml. Settings are described by the operator's own model of them; everything
else by the rules below, and where none is, by the default's type.
"""

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from onnx_operator.controller.settings.settings import Settings
from tests.tools import chart_kinds as kinds
from tests.tools.chart_kinds import Schema, items, one_of, pattern, whole
from tests.tools.chart_values import is_group, values

RULES: dict[str, Schema] = {
    "settings.runAsUser": kinds.SETTINGS_USER,
    "settings.namespaces[]": kinds.NAMESPACE,
    "settings.serverImage": kinds.IMAGE,
    "settings.inspectorImage": kinds.IMAGE,
    "settings.imagePullSecrets[]": kinds.NAME,
    "settings.modelSelector.matchLabels": kinds.LABELS,
    "settings.modelSelector.matchExpressions[].key": kinds.LABEL_KEY,
    "settings.modelSelector.matchExpressions[].values[]": kinds.LABEL_VALUE,
    "settings.pip.indexUrl": pattern(r"https?://\S+", empty=True),
    "settings.pip.trustedHost": kinds.OPTIONAL_HOST_PORT,
    "settings.pools[].nodeSelector": kinds.LABELS,
    "settings.pools[].gpuResource": kinds.LABEL_KEY,
    "settings.pools[].acceleratorMemory": {"pattern": f"{kinds.QUANTITY}|^$"},
    "settings.pools[].serverImage": kinds.IMAGE,
    "settings.pools[].allowedNamespaces[]": kinds.NAMESPACE,
    "settings.sources.allowedNetworks[]": kinds.CIDR,
    "settings.sources.https.plainHttpHosts[]": kinds.HOST_PORT,
    "settings.sources.oci.plainHttpRegistries[]": kinds.HOST_PORT,
    "settings.sources.s3.region": pattern(r"[-A-Za-z0-9]+"),
    "settings.sources.az.account": pattern("[a-z0-9]{3,24}", empty=True),
    "settings.sources.hf.endpoint": pattern(r"https?://[^\s@?#]+"),
    "settings.sources.*.endpoint": kinds.ADDRESS,
    "settings.sources.mlflow.trackingUri": kinds.ADDRESS,
    "settings.sources.*.caBundle": kinds.PEM,
    "settings.sources.*TimeoutSeconds": {"exclusiveMinimum": 0},
    "settings.signatures.publicKeys": kinds.PEM,
    "settings.signatures.certificateAuthorities": kinds.PEM,
    "settings.inspection.maxModelBytes": whole(1),
    "settings.inspection.timeoutSeconds": {"exclusiveMinimum": 0},
    "settings.resources.maxCpu": {"pattern": kinds.QUANTITY},
    "settings.templatesDirectory": pattern("/.*", empty=True),
    "templates": kinds.by_key(pattern(r"[-_a-z0-9]+\.yaml\.j2"), kinds.STRING),
    "image.repository": kinds.REPOSITORY,
    "image.tag": kinds.TAG,
    "image.digest": kinds.DIGEST,
    "image.pullPolicy": kinds.PULL_POLICY,
    "imagePullSecrets": items(kinds.NAME),
    "nameOverride": pattern(kinds.LABEL, 63, empty=True),
    "fullnameOverride": pattern(kinds.LABEL, 54, empty=True),
    "replicas": whole(1, 100),
    "logLevel": one_of("debug", "info", "warning", "error"),
    "*.env": kinds.ENV,
    "*.envFrom": kinds.ENV_FROM,
    "*.extraArgs": items(pattern("-.*")),
    "*.extraVolumeMounts": kinds.MOUNTS,
    "*.securityContext": kinds.CONTAINER_SECURITY,
    "podSecurityContext": kinds.POD_SECURITY,
    "extraVolumes": kinds.VOLUMES,
    "extraObjects": kinds.EXTRA_OBJECTS,
    "dnsPolicy": one_of("", "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "dnsConfig": kinds.DNS,
    "hostAliases": kinds.HOST_ALIASES,
    "runtimeClassName": kinds.OPTIONAL_NAME,
    "controller.resources": kinds.RESOURCES,
    "inspector.resources": kinds.RESOURCES,
    "serviceAccount.name": kinds.OPTIONAL_NAME,
    "*nnotations": kinds.ANNOTATIONS,
    "*abels": kinds.LABELS,
    "nodeSelector": kinds.LABELS,
    "tolerations": kinds.TOLERATIONS,
    "affinity": kinds.AFFINITY,
    "topologySpreadConstraints": kinds.SPREAD,
    "priorityClassName": kinds.OPTIONAL_NAME,
    "terminationGracePeriodSeconds": whole(1, 3600),
    "podDisruptionBudget.maxUnavailable": kinds.SHARE,
    "service.port": whole(1, 65535),
    "serviceMonitor.interval": kinds.DURATION,
    "podMonitor.interval": kinds.DURATION,
    "prometheusRule.disabled": items(pattern(r"[A-Za-z0-9]+")),
    "prometheusRule.runbookUrl": pattern(r"https?://\S+", empty=True),
    "prometheusRule.thresholds.*": pattern(r"[0-9]+(\.[0-9]+)?"),
    "dashboards.sidecarLabel": kinds.LABEL_KEY,
    "dashboards.sidecarLabelValue": kinds.LABEL_VALUE,
    "helmTest.timeoutSeconds": whole(1, 3600),
    "networkPolicy.metricsFrom": kinds.PEERS,
    "networkPolicy.egress": kinds.EGRESS,
}
"""By the dotted path of a value, ``[]`` for a list's elements; the first that matches holds. Those of settings are
added to what the operator's model says."""


def rule(path: str) -> Schema | None:
    """What is demanded of the value at a path."""
    return next((found for wanted, found in RULES.items() if wanted == path), None) or next(
        (found for wanted, found in RULES.items() if "*" in wanted and fnmatchcase(path, wanted)), None
    )


def _settings(node: Schema, definitions: dict[str, Schema], path: str, comments: dict[str, str]) -> Schema:
    """The operator's model of its settings, with references in their place, our rules and the comments."""
    if "$ref" in node:
        node = definitions[node["$ref"].rpartition("/")[2]] | {k: v for k, v in node.items() if k != "$ref"}
    node = {key: inner for key, inner in node.items() if key not in ("title", "default")}
    if "properties" in node:
        node["properties"] = {
            name: _settings(inner, definitions, f"{path}.{name}", comments)
            for name, inner in node["properties"].items()
        }
    if "items" in node:
        node["items"] = _settings(node["items"], definitions, f"{path}[]", comments)
    if "anyOf" in node:
        node["anyOf"] = [_settings(inner, definitions, f"{path}|", comments) for inner in node["anyOf"]]
    if "pattern" in (added := rule(path) or {}):
        # It says itself whether the text may be empty.
        node.pop("minLength", None)
    node |= added
    if comments.get(path):
        node["description"] = comments[path]
    return node


def _own(default: Any, path: str, comments: dict[str, str]) -> Schema:
    """The schema of a value outside the settings."""
    name = path.rpartition(".")[2]
    if is_group(name, default, path):
        inner = {key: _own(value, f"{path}.{key}" if path else key, comments) for key, value in default.items()}
        node: Schema = {"type": "object", "additionalProperties": False, "properties": inner}
    else:
        node = dict(rule(path) or _plain(default, path))
    return node | ({"description": comments[path]} if comments.get(path) else {})


def _plain(default: Any, path: str) -> Schema:
    match default:
        case bool():
            return kinds.BOOLEAN
        case int():
            return {"type": "integer"}
        case str():
            return kinds.STRING
    raise ValueError(f"{path}: an empty or opaque value says nothing of what belongs into it; add a rule for it")


def schema(chart: Path) -> Schema:
    """JSON Schema of all values."""
    text = (chart / "values.yaml").read_text()
    comments = {value.path: value.comment for value in values(text)}
    defaults = yaml.safe_load(text)
    own = {name: _own(default, name, comments) for name, default in defaults.items() if name != "settings"}
    model = Settings.model_json_schema(by_alias=True)
    settings = _settings(model, model.pop("$defs"), "settings", comments)
    # The chart fills in its own server image.
    settings.pop("required")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": False,
        # Helm hands these to every chart of a parent's, whatever they hold.
        "properties": {"settings": settings, **own, "global": kinds.OBJECT},
    }


def text(chart: Path) -> str:
    """The file."""
    return json.dumps(schema(chart), indent=2) + "\n"
