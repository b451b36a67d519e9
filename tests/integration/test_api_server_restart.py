"""An API server that is restarted: the operator follows on, and looks at no model that has not changed."""

import re
import subprocess
import time

import pytest

from onnx_operator.api.crd import to_yaml
from tests.cluster import apiserver as api_server_only
from tests.integration.test_controller_process import Operator

MODELS = 30


@pytest.fixture
def server():
    folder = api_server_only.programs()
    if folder is None:
        pytest.skip("no programs of an API server's are built")
    api_server_only._sweep()
    running = api_server_only._start(folder)
    yield running
    running.stop()


def restart(server):
    process = server.running[1]
    process.kill()
    process.wait()
    with (server.folder / "kube-apiserver.log").open("ab") as log:
        server.running[1] = subprocess.Popen(process.args, stdout=log, stderr=log)
    server.cluster.wait(lambda: server.cluster.find("namespace", "default"), 60, "the API server to be back")


def model(name):
    return {
        "apiVersion": "onnx-operator.dev/v1alpha1",
        "kind": "OnnxModel",
        "metadata": {"name": name},
        # Refused for good: nothing is tried again.
        "spec": {"model": {"uri": "https://127.0.0.1/m.onnx"}},
    }


def looks(operator):
    return sum(float(n) for n in re.findall(r"onnx_operator_reconciles_total\{[^}]*\} (\S+)", operator.get("/metrics")))


def refused(operator, count):
    return f'onnx_operator_models{{ready="False",reason="SourceRefused"}} {count:.1f}' in operator.get("/metrics")


def test_a_restart_of_the_api_server_does_not_look_at_the_fleet_again(server, tmp_path):
    cluster = server.cluster
    cluster.apply(to_yaml())
    cluster.wait(lambda: cluster.list("onnxmodels") is not None, 30, "OnnxModel to be served")
    for number in range(MODELS):
        cluster.apply(model(f"m{number}"), "default")
    operator = Operator(cluster, "default", tmp_path)
    try:
        cluster.wait(lambda: refused(operator, MODELS), 60, "all to be looked at")
        time.sleep(2)
        before, since = looks(operator), time.time()
        assert before <= 3 * MODELS, "the first listing is no reason to look again"
        restart(server)
        # What happens afterwards is noticed, so it follows again.
        cluster.apply(model("later"), "default")
        cluster.wait(lambda: refused(operator, MODELS + 1), 90, "what came later to be looked at")
        time.sleep(2)
        assert looks(operator) - before <= 3, "only the new one"
        asked = [e for e in cluster.audit_events(since, user_agent="onnx-operator/") if e.resource != "leases"]
        assert len([e for e in asked if e.verb not in ("list", "watch") and e.name != "later"]) <= 3, asked
        assert operator.controller.poll() is None
    finally:
        operator.stop()
