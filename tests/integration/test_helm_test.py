"""``helm test``: what it asks, what it says where something is missing, and how little it may do."""

import asyncio
import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from onnx_operator.api import names
from onnx_operator.controller.endpoints import Health, start_endpoints
from tests.cluster.cluster import Cluster
from tests.integration.charts import CHART, Chart


def _pod(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (pod,) = [o for o in objects if o["kind"] == "Pod"]
    return pod


class Operator:
    """The operator's own endpoints, on a port of this machine, in a thread with its loop."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner = asyncio.run_coroutine_threadsafe(start_endpoints(health, "127.0.0.1", 0), self._loop).result(20)
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/readyz"

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()


@pytest.fixture
def health() -> Health:
    return Health(connected=True)


@pytest.fixture
def operator(health: Health) -> Iterator[Operator]:
    running = Operator(health)
    yield running
    running.stop()


@pytest.fixture
def credentials(apiserver: Cluster, namespace: str, tmp_path: Path) -> dict[str, str]:
    """An account without any right, and the environment that leads to the API server."""
    apiserver.kubectl("create", "serviceaccount", "nobody", "-n", namespace)
    token = apiserver.kubectl("create", "token", "nobody", "-n", namespace)
    server = yaml.safe_load(apiserver.kubeconfig.read_text())["clusters"][0]["cluster"]
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "token").write_text(token)
    authority = server.get("certificate-authority-data")
    text = base64.b64decode(authority) if authority else Path(server["certificate-authority"]).read_bytes()
    (folder / "ca.crt").write_bytes(text)
    return {"API_URL": server["server"], "CREDENTIALS": str(folder)}


def _run(chart: Chart, seconds: str = "1", **environment: str) -> subprocess.CompletedProcess[str]:
    """The hook's own command and variables, but for where things are."""
    (container,) = _pod(chart.template())["spec"]["containers"]
    given = {each["name"]: each["value"] for each in container["env"]}
    command = [sys.executable, *container["command"][1:]]
    env = given | environment | {"TIMEOUT_SECONDS": seconds}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.usefixtures("crd")
def test_a_ready_operator_and_a_served_resource_pass_with_no_right_at_all(
    chart: Chart, operator: Operator, credentials: dict[str, str]
) -> None:
    done = _run(chart, "20", READY_URL=operator.url, **credentials)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == ["ok: operator", "ok: resource"]


def test_an_operator_that_is_not_ready_is_told_with_its_own_reason(
    chart: Chart, operator: Operator, health: Health
) -> None:
    health.connected = False
    done = _run(chart, READY_URL=operator.url)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("FAILED: the operator is not ready (503: not connected")


def test_what_the_operator_cannot_follow_fails_the_test(chart: Chart, operator: Operator, health: Health) -> None:
    health.degraded = lambda: {"vision": ["Secret"]}
    done = _run(chart, READY_URL=operator.url)
    assert done.returncode == 1
    assert '{"vision": ["Secret"]}' in done.stdout


def test_an_operator_that_becomes_ready_in_time_is_waited_for(
    chart: Chart, operator: Operator, health: Health, credentials: dict[str, str], crd: None
) -> None:
    health.connected = False
    threading.Timer(2, lambda: setattr(health, "connected", True)).start()
    done = _run(chart, "30", READY_URL=operator.url, **credentials)
    assert done.returncode == 0, done.stdout


def test_no_answer_at_all_says_where_to_look(chart: Chart) -> None:
    done = _run(chart, READY_URL="http://127.0.0.1:9/readyz")
    assert done.returncode == 1
    assert "no answer" in done.stdout
    assert "network policies" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("missing", [{"API_PATH": "/apis/onnx-operator.dev/v9"}, {"RESOURCE": "others"}], ids=str)
@pytest.mark.usefixtures("crd")
def test_a_cluster_that_does_not_serve_the_resource_fails_the_test(
    chart: Chart, operator: Operator, credentials: dict[str, str], missing: dict[str, str]
) -> None:
    done = _run(chart, READY_URL=operator.url, **credentials, **missing)
    assert done.returncode == 1
    assert "install its CRD" in done.stdout


def test_it_asks_for_what_the_release_installs(chart: Chart) -> None:
    objects = chart.template({"service": {"port": 9090}}, namespace="platform", release="blue")
    (container,) = _pod(objects)["spec"]["containers"]
    env = {each["name"]: each["value"] for each in container["env"]}
    (service,) = [o for o in objects if o["kind"] == "Service"]
    assert env["READY_URL"] == f"http://{service['metadata']['name']}.platform.svc:9090/readyz"
    assert env["API_PATH"] == f"/apis/{names.API_VERSION}"
    assert env["RESOURCE"] == names.PLURAL
    assert container["command"][2] == (CHART / "files" / "ready.py").read_text()


def test_the_hook_is_one_and_cleans_up_after_itself(chart: Chart) -> None:
    hooks = [o for o in chart.template() if "helm.sh/hook" in o["metadata"].get("annotations", {})]
    assert {o["kind"] for o in hooks} == {"Pod", "ServiceAccount"}
    for each in hooks:
        annotations = each["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "test"
        # A failed pod stays: its log says why.
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    assert not [o for o in chart.template({"helmTest": {"enabled": False}}) if o["kind"] == "Pod"]


def test_no_role_is_bound_to_its_account(chart: Chart) -> None:
    objects = chart.template()
    account = _pod(objects)["spec"]["serviceAccountName"]
    subjects = [s["name"] for o in objects if o["kind"].endswith("RoleBinding") for s in o["subjects"]]
    assert subjects
    assert account not in subjects


def test_neither_service_nor_budget_nor_deployment_takes_it_for_the_operator(chart: Chart) -> None:
    objects = chart.template({"podLabels": {"a": "b"}})
    labels = _pod(objects)["metadata"]["labels"].items()
    for each in objects:
        selector = each.get("spec", {}).get("selector") or {}
        if each["kind"] in ("Service", "PodDisruptionBudget", "Deployment"):
            assert not selector.get("matchLabels", selector).items() <= labels, each["kind"]


def test_where_metrics_are_for_few_it_is_let_in(chart: Chart) -> None:
    objects = chart.template({"networkPolicy": {"metricsFrom": [{"namespaceSelector": {}}]}})
    (policy,) = [o for o in objects if o["kind"] == "NetworkPolicy"]
    (own,) = [p["podSelector"]["matchLabels"] for p in policy["spec"]["ingress"][0]["from"] if "podSelector" in p]
    assert own.items() <= _pod(objects)["metadata"]["labels"].items()


@pytest.mark.parametrize("user", [65532, None])
def test_it_fits_the_restricted_pod_security_standard(
    chart: Chart, apiserver: Cluster, namespace: str, user: int | None
) -> None:
    apiserver.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    objects = chart.template({"settings": {"runAsUser": user}}, namespace=namespace)
    (account,) = [o for o in objects if o["kind"] == "ServiceAccount" and o["metadata"]["name"].endswith("-test")]
    apiserver.apply(account)
    pod = json.dumps(_pod(objects))
    apiserver.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", input=pod)
