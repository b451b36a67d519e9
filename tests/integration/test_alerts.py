"""The chart's alerts, judged by promtool: each fires where it should, and none does where all is well."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import prometheus
from tests.cluster.layout import ROOT
from tests.integration.monitoring import alerts, exported, metrics_in, rendered, rule_groups

RUNBOOKS = ROOT / "docs" / "runbooks"
MODEL = 'namespace="team-a", name="churn"'
WELL = {
    f'onnx_operator_model_ready{{{MODEL}, reason="Complete", pod="o-0"}}': "1+0x60",
    'onnx_operator_model_ready{namespace="team-a", name="idle", reason="Suspended", pod="o-0"}': "0+0x60",
    'onnx_operator_model_replicas{namespace="team-a", name="idle", pod="o-0"}': "0+0x60",
    'onnx_operator_model_ready_replicas{namespace="team-a", name="idle", pod="o-0"}': "0+0x60",
    f'onnx_operator_model_replicas{{{MODEL}, pod="o-0"}}': "2+0x60",
    f'onnx_operator_model_ready_replicas{{{MODEL}, pod="o-0"}}': "2+0x60",
    'onnx_operator_leader{pod="o-0"}': "1+0x60",
    'onnx_operator_leader{pod="o-1"}': "0+0x60",
    'onnx_operator_lease_failures_total{pod="o-0"}': "1+0x60",
    'onnx_operator_reconciles_total{result="ok", pod="o-0"}': "0+100x60",
    'onnx_operator_reconciles_total{result="error", pod="o-0"}': "0+1x60",
    'onnx_operator_inspector_forbidden_calls_total{pod="o-0"}': "0+0x60",
    'onnx_operator_inspector_exceeded_limits_total{pod="o-0"}': "0+0x60",
    'onnx_operator_not_followed{kind="Pod", namespace="team-a", pod="o-0"}': "0+0x60",
    f'onnx_server_requests_total{{{MODEL}, pod="p-0", protocol="rest", code="200"}}': "0+1000x60",
    f'onnx_server_requests_total{{{MODEL}, pod="p-0", protocol="rest", code="503"}}': "0+10x60",
    # Clients' own faults, and probes while the model loads.
    f'onnx_server_requests_total{{{MODEL}, pod="p-0", protocol="rest", code="400"}}': "0+900x60",
    f'onnx_server_requests_total{{{MODEL}, pod="p-0", protocol="other", code="503"}}': "0+900x60",
    f'onnx_server_request_duration_seconds_bucket{{{MODEL}, pod="p-0", protocol="rest", le="0.1"}}': "0+1000x60",
    f'onnx_server_request_duration_seconds_bucket{{{MODEL}, pod="p-0", protocol="rest", le="+Inf"}}': "0+1000x60",
    f'onnx_server_queue_seconds_bucket{{{MODEL}, pod="p-0", le="0.1"}}': "0+1000x60",
    f'onnx_server_queue_seconds_bucket{{{MODEL}, pod="p-0", le="+Inf"}}': "0+1000x60",
    f'onnx_server_requests_rejected_total{{{MODEL}, pod="p-0"}}': "7+0x60",
    f'onnx_server_memory_used_bytes{{{MODEL}, pod="p-0"}}': "800+0x60",
    f'onnx_server_memory_limit_bytes{{{MODEL}, pod="p-0"}}': "1000+0x60",
    f'onnx_server_proof_contradicted{{{MODEL}, pod="p-0"}}': "0+0x60",
}


def _trouble(condition: str, reason: str) -> dict[str, str]:
    labels = f'{MODEL}, condition="{condition}", reason="{reason}", pod="o-0"'
    return {f"onnx_operator_model_trouble{{{labels}}}": "1+0x60"}


def _not(series: str) -> str:
    (found,) = [each for each in WELL if each.startswith(series) and "idle" not in each]
    return found


# What is different from the healthy series, and the alerts that it raises: all of them, and no other.
FAULTS: dict[str, tuple[dict[str, str | None], set[str]]] = {
    "no pod": (
        {_not("onnx_operator_model_ready_replicas"): "0+0x60"},
        {"OnnxModelNotServing", "OnnxModelMissingReplicas"},
    ),
    "not ready": ({_not("onnx_operator_model_ready{"): "0+0x60"}, {"OnnxModelNotReady"}),
    "reasons that follow each other": (
        {
            _not("onnx_operator_model_ready{"): "0+0x9 _x60",
            f'onnx_operator_model_ready{{{MODEL}, reason="Loading", pod="o-1"}}': "_x9 0+0x60",
        },
        {"OnnxModelNotReady"},
    ),
    "replicas": ({_not("onnx_operator_model_ready_replicas"): "1+0x60"}, {"OnnxModelMissingReplicas"}),
    "refused": ({**_trouble("ModelValid", "UnknownOperator")}, {"OnnxModelRefused"}),
    "not pinned is no refusal": ({**_trouble("ModelValid", "NotReproducible")}, set()),
    "signature": ({**_trouble("ModelValid", "SignatureInvalid")}, {"OnnxModelSignatureInvalid"}),
    "source changed": ({**_trouble("Progressing", "SourceChanged")}, {"OnnxModelSourceChanged"}),
    "digest": ({**_trouble("ModelValid", "DigestMismatch")}, {"OnnxModelSourceChanged"}),
    "source away": ({**_trouble("ModelValid", "SourceUnreachable")}, {"OnnxModelSourceUnavailable"}),
    "rollout": ({**_trouble("Progressing", "ImagePullFailed")}, {"OnnxModelRolloutStuck"}),
    "memory": ({**_trouble("Progressing", "KilledWhileServing")}, {"OnnxModelOutOfMemory"}),
    "fallback": ({**_trouble("Accelerated", "FallbackToCPU")}, {"OnnxModelFallbackToCPU"}),
    "outdated": ({**_trouble("Outdated", "Altered")}, {"OnnxModelOutdated"}),
    "errors": (
        {f'onnx_server_requests_total{{{MODEL}, pod="p-0", protocol="grpc", code="INTERNAL"}}': "0+200x60"},
        {"OnnxModelErrors"},
    ),
    "slow": (
        {next(s for s in WELL if "duration" in s and "0.1" in s): "0+900x60"}
        | {next(s for s in WELL if "duration" in s and "0.1" in s).replace("0.1", "2.5"): "0+1000x60"},
        {"OnnxModelSlow"},
    ),
    "queue full": ({_not("onnx_server_requests_rejected"): "0+60x60"}, {"OnnxModelQueueFull"}),
    "queue slow": (
        {next(s for s in WELL if "queue" in s and "0.1" in s): "0+900x60"}
        | {next(s for s in WELL if "queue" in s and "0.1" in s).replace("0.1", "2.5"): "0+1000x60"},
        {"OnnxModelQueueSlow"},
    ),
    "memory near": ({_not("onnx_server_memory_used"): "950+0x60"}, {"OnnxModelMemoryNearLimit"}),
    "proof": ({_not("onnx_server_proof"): "1+0x60"}, {"OnnxServerProofContradicted"}),
    "nobody leads": ({'onnx_operator_leader{pod="o-0"}': "0+0x60"}, {"OnnxOperatorDown"}),
    "nobody is there": (
        {'onnx_operator_leader{pod="o-0"}': None, 'onnx_operator_leader{pod="o-1"}': None},
        {"OnnxOperatorDown"},
    ),
    "lease": ({_not("onnx_operator_lease"): "0+1x60"}, {"OnnxOperatorLeaseTrouble"}),
    "failing": ({_not('onnx_operator_reconciles_total{result="error"'): "0+300x60"}, {"OnnxOperatorFailing"}),
    "call": ({_not("onnx_operator_inspector_forbidden"): "0+0x50 1+0x9"}, {"OnnxOperatorForbiddenCall"}),
    "limit": ({_not("onnx_operator_inspector_exceeded"): "0+0x50 1+0x9"}, {"OnnxOperatorInspectionLimit"}),
    "not followed": ({_not("onnx_operator_not_followed"): "1+0x60"}, {"OnnxOperatorNotFollowing"}),
}


def _promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(prometheus.program("promtool")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_promtool_finds_no_fault_in_the_rules(helm: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule_groups(helm)))
    done = _promtool("check", "rules", tmp_path / "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_for_its_fault_alone_and_none_where_all_is_well(helm: Path, tmp_path: Path) -> None:
    known = alerts(helm)
    assert set().union(*(raised for _, raised in FAULTS.values())) == set(known), "every alert has a fault"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule_groups(helm)))
    # Exact annotations are not compared, but their templates are run.
    tests = [
        {
            "name": name,
            "interval": "1m",
            "input_series": [
                {"series": series, "values": values} for series, values in (WELL | changed).items() if values
            ],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": "55m",
                    "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(raised)],
                }
            ],
        }
        for name, (changed, raised) in {"all is well": ({}, set()), **FAULTS}.items()
    ]
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}))
    done = _promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_runbook_and_every_runbook_an_alert(helm: Path) -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(alerts(helm))
    for path in RUNBOOKS.glob("*.md"):
        text = path.read_text()
        assert text.startswith(f"# {path.stem}\n")
        assert [line for line in text.splitlines() if line.startswith("## ")] == [
            *("## Meaning", "## Impact", "## Diagnosis", "## Mitigation")
        ]
        assert "```console\n" in text


def test_every_metric_that_an_alert_asks_for_is_exported(helm: Path) -> None:
    for name, rule in alerts(helm).items():
        assert metrics_in(rule["expr"]) <= exported(), name
        assert metrics_in(rule["expr"]), name


def test_thresholds_labels_and_the_place_of_runbooks_are_the_users(helm: Path) -> None:
    given = alerts(
        helm,
        "prometheusRule.alertLabels.team=ml",
        "prometheusRule.runbookUrl=https://wiki.example/onnx/",
        "prometheusRule.disabled={OnnxModelSlow}",
        "prometheusRule.thresholds.errorRatio=0.2",
    )
    assert "OnnxModelSlow" not in given
    errors: dict[str, Any] = given["OnnxModelErrors"]
    assert errors["expr"].rstrip().endswith("> 0.2")
    assert errors["labels"] == {"severity": "critical", "team": "ml"}
    assert errors["annotations"]["runbook_url"] == "https://wiki.example/onnx/OnnxModelErrors.md"
    assert not [name for name, rule in given.items() if "%" in rule["expr"]]
    assert alerts(helm)["OnnxModelErrors"]["annotations"]["runbook"] == "docs/runbooks/OnnxModelErrors.md"


def test_monitors_give_series_the_name_and_namespace_of_their_model(helm: Path) -> None:
    objects = {o["kind"]: o for o in rendered(helm, "settings.namespaces={team-a,team-b}")}
    pods = objects["PodMonitor"]["spec"]
    assert pods["namespaceSelector"] == {"matchNames": ["team-a", "team-b"]}
    assert pods["selector"]["matchExpressions"] == [{"key": "onnx-operator.dev/model", "operator": "Exists"}]
    (endpoint,) = pods["podMetricsEndpoints"]
    assert endpoint["port"] == "http"
    assert endpoint["relabelings"] == [
        {"sourceLabels": ["__meta_kubernetes_pod_label_onnx_operator_dev_model"], "targetLabel": "name"}
    ]
    (operator,) = objects["ServiceMonitor"]["spec"]["endpoints"]
    assert operator["honorLabels"] is True
    everywhere = {o["kind"]: o for o in rendered(helm)}
    assert everywhere["PodMonitor"]["spec"]["namespaceSelector"] == {"any": True}
