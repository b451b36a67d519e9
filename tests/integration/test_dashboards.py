"""The chart's Grafana dashboards: found by the sidecar, and asking for nothing that is not told."""

import json
from pathlib import Path
from typing import Any

from tests.integration.monitoring import CHART, dashboard_queries, exported, metrics_in, rendered


def _maps(helm: Path, *values: str) -> list[dict[str, Any]]:
    return [o for o in rendered(helm, *values) if "-dashboard-" in o["metadata"]["name"]]


def test_both_are_there_under_the_label_that_the_sidecar_looks_for(helm: Path) -> None:
    maps = _maps(helm)
    assert {name for each in maps for name in each["data"]} == {"fleet.json", "model.json"}
    assert {each["metadata"]["labels"]["grafana_dashboard"] for each in maps} == {"1"}
    assert not _maps(helm, "dashboards.enabled=false")
    for each in _maps(helm, "dashboards.sidecarLabel=boards", "dashboards.annotations.grafana_folder=ONNX"):
        assert each["metadata"]["labels"]["boards"] == "1"
        assert each["metadata"]["annotations"] == {"grafana_folder": "ONNX"}


def test_helm_changes_nothing_in_them(helm: Path) -> None:
    for each in _maps(helm):
        for name, text in each["data"].items():
            assert json.loads(text) == json.loads((CHART / "dashboards" / name).read_text())


def test_every_metric_that_a_dashboard_asks_for_is_exported(helm: Path) -> None:
    queries = dashboard_queries(helm)
    assert len(queries) > 40
    for where, query in queries.items():
        assert metrics_in(query), where
        assert metrics_in(query) <= exported(), where
