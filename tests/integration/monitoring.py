"""The chart's alerts and dashboards, as Helm renders them, and the queries in them."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.layout import ROOT
from tests.tools.metrics import operators, servers

CHART = ROOT / "charts" / "onnx-operator"
ON = (
    "prometheusRule.enabled=true",
    "podMonitor.enabled=true",
    "serviceMonitor.enabled=true",
    "dashboards.enabled=true",
)
PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"}


def rendered(helm: Path, *values: str) -> list[dict[str, Any]]:
    """The chart's objects with everything of monitoring switched on, and further ``--set`` values."""
    command = [str(helm), "template", "onnx-operator", str(CHART), "--set", ",".join((*ON, *values))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def rule_groups(helm: Path, *values: str) -> dict[str, Any]:
    """The content of a rules file of Prometheus."""
    (rule,) = [o for o in rendered(helm, *values) if o["kind"] == "PrometheusRule"]
    groups: dict[str, Any] = rule["spec"]
    return groups


def alerts(helm: Path, *values: str) -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    return {rule["alert"]: rule for group in rule_groups(helm, *values)["groups"] for rule in group["rules"]}


def dashboard_queries(helm: Path) -> dict[str, str]:
    """The query of each target, by dashboard, panel and letter."""
    found: dict[str, str] = {}
    for each in rendered(helm):
        if each["kind"] == "ConfigMap" and "-dashboard-" in each["metadata"]["name"]:
            ((file, text),) = each["data"].items()
            for panel in json.loads(text)["panels"]:
                for target in panel.get("targets", []):
                    found[f"{file}/{panel['title']}/{target['refId']}"] = target["expr"]
    return found


def exported() -> set[str]:
    """The names of all series that operator and scoring pods tell."""
    names = set(PROCESS)
    for metric in (*operators(), *servers()):
        suffixes = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        names |= {f"{metric.name}{suffix}" for suffix in suffixes}
    return names


def metrics_in(query: str) -> set[str]:
    """The names of the metrics that a query asks for."""
    return set(re.findall(r"\b(?:onnx_(?:operator|server)|process)_\w+", query))
