"""The controller and its inspector as processes, on an API server without any node."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.layout import ROOT
from tests.integration.rights import Limited, allow, limited

MODEL = {
    "apiVersion": "onnx-operator.dev/v1alpha1",
    "kind": "OnnxModel",
    "metadata": {"name": "resnet50"},
    "spec": {"model": {"uri": "s3://models/resnet50.onnx", "credentials": {"secretName": "nowhere"}}},
}


class Operator:
    """Both processes, with settings and a socket in a folder."""

    def __init__(self, cluster: Cluster | Limited, namespace: str, folder: Path, **settings: object) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        file = folder / "settings.yaml"
        # Only this namespace: other tests leave models in theirs.
        file.write_text(json.dumps({"serverImage": "localhost/onnx-server:dev", "namespaces": [namespace], **settings}))
        self._common = ["--settings", str(file), "--inspector-socket", str(folder / "inspector.sock")]
        self._log = (folder / "log").open("ab")
        self.log = folder / "log"
        self.inspector = self._start("inspector")
        self._controller = ["controller", "--namespace", namespace, "--kubeconfig", str(cluster.kubeconfig)]
        self.controller = self.start_controller()

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
        command = [sys.executable, "-m", "onnx_operator.controller", arguments[0], *self._common, *arguments[1:]]
        return subprocess.Popen(command, env=environment, stderr=self._log)

    def start_controller(self) -> subprocess.Popen[bytes]:
        """A controller; there is never more than one with this port."""
        return self._start(*self._controller, "--host", "127.0.0.1", "--port", str(self.port))

    def get(self, path: str) -> str:
        """The answer of an endpoint; an assertion error while there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return str(response.read().decode())
        except (urllib.error.URLError, OSError) as error:
            raise AssertionError(f"{path}: {error}") from error

    def stop(self) -> None:
        """End both, by force."""
        for process in (self.controller, self.inspector):
            process.kill()
            process.wait()
        self._log.close()


@pytest.fixture
def operator(apiserver: Cluster, crd: None, namespace: str, tmp_path: Path) -> Iterator[Operator]:
    running = Operator(apiserver, namespace, tmp_path)
    yield running
    running.stop()


def _verdict(cluster: Cluster, namespace: str) -> dict[str, str]:
    conditions = cluster.get("onnx", "resnet50", namespace).get("status", {}).get("conditions", [])
    return {c["type"]: c["reason"] for c in conditions}


def test_it_judges_tells_its_health_and_hands_the_lease_on_when_it_is_asked_to_end(
    apiserver: Cluster, namespace: str, operator: Operator
) -> None:
    apiserver.wait(lambda: json.loads(operator.get("/readyz"))["leading"], 60, "the controller to lead")
    assert json.loads(operator.get("/healthz")) == {"status": "ok"}

    apiserver.apply(MODEL, namespace)
    apiserver.wait(lambda: _verdict(apiserver, namespace).get("ModelValid") == "CredentialsNotFound", 30, "the verdict")
    metrics = operator.get("/metrics")
    assert 'onnx_operator_models{ready="False",reason="CredentialsNotFound"} 1.0' in metrics
    assert "onnx_operator_leader 1.0" in metrics
    assert f'model_ready{{name="resnet50",namespace="{namespace}",reason="CredentialsNotFound"}} 0.0' in metrics

    operator.controller.send_signal(signal.SIGTERM)
    assert operator.controller.wait(30) == 0, operator.log.read_text()[-3000:]
    lease = apiserver.get("lease", "onnx-operator", namespace)
    assert not lease["spec"].get("holderIdentity")


def test_the_metrics_name_a_model_until_it_is_deleted(apiserver: Cluster, namespace: str, operator: Operator) -> None:
    series = f'onnx_operator_model_trouble{{condition="ModelValid",name="resnet50",namespace="{namespace}"'
    apiserver.apply(MODEL, namespace)
    apiserver.wait(lambda: series in operator.get("/metrics"), 60, "the model to be named")
    apiserver.kubectl("delete", "onnx", "resnet50", "-n", namespace, "--wait=false")
    apiserver.wait(lambda: "resnet50" not in operator.get("/metrics"), 30, "it to be forgotten")


def test_a_restart_writes_nothing_for_what_is_already_told(
    apiserver: Cluster, namespace: str, operator: Operator
) -> None:
    apiserver.apply(MODEL, namespace)
    apiserver.wait(lambda: _verdict(apiserver, namespace).get("ModelValid") == "CredentialsNotFound", 60, "the verdict")
    # What an alert can ask for: Events by reason, such as KilledWhileServing.
    counted = 'onnx_operator_events_total{reason="CredentialsNotFound",type="Warning"}'
    apiserver.wait(lambda: counted in operator.get("/metrics"), 60, "the Event to be counted")
    operator.controller.kill()
    operator.controller.wait()
    before = apiserver.get("onnx", "resnet50", namespace)["metadata"]["resourceVersion"]
    operator.controller = operator.start_controller()
    apiserver.wait(
        lambda: 'onnx_operator_models{ready="False",reason="CredentialsNotFound"} 1.0' in operator.get("/metrics"),
        60,
        "the model to be looked at again",
    )
    assert apiserver.get("onnx", "resnet50", namespace)["metadata"]["resourceVersion"] == before


def test_an_inspector_that_dies_makes_the_replica_unready_but_not_dead(apiserver: Cluster, operator: Operator) -> None:
    apiserver.wait(lambda: json.loads(operator.get("/readyz"))["leading"], 60, "the controller to lead")
    operator.inspector.kill()
    operator.inspector.wait()

    def unready() -> bool:
        try:
            operator.get("/readyz")
        except AssertionError as error:
            return "503" in str(error)
        return False

    apiserver.wait(unready, 30, "the replica to say that it is not ready")
    assert json.loads(operator.get("/healthz")) == {"status": "ok"}


def test_a_leader_whose_inspector_stays_dead_hands_over(
    apiserver: Cluster, namespace: str, operator: Operator, tmp_path: Path
) -> None:
    apiserver.wait(lambda: json.loads(operator.get("/readyz"))["leading"], 60, "the controller to lead")
    (tmp_path / "other").mkdir()
    other = Operator(apiserver, namespace, tmp_path / "other")
    try:
        operator.inspector.kill()
        operator.inspector.wait()
        assert operator.controller.wait(60) == 1
        assert "the inspector has not answered" in operator.log.read_text()
        apiserver.wait(lambda: json.loads(other.get("/readyz"))["leading"], 10, "the other to lead")
        apiserver.apply(MODEL, namespace)
        apiserver.wait(
            lambda: _verdict(apiserver, namespace).get("ModelValid") == "CredentialsNotFound", 30, "its verdict"
        )
        # Started anew without an inspector, it stands by.
        operator.controller = operator.start_controller()
        apiserver.wait(lambda: not json.loads(_get(operator, "/readyz"))["leading"], 30, "the first to stand by")
    finally:
        other.stop()


def _get(operator: Operator, path: str) -> str:
    """The answer of an endpoint, be it an error."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}{path}", timeout=5) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError as error:
        raise AssertionError(f"{path}: {error}") from error


def test_a_stopped_leader_writes_nothing_once_its_time_is_over(
    apiserver: Cluster, namespace: str, tmp_path: Path
) -> None:
    apiserver.apply((ROOT / "crds/onnxmodels.onnx-operator.dev.yaml").read_text())
    allow(apiserver, namespace, namespace)
    # Who is told from the other by the audit log.
    known = limited(apiserver, namespace, apiserver.kubeconfig, tmp_path)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first = Operator(known, namespace, tmp_path / "first")
    apiserver.wait(lambda: json.loads(first.get("/readyz"))["leading"], 60, "the first to lead")
    second = Operator(apiserver, namespace, tmp_path / "second")
    try:
        # In the middle of its work.
        apiserver.apply(MODEL, namespace)
        first.controller.send_signal(signal.SIGSTOP)
        apiserver.wait(lambda: json.loads(second.get("/readyz"))["leading"], 60, "the second to lead")
        since = time.time()
        for number in range(5):
            apiserver.apply({**MODEL, "metadata": {"name": f"later{number}"}}, namespace)
        first.controller.send_signal(signal.SIGCONT)
        assert first.controller.wait(30) == 1
        assert "lost the lease" in first.log.read_text()
        apiserver.wait(
            lambda: _verdict(apiserver, namespace).get("ModelValid") == "CredentialsNotFound", 30, "the verdict"
        )
        writes = [e for e in apiserver.audit_events(since, namespace=namespace) if e.is_write]
        assert any(e.subresource == "status" for e in writes), "the second's are in the log"
        assert [e for e in writes if e.username == known.username] == []
    finally:
        first.controller.send_signal(signal.SIGCONT)
        first.stop()
        second.stop()
