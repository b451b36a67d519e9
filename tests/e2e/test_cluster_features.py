"""What the other tests rely on in the cluster; when one of these fails, look here first."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.layout import BASE_IMAGE, HOST_ADDRESS, HOST_DOMAIN

_WEB = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.uname().nodename.encode())
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
_BURN = "while True: pass"


def _container(code: str, **more: Any) -> dict[str, Any]:
    return {
        "name": "main",
        "image": BASE_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-u", "-c", code],
        **more,
    }


def _pod(name: str, container: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            **spec,
        },
    }


def _deployment(name: str, replicas: int, container: dict[str, Any]) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    }


@pytest.fixture
def web(cluster: Cluster, namespace: str) -> str:
    """Two pods behind a service; the service's address."""
    if not cluster.is_local:
        pytest.skip("the image is only in the local cluster")
    container = _container(
        _WEB,
        ports=[{"containerPort": 8080}],
        readinessProbe={"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1},
    )
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    cluster.apply([_deployment("web", 2, container), service], namespace)
    cluster.wait_condition("deployment", "web", namespace, "Available")
    cluster.wait(
        lambda: cluster.get("deployment", "web", namespace)["status"].get("readyReplicas") == 2,
        what="two ready pods",
        namespace=namespace,
    )
    return str(cluster.get("service", "web", namespace)["spec"]["clusterIP"])


@pytest.fixture
def on_host() -> Iterator[int]:
    """A server on the host, as tests run them; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"from the host")

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((HOST_ADDRESS, 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def _fetch(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as answer:
        return str(answer.read().decode())


def test_services_logs_and_exec(cluster: Cluster, namespace: str, web: str, on_host: int) -> None:
    def both_answer() -> bool:
        try:
            return len({_fetch(f"http://{web}/") for _ in range(12)}) == 2
        except OSError:
            return False

    cluster.wait(both_answer, 10, "both pods to answer the host", namespace)

    def inside(code: str) -> str:
        return cluster.kubectl("exec", "deployment/web", "-n", namespace, "--", "python3", "-c", code)

    fetch = "import urllib.request as u; print(u.urlopen('{}', timeout=5).read().decode())"
    assert inside(fetch.format(f"http://web.{namespace}.svc.cluster.local/")).startswith("web-")
    assert inside(fetch.format("http://web/")).startswith("web-")
    assert inside(fetch.format(f"http://models.{HOST_DOMAIN}:{on_host}/")).strip() == "from the host"
    unknown = "import socket; print(socket.getaddrinfo('{}', 80))"
    with pytest.raises(ClusterError, match="Name or service not known"):
        inside(unknown.format("nowhere.example.org"))
    assert "GET / HTTP" in cluster.kubectl("logs", "deployment/web", "-n", namespace)


def test_port_forward(cluster: Cluster, namespace: str, web: str) -> None:
    kubectl = str(cluster.programs / "kubectl") if cluster.programs else "kubectl"
    forward = subprocess.Popen(
        [kubectl, f"--kubeconfig={cluster.kubeconfig}", "port-forward", "-n", namespace, "service/web", ":80"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with forward:
        assert forward.stdout
        port = forward.stdout.readline().split(" -> ")[0].rpartition(":")[2]
        assert _fetch(f"http://127.0.0.1:{port}/").startswith("web-")
        forward.kill()


def test_out_of_memory_is_told(cluster: Cluster, namespace: str) -> None:
    if not cluster.is_local:
        pytest.skip("the image is only in the local cluster")
    eater = _container("bytes(b'x' * (200 << 20))", resources={"limits": {"memory": "40Mi"}})
    cluster.apply(_pod("eater", eater), namespace)

    def reason() -> bool:
        status = cluster.get("pod", "eater", namespace)["status"]["containerStatuses"][0]
        return bool(status["state"].get("terminated", {}).get("reason") == "OOMKilled")

    cluster.wait(reason, 30, "the pod to be killed", namespace)


def test_fake_nodes_run_pods_that_want_gpus(cluster: Cluster, namespace: str) -> None:
    pool = f"fake-{namespace[-6:]}"
    if not cluster.is_local:
        pytest.skip("nodes are faked only in the local cluster")
    try:
        taint = "nvidia.com/gpu=present:NoSchedule"
        names = cluster.fake_nodes(2, gpus=8, pool=pool, labels={"gpu": pool}, taints=[taint])
        container = {
            "name": "main",
            "image": "localhost/none",
            "resources": {"limits": {"nvidia.com/gpu": "1"}},
        }
        deployment = _deployment("scorer", 16, container)
        deployment["spec"]["template"]["spec"].update(
            nodeSelector={"gpu": pool},
            tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}],
        )
        started = time.monotonic()
        cluster.apply(deployment, namespace)
        cluster.wait(
            lambda: cluster.get("deployment", "scorer", namespace)["status"].get("readyReplicas") == 16,
            what="16 ready pods",
            namespace=namespace,
        )
        assert time.monotonic() - started < 30
        placed = {pod["spec"]["nodeName"] for pod in cluster.list("pods", namespace)}
        assert placed == set(names)
    finally:
        cluster.remove_fake_nodes(pool)


def test_a_node_can_claim_devices_it_lacks(cluster: Cluster, namespace: str) -> None:
    if not cluster.is_local:
        pytest.skip("nodes are patched only in the local cluster")
    # A resource of this test's own: others may be counting on the usual one.
    resource = f"test.example/{namespace[-6:]}"
    cluster.patch_node_gpu(resource=resource, count=2)
    try:
        container = _container("import time; time.sleep(60)", resources={"limits": {resource: "1"}})
        cluster.apply(_pod("claims", container), namespace)
        cluster.wait_condition("pod", "claims", namespace, "Ready")
    finally:
        cluster.patch_node_gpu(resource=resource, count=0)
    assert resource not in cluster.get("node", "node1")["status"]["capacity"]


def test_calls_are_counted(cluster: Cluster, namespace: str) -> None:
    if not cluster.is_local:
        pytest.skip("the audit log can be read only in the local cluster")
    since = time.time()
    cluster.kubectl("create", "configmap", "counted", "-n", namespace)
    for _ in range(3):
        cluster.kubectl("annotate", "configmap", "counted", "-n", namespace, f"at={time.time()}", "--overwrite")
    written = cluster.audit_events(since, user_agent="kubectl", resource="configmaps", namespace=namespace, writes=True)
    assert [event.verb for event in written] == ["create", "patch", "patch", "patch"]
    assert {event.code for event in written} == {200, 201}
    assert {event.username for event in written} == {"onnx-operator-admin"}


@pytest.mark.soak
def test_autoscaler_gets_metrics(cluster: Cluster, namespace: str) -> None:
    if not cluster.is_local:
        pytest.skip("the image is only in the local cluster")
    container = _container(_BURN, resources={"requests": {"cpu": "50m"}, "limits": {"cpu": "150m"}})
    cluster.apply(_deployment("busy", 1, container), namespace)
    cluster.kubectl("autoscale", "deployment/busy", "--min=1", "--max=2", "--cpu=50%", "-n", namespace)
    cluster.wait(
        lambda: cluster.get("deployment", "busy", namespace)["status"].get("readyReplicas") == 2,
        120,
        "the autoscaler to add a pod",
        namespace,
    )
    usage = json.loads(cluster.kubectl("get", "--raw", f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods"))
    assert usage["items"]
