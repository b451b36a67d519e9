"""A real Prometheus reads a real operator and a real scoring server: every query of the chart has an answer."""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from onnx_operator.common.cgroups import memory_limit
from tests.cluster import prometheus
from tests.cluster.cluster import Cluster
from tests.cluster.layout import ROOT
from tests.cluster.stores import free_port, running
from tests.integration.monitoring import alerts, dashboard_queries, exported, metrics_in, rule_groups
from tests.integration.rights import allow, limited
from tests.integration.test_controller_process import MODEL, Operator
from tests.models import linear

# What needs a fault that cannot be had without nodes; promtool sees each fire (test_alerts.py), and that the metric has
# the labels that are asked for is seen here.
ABSENT = {
    "OnnxModelFallbackToCPU": "needs a node with a GPU",
    "OnnxModelOutdated": "needs pods that somebody alters",
    "OnnxModelOutOfMemory": "needs pods that the kernel ends",
    "OnnxModelRolloutStuck": "needs pods",
    "OnnxModelSignatureInvalid": "needs signed models",
    "OnnxModelSourceChanged": "needs pods that download",
}
FIRES = {
    *("OnnxModelNotServing", "OnnxModelNotReady", "OnnxModelMissingReplicas", "OnnxModelRefused"),
    *("OnnxModelSourceUnavailable", "OnnxModelErrors", "OnnxOperatorNotFollowing"),
}


class Prometheus:
    """What a running one says."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{query}", timeout=10) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{parameters}: {error.read().decode()}")

    def ask(self, query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("query", query=query)["result"]
        return found


@contextmanager
def _scraping(
    folder: Path, rules: dict[str, Any], targets: dict[str, tuple[int, dict[str, str]]]
) -> Iterator[Prometheus]:
    """A Prometheus that reads ports of this machine each second, with the labels that the monitors would give them."""
    # Alerts fire at once.
    for group in rules["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            rule.pop("for", None)
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {
                "job_name": job,
                # As the ServiceMonitor has it.
                "honor_labels": job == "operator",
                "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": labels}],
            }
            for job, (port, labels) in targets.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [str(prometheus.program("prometheus")), f"--config.file={folder}/prometheus.yml"]
    command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
    with running(command, f"http://127.0.0.1:{port}/-/ready"):
        yield Prometheus(f"http://127.0.0.1:{port}")


@contextmanager
def _memory_group() -> Iterator[Path | None]:
    """A control group with a memory limit, as a container has; None where none can be made."""
    for mount, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(mount) / f"onnx-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(2**31))
        except OSError:
            group.rmdir()
            continue
        yield group
        for _ in range(50):
            try:
                group.rmdir()
                return
            except OSError:
                time.sleep(0.1)
        return
    yield None


@contextmanager
def _server(folder: Path, name: str, model: bytes | None, group: Path | None = None) -> Iterator[int]:
    """``onnx-server serve``; gives its port as soon as it listens. Without a model it loads for ever."""
    file = folder / f"{name}.onnx"
    if model:
        file.write_bytes(model)
    else:
        os.mkfifo(file)
    port = free_port()
    join = f"echo $$ > {group}/cgroup.procs; " if group else ""
    command = f"{join}exec {sys.executable} -m onnx_operator.server serve --model {file} --name {name} --processes 1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
    url = f"http://127.0.0.1:{port}/"
    with running(["sh", "-c", f"{command} --host 127.0.0.1 --port {port}"], url, environment):
        yield port


def _infer(port: int, name: str) -> int:
    url = f"http://127.0.0.1:{port}/v2/models/{name}"
    try:
        tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
        body = json.dumps({"inputs": [tensor]}).encode()
        with urllib.request.urlopen(f"{url}/infer", body, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def _data(query: str, namespace: str) -> str:
    """A dashboard's query, as Grafana sends it."""
    return query.replace("$__rate_interval", "1m").replace("$namespace", namespace).replace("$name", "churn")


def _conditions(expression: str) -> list[str]:
    """What an alert compares, without what it is compared with."""
    inner = expression.removeprefix("absent(").strip()
    parts = [part.strip() for part in inner.split("\n  and ")]
    return [part.rsplit(" == ", 1)[0].rsplit(" > ", 1)[0] for part in parts]


def test_every_query_of_alerts_and_dashboards_has_an_answer(
    helm: Path, apiserver: Cluster, namespace: str, crd: None, tmp_path: Path
) -> None:
    # A namespace of the settings in which it has no right.
    allow(apiserver, namespace, namespace)
    known = limited(apiserver, namespace, apiserver.kubeconfig, tmp_path)
    operator = Operator(known, namespace, tmp_path, namespaces=[namespace, "default"])
    spec = {"uri": "http://127.0.0.1/x.onnx"}
    apiserver.apply({**MODEL, "metadata": {"name": "churn"}}, namespace)
    apiserver.apply({**MODEL, "metadata": {"name": "refused"}, "spec": {"model": spec}}, namespace)
    model = {"namespace": namespace, "name": "churn", "pod": "churn-0"}
    try:
        with (
            _memory_group() as group,
            _server(tmp_path, "churn", linear(), group) as port,
            _server(tmp_path, "failing", None) as failing,
            _scraping(
                tmp_path,
                rule_groups(helm),
                {
                    "operator": (operator.port, {"namespace": "onnx-operator-system", "pod": "operator-0"}),
                    "models": (port, model),
                    "failing": (failing, {"namespace": namespace, "name": "failing", "pod": "failing-0"}),
                },
            ) as asked,
        ):
            apiserver.wait(lambda: _infer(port, "churn") == 200, 60, "the model to answer")
            apiserver.wait(lambda: _infer(failing, "failing") == 503, 60, "the other to fail")
            queries = {name: _data(query, namespace) for name, query in dashboard_queries(helm).items()}
            for name, rule in alerts(helm).items():
                for number, part in enumerate(_conditions(rule["expr"])):
                    if name not in ABSENT:
                        queries[f"{name}/{number}"] = part
            assert len(queries) > 50
            if not group and memory_limit() is None:
                # Only root makes a container's limit.
                queries = {k: q for k, q in queries.items() if "onnx_server_memory_limit_bytes" not in q}

            def unanswered() -> list[str]:
                _infer(port, "churn")
                _infer(failing, "failing")
                return [name for name, query in queries.items() if not asked.ask(query)]

            deadline = time.monotonic() + 60
            while (lacking := unanswered()) and time.monotonic() < deadline:
                time.sleep(1)
            assert not lacking, {name: queries[name] for name in lacking}

            for name in ABSENT:
                for metric in metrics_in(alerts(helm)[name]["expr"]):
                    labels = set(asked.ask(metric)[0]["metric"])
                    assert {"namespace", "name", "condition", "reason"} <= labels, name
            # The operator's series of a model carry the model's namespace.
            (ready,) = asked.ask('onnx_operator_model_ready{name="churn"}')
            assert ready["metric"]["namespace"] == namespace
            assert "exported_namespace" not in ready["metric"]

            def firing() -> set[str]:
                rules = {rule["name"]: rule for g in asked.get("rules")["groups"] for rule in g["rules"]}
                assert {rule["health"] for rule in rules.values()} <= {"ok", "unknown"}, rules
                return {name for name, rule in rules.items() if rule["state"] == "firing"}

            apiserver.wait(lambda: firing() >= FIRES, 30, "the alerts to fire")
            assert "OnnxOperatorDown" not in firing()
            # Nothing is asked of the pods that they do not tell here.
            told = {each["metric"]["__name__"] for each in asked.ask('{job=~"operator|models"}')}
            assert set().union(*map(metrics_in, queries.values())) <= told & exported()
    finally:
        operator.stop()
