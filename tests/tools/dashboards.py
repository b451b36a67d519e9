"""Makes the two Grafana dashboards of the chart out of their queries: all models, and one."""

import json
from dataclasses import dataclass
from itertools import count
from typing import Any

_WIDTH, _HEIGHT = 24, 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_MODELS = 'namespace=~"$namespace"'
_ONE = 'namespace="$namespace", name="$name"'
_SCORING = 'protocol!="other"'
_FAILED = 'code=~"5..|UNKNOWN|INTERNAL|UNAVAILABLE|DEADLINE_EXCEEDED"'


@dataclass(frozen=True)
class Panel:
    """One panel: what it shows, of which unit, and by which queries (legend and expression)."""

    title: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8


def _rate(metric: str, labels: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def _quantile(part: str, metric: str, labels: str, by: str) -> str:
    inner = _rate(f"{metric}_bucket", labels, f"{by}, le" if by else "le")
    return f"histogram_quantile({part}, {inner})"


def _errors(labels: str) -> str:
    failed = _rate("onnx_server_requests_total", f"{labels}, {_SCORING}, {_FAILED}", "namespace, name")
    # A model that has never failed has no series to divide.
    every = _rate("onnx_server_requests_total", f"{labels}, {_SCORING}", "namespace, name")
    return f"({failed} or {every} * 0) / {every}"


_READY = f"max by (namespace, name) (onnx_operator_model_ready{{{_MODELS}}})"
_MISSING = f"(onnx_operator_model_replicas{{{_MODELS}}} - onnx_operator_model_ready_replicas{{{_MODELS}}})"
_EACH = "{{namespace}}/{{name}}"
FLEET = (
    Panel("Models", (("", f"count({_READY})"),), "stat", width=6),
    Panel("Ready", (("", f"sum({_READY})"),), "stat", width=6),
    Panel("Replicas missing", (("", f"sum({_MISSING} > 0) or vector(0)"),), "stat", width=6),
    Panel("Operators at work", (("", "sum(onnx_operator_leader)"),), "stat", width=6),
    Panel("Models by reason", (("{{reason}}", f"count by (reason) (onnx_operator_model_ready{{{_MODELS}}})"),)),
    Panel(
        "Troubles",
        (("", f"max by (namespace, name, condition, reason) (onnx_operator_model_trouble{{{_MODELS}}})"),),
        "table",
        width=16,
    ),
    Panel(
        "Requests",
        ((_EACH, _rate("onnx_server_requests_total", f"{_MODELS}, {_SCORING}", "namespace, name")),),
        unit="reqps",
    ),
    Panel("Failed requests", ((_EACH, _errors(_MODELS)),), unit="percentunit"),
    Panel(
        "99 of 100 requests take at most",
        (
            (
                _EACH,
                _quantile("0.99", "onnx_server_request_duration_seconds", f"{_MODELS}, {_SCORING}", "namespace, name"),
            ),
        ),
        unit="s",
    ),
    Panel("Inferences that wait", ((_EACH, f"sum by (namespace, name) (onnx_server_requests_waiting{{{_MODELS}}})"),)),
    Panel(
        "Requests turned away",
        ((_EACH, _rate("onnx_server_requests_rejected_total", _MODELS, "namespace, name")),),
        unit="reqps",
    ),
    Panel(
        "Memory used of its limit",
        (
            (
                f"{_EACH} {{{{pod}}}}",
                f"onnx_server_memory_used_bytes{{{_MODELS}}} / onnx_server_memory_limit_bytes{{{_MODELS}}}",
            ),
        ),
        unit="percentunit",
    ),
    Panel(
        "Operator: looks at models",
        (("{{result}}", _rate("onnx_operator_reconciles_total", "", "result")),),
        unit="ops",
    ),
    Panel(
        "Operator: time of a look",
        (("99 of 100", _quantile("0.99", "onnx_operator_reconcile_seconds", "", "")),),
        unit="s",
    ),
    Panel("Operator: models that wait", (("", "sum(onnx_operator_queue_depth)"),)),
    Panel(
        "Operator: inspections", (("{{reason}}", _rate("onnx_operator_inspections_total", "", "reason")),), unit="ops"
    ),
    Panel(
        "Operator: writes",
        (("{{kind}} {{verb}}", _rate("onnx_operator_api_writes_total", "", "kind, verb")),),
        unit="ops",
    ),
    Panel(
        "Operator: Events",
        (("{{type}} {{reason}}", _rate("onnx_operator_events_total", "", "type, reason")),),
        unit="ops",
    ),
    Panel(
        "Operator: Lease failures", (("{{pod}}", _rate("onnx_operator_lease_failures_total", "", "pod")),), unit="ops"
    ),
    Panel(
        "Inspector: children ended by the sandbox",
        (
            ("forbidden call", "sum(onnx_operator_inspector_forbidden_calls_total)"),
            ("limit", "sum(onnx_operator_inspector_exceeded_limits_total)"),
        ),
    ),
    Panel("Operator: kinds not followed", (("{{kind}} {{namespace}}", "onnx_operator_not_followed"),)),
)
MODEL = (
    Panel("Ready", (("{{reason}}", f"max by (reason) (onnx_operator_model_ready{{{_ONE}}})"),), "stat", width=6),
    Panel(
        "Replicas",
        (
            ("wanted", f"max(onnx_operator_model_replicas{{{_ONE}}})"),
            ("ready", f"max(onnx_operator_model_ready_replicas{{{_ONE}}})"),
        ),
        width=6,
    ),
    Panel(
        "Runs on",
        (("", f"max by (model, version, execution_providers) (onnx_server_model_info{{{_ONE}}})"),),
        "table",
        width=12,
    ),
    Panel(
        "Requests by answer",
        (("{{protocol}} {{code}}", _rate("onnx_server_requests_total", f"{_ONE}, {_SCORING}", "protocol, code")),),
        unit="reqps",
    ),
    Panel("Failed requests", (("failed", _errors(_ONE)),), unit="percentunit"),
    Panel(
        "Time of a request",
        tuple(
            (legend, _quantile(part, "onnx_server_request_duration_seconds", f"{_ONE}, {_SCORING}", ""))
            for legend, part in (("half", "0.5"), ("95 of 100", "0.95"), ("99 of 100", "0.99"))
        ),
        unit="s",
    ),
    Panel(
        "Time in the queue",
        tuple(
            (legend, _quantile(part, "onnx_server_queue_seconds", _ONE, ""))
            for legend, part in (("half", "0.5"), ("99 of 100", "0.99"))
        ),
        unit="s",
    ),
    Panel(
        "Requests that a run answers",
        (
            (
                "mean",
                f"{_rate('onnx_server_batch_requests_sum', _ONE, 'namespace, name')} / "
                f"{_rate('onnx_server_batch_requests_count', _ONE, 'namespace, name')}",
            ),
        ),
    ),
    Panel("Rows", (("{{pod}}", _rate("onnx_server_rows_total", _ONE, "pod")),), unit="rowsps"),
    Panel(
        "In flight and waiting",
        (
            ("in flight {{pod}}", f"sum by (pod) (onnx_server_requests_in_flight{{{_ONE}}})"),
            ("waiting {{pod}}", f"sum by (pod) (onnx_server_requests_waiting{{{_ONE}}})"),
        ),
    ),
    Panel("Turned away", (("{{pod}}", _rate("onnx_server_requests_rejected_total", _ONE, "pod")),), unit="reqps"),
    Panel(
        "Memory",
        (
            ("used {{pod}}", f"onnx_server_memory_used_bytes{{{_ONE}}}"),
            ("limit {{pod}}", f"onnx_server_memory_limit_bytes{{{_ONE}}}"),
            ("for requests of a process {{pod}}", f"onnx_server_request_memory_bytes{{{_ONE}}}"),
        ),
        unit="bytes",
    ),
    Panel("Processor (one process of a pod)", (("{{pod}}", _rate("process_cpu_seconds_total", _ONE, "pod")),)),
    Panel(
        "Time to start",
        (
            ("load {{pod}}", f"onnx_server_model_load_seconds{{{_ONE}}}"),
            ("warm up {{pod}}", f"onnx_server_model_warm_up_seconds{{{_ONE}}}"),
        ),
        unit="s",
    ),
    Panel("Pods that take requests", (("{{pod}}", f"onnx_server_ready{{{_ONE}}}"),)),
)


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    table = panel.kind == "table"
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": _SOURCE,
            "expr": expression.replace("{}", ""),
            **({"legendFormat": legend} if legend else {}),
            **({"format": "table", "instant": True} if table else {}),
        }
        for index, (legend, expression) in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "title": panel.title,
        "type": panel.kind,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def _placed(panels: tuple[Panel, ...]) -> list[dict[str, Any]]:
    placed, x, y, numbers = [], 0, 0, count(1)
    for panel in panels:
        if x + panel.width > _WIDTH:
            x, y = 0, y + _HEIGHT
        placed.append(_panel(panel, next(numbers), x, y))
        x += panel.width
    return placed


def _variable(name: str, query: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "query", "datasource": _SOURCE, "query": query, "refresh": 2, "sort": 1, **more}


def _dashboard(uid: str, title: str, panels: tuple[Panel, ...], variables: list[dict[str, Any]]) -> str:
    return (
        json.dumps(
            {
                "uid": uid,
                "title": title,
                "tags": ["onnx-operator"],
                "schemaVersion": 39,
                "editable": True,
                "refresh": "30s",
                "time": {"from": "now-3h", "to": "now"},
                "templating": {
                    "list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}, *variables]
                },
                "panels": _placed(panels),
            },
            indent=1,
        )
        + "\n"
    )


def dashboards() -> dict[str, str]:
    """The JSON of each dashboard, by the name of its file."""
    every = {"multi": True, "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}}
    return {
        "fleet.json": _dashboard(
            "onnx-operator-fleet",
            "ONNX models: all",
            FLEET,
            [_variable("namespace", "label_values(onnx_operator_model_ready, namespace)", **every)],
        ),
        "model.json": _dashboard(
            "onnx-operator-model",
            "ONNX models: one",
            MODEL,
            [
                _variable("namespace", "label_values(onnx_operator_model_ready, namespace)"),
                _variable("name", 'label_values(onnx_operator_model_ready{namespace="$namespace"}, name)'),
            ],
        ),
    }
