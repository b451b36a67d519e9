"""Namespaces with quotas and limit ranges serve. The API server is real, and so are the controllers of Kubernetes.

There is no node: a pod that is made is one that the namespace took.
"""

import functools
import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.fixtures import built_program
from tests.integration.test_controller_process import Operator
from tests.models import linear
from tests.unit.model.webkit import Authority

CONTROLLERS = "deployment,replicaset,resourcequota,garbagecollector"


@pytest.fixture(scope="module")
def controllers(apiserver: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Kubernetes' own controllers of what is of interest here."""
    program = built_program("kube-controller-manager")
    log = (tmp_path_factory.mktemp("controllers") / "log").open("wb")
    process = subprocess.Popen(
        [
            program,
            f"--kubeconfig={apiserver.kubeconfig}",
            f"--controllers={CONTROLLERS}",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=200",
            "--kube-api-burst=300",
        ],
        stdout=log,
        stderr=log,
    )
    yield
    process.kill()
    process.wait()
    log.close()


@pytest.fixture(scope="module")
def store(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a model."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "linear.onnx").write_bytes(linear())
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = authority.server.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://localhost:{server.server_address[1]}/linear.onnx"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def operator(
    apiserver: Cluster, controllers: None, crd: None, namespace: str, authority: Authority, tmp_path: Path
) -> Iterator[Operator]:
    sources = {"allowedNetworks": ["127.0.0.0/8", "::1/128"], "https": {"caBundle": authority.pem}}
    running = Operator(apiserver, namespace, tmp_path, sources=sources)
    yield running
    running.stop()


class Namespace:
    """A namespace in which a model is wanted."""

    def __init__(self, cluster: Cluster, name: str, uri: str) -> None:
        self.cluster, self.name, self.uri = cluster, name, uri

    def quota(self, **hard: str) -> None:
        spec = {"hard": {key.replace("_", "."): value for key, value in hard.items()}}
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": spec}
        self.cluster.apply(quota, self.name)
        wanted = set(spec["hard"])
        self.cluster.wait(
            lambda: set(self.cluster.get("resourcequota", "q", self.name).get("status", {}).get("used", {})) == wanted,
            60,
            "the quota to count",
        )

    def limit_range(self, **limits: Any) -> None:
        spec = {"limits": [{"type": "Container", **limits}]}
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": spec}, self.name
        )

    def model(self, **spec: Any) -> None:
        manifest = {
            "apiVersion": "onnx-operator.dev/v1alpha1",
            "kind": "OnnxModel",
            "metadata": {"name": "linear"},
            "spec": {"model": {"uri": self.uri}, **spec},
        }
        self.cluster.apply(manifest, self.name)

    def condition(self, kind: str = "Progressing") -> dict[str, str]:
        found = self.cluster.get("onnx", "linear", self.name).get("status", {}).get("conditions", [])
        return next((c for c in found if c["type"] == kind), {"reason": "", "message": ""})

    def pods(self) -> list[dict[str, Any]]:
        return [p for p in self.cluster.list("pods", self.name) if "deletionTimestamp" not in p["metadata"]]

    def start(self) -> None:
        """Have the pods ready, as a kubelet would: there is none here, and a rollout waits for them."""
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        patch = json.dumps({"status": {"phase": "Running", "conditions": [ready]}})
        for pod in self.pods():
            named = ("pod", pod["metadata"]["name"], "--namespace", self.name)
            self.cluster.kubectl("patch", *named, "--subresource=status", "--type=merge", "--patch", patch)

    def revisions(self) -> int:
        return len(self.cluster.list("controllerrevisions", self.name))

    def containers(self) -> dict[str, dict[str, dict[str, str]]]:
        """Resources of a pod that the namespace took, by container."""
        self.cluster.wait(self.pods, 90, f"a pod: {self.condition()}")
        pod = self.pods()[0]["spec"]
        return {c["name"]: c["resources"] for c in pod["initContainers"] + pod["containers"]}


@pytest.fixture
def home(apiserver: Cluster, namespace: str, store: str, operator: Operator) -> Namespace:
    return Namespace(apiserver, namespace, store)


def test_a_quota_on_cpu_limits_is_met_once_and_for_good(home: Namespace, operator: Operator) -> None:
    home.quota(limits_cpu="4", limits_memory="4Gi", requests_cpu="2", requests_memory="4Gi")
    home.model()
    found = home.containers()
    assert {name: each["limits"]["cpu"] for name, each in found.items()} == {"fetch": "1", "server": "1"}
    assert home.revisions() == 2
    told = home.cluster.get("onnx", "linear", home.name)["status"]["resources"]
    assert told["limits"]["cpu"] == "1"
    assert "limits of cpu" in told["limitsFrom"]

    operator.controller.kill()
    operator.controller.wait()
    operator.controller = operator.start_controller()
    home.cluster.wait(lambda: operator.get("/readyz"), 60, "the controller to lead again")
    home.start()
    home.model(replicas=2)
    home.cluster.wait(lambda: len(home.pods()) == 2, 60, "the second pod")
    assert home.revisions() == 2, "nothing is tried without limits again"

    home.model(replicas=2, session={"intraOpThreads": 2})
    home.cluster.wait(lambda: home.revisions() == 3, 60, "the next revision")
    revisions = home.cluster.list("controllerrevisions", home.name)
    newest = max(revisions, key=lambda r: r["revision"])
    assert newest["data"]["demands"]["limits"] == ["cpu"], "the next revision knows it from the start"


def test_a_quota_that_has_no_room_is_told_and_nothing_is_tried(home: Namespace) -> None:
    home.quota(requests_memory="10Mi")
    home.model()
    home.cluster.wait(lambda: home.condition()["reason"] == "QuotaExceeded", 60, "the quota to be told")
    assert "exceeded quota" in home.condition()["message"]
    assert "no room" in home.condition()["message"]
    assert home.revisions() == 1


def test_a_limit_range_is_met_step_by_step(home: Namespace) -> None:
    home.limit_range(
        min={"cpu": "100m", "memory": "64Mi"},
        max={"cpu": "500m", "memory": "300Mi"},
        maxLimitRequestRatio={"cpu": "2", "memory": "2"},
    )
    home.model()
    for resources in home.containers().values():
        assert resources["limits"]["cpu"] in ("200m", "500m")
        assert resources["requests"]["cpu"] in ("100m", "250m", "500m")


def test_a_default_limit_below_the_request_is_met(home: Namespace) -> None:
    home.limit_range(default={"cpu": "20m"}, defaultRequest={"cpu": "10m"})
    home.model()
    assert home.containers()["server"]["limits"]["cpu"] == "1"


def test_a_model_that_does_not_fit_says_what_the_limit_range_allows(home: Namespace) -> None:
    home.limit_range(max={"memory": "32Mi"})
    home.model()

    def told() -> bool:
        return "LimitRange" in home.condition()["message"]

    home.cluster.wait(told, 60, "the refusal to be told")
    assert home.condition()["reason"] == "QuotaExceeded"
    assert "32Mi" in home.condition()["message"]
    settled = home.revisions()
    assert settled <= 2
    assert not home.pods()


def test_what_the_user_gave_is_kept_although_the_namespace_refuses_it(home: Namespace) -> None:
    home.limit_range(max={"cpu": "500m"})
    home.model(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "2"}})
    home.cluster.wait(lambda: "spec.resources" in home.condition()["message"], 60, "the refusal to be told")
    assert home.revisions() <= 2
    assert not home.pods()
