"""Pods take what the model needs: under quotas and limit ranges, on small and large nodes, with an autoscaler."""

from __future__ import annotations

import base64
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import models as files
from tests.cores import CORES, compiler, many_cores
from tests.e2e.system import REVISION_LABEL, Models

INPUTS = {"x": np.array([[1, 2, 3, 4]], np.float32)}


def _apply(models: Models, kind: str, name: str, **spec: Any) -> None:
    models.cluster.apply({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec}, models.namespace)


def _quota(models: Models, **hard: str) -> None:
    named = {name.replace("_", "."): amount for name, amount in hard.items()}
    _apply(models, "ResourceQuota", "compute", hard=named)

    def counted() -> bool:
        status = models.cluster.get("resourcequota", "compute", models.namespace).get("status", {})
        return set(status.get("used", {})) == set(named)

    models.cluster.wait(counted, 60, "the quota to count", models.namespace)


def _serve(models: Models, name: str, **spec: Any) -> dict[str, Any]:
    """The smallest manifest, until it serves and has told what its pods take."""
    models.apply(name, models.upload(files.linear(), name), small=False, **spec)
    model = models.wait_for(name, ready="True", where=lambda m: m["status"]["resources"].get("threads") is not None)
    assert models.predict(name, INPUTS)["y"].shape == (1, 3)
    resources: dict[str, Any] = model["status"]["resources"]
    return resources


def _containers(models: Models, name: str) -> dict[str, dict[str, dict[str, str]]]:
    pod = models.pods(name)[0]["spec"]
    return {c["name"]: c["resources"] for c in [*pod["initContainers"], *pod["containers"]]}


def _in_pod(models: Models, name: str, program: str) -> str:
    pod = models.pods(name)[0]["metadata"]["name"]
    told = models.cluster.kubectl(
        "exec", pod, "-n", models.namespace, "--container=server", "--", "python3", "-c", program
    )
    return told.strip()


_THREADS = "import os; print(len(os.listdir('/proc/1/task')))"


def test_a_namespace_whose_quota_wants_limits_serves_from_the_smallest_manifest(models: Models) -> None:
    _quota(models, limits_cpu="4", limits_memory="4Gi", requests_cpu="2", requests_memory="4Gi")
    told = _serve(models, "limited")
    assert told["limits"]["cpu"] == "1"
    assert "limits of cpu" in told["limitsFrom"]
    assert (told["threads"], told["threadsFrom"]) == (1, "the CPU limit, rounded up")
    assert all("cpu" in each["limits"] for each in _containers(models, "limited").values())

    pods = [p["metadata"]["uid"] for p in models.pods("limited")]
    models.patch("limited", {"replicas": 2})
    models.wait_for("limited", ready="True", where=lambda m: m["status"]["readyReplicas"] == 2)
    assert set(pods) <= {p["metadata"]["uid"] for p in models.pods("limited")}, "what ran goes on"


def test_a_namespace_whose_quota_wants_memory_requests_serves_at_once(models: Models) -> None:
    _quota(models, requests_memory="4Gi")
    told = _serve(models, "asked")
    assert "cpu" not in told["limits"]
    assert len(models.cluster.list("controllerrevisions", models.namespace)) == 1


def test_a_namespace_with_a_limit_range_serves_within_it(models: Models) -> None:
    limits = {
        "type": "Container",
        "min": {"cpu": "100m", "memory": "64Mi"},
        "max": {"cpu": "500m", "memory": "1Gi"},
        "maxLimitRequestRatio": {"cpu": "2"},
    }
    _apply(models, "LimitRange", "bounds", limits=[limits])
    told = _serve(models, "ranged")
    assert told["limits"]["cpu"] == "500m"
    assert told["requests"]["cpu"] == "250m"
    assert told["threads"] == 1


def test_on_a_node_of_few_cores_the_smallest_manifest_serves_with_few_threads(models: Models) -> None:
    told = _serve(models, "small-node")
    assert told["requests"]["cpu"] == "50m"
    assert told["cpuFrom"]
    assert (told["threads"], told["threadsFrom"]) == (1, "the CPU request, rounded up")
    assert int(_in_pod(models, "small-node", _THREADS)) < 20


@pytest.mark.skipif(compiler() is None, reason="no C compiler to fake cores with")
def test_on_a_node_of_96_cores_a_pod_makes_no_more_threads_than_it_asks_for(models: Models, tmp_path: Path) -> None:
    library = base64.b64encode(many_cores(tmp_path).read_bytes()).decode()
    models.cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cores"}, "binaryData": {"cores.so": library}},
        models.namespace,
    )
    server = {
        "name": "server",
        "env": [{"name": "LD_PRELOAD", "value": "/cores/cores.so"}],
        "volumeMounts": [{"name": "cores", "mountPath": "/cores"}],
    }
    volume = {"name": "cores", "configMap": {"name": "cores"}}
    told = _serve(models, "large-node", podTemplate={"spec": {"containers": [server], "volumes": [volume]}})
    assert int(_in_pod(models, "large-node", "import os; print(os.cpu_count())")) == CORES
    assert told["threads"] == 1
    # gRPC keeps 16 that wait, whatever it is told.
    assert int(_in_pod(models, "large-node", _THREADS)) < 32


def test_what_a_pod_measured_counts_with_the_next_revision_and_restarts_nothing(models: Models) -> None:
    uri = models.upload(files.linear(features=4000, outputs=4000), "measured")
    models.apply("measured", uri, small=False)
    model = models.wait_settled("measured")
    assert "estimated from" in model["status"]["resources"]["cpuFrom"]
    measured = model["status"]["started"]["requestCpuMicroseconds"]
    before = {p["metadata"]["labels"][REVISION_LABEL] for p in models.pods("measured")}

    models.patch("measured", {"model": {"version": "2"}})
    model = models.wait_for("measured", ready="True", where=lambda m: "measured" in m["status"]["resources"]["cpuFrom"])
    after = {p["metadata"]["labels"][REVISION_LABEL] for p in models.pods("measured")}
    assert after != before
    asked = model["status"]["resources"]["requests"]["cpu"]
    millis = int(asked[:-1]) if asked.endswith("m") else 1000 * int(asked)
    assert abs(millis - min(1000, max(50, measured * 10 / 1000))) <= 12


@contextmanager
def _asking(models: Models, name: str, callers: int = 4) -> Iterator[None]:
    """Callers that ask some hundred times a second together, for as long as the context lasts."""
    stop = threading.Event()
    # Once: what looks it up takes more than a hundred requests do.
    address = models.cluster.get("service", name, models.namespace)["spec"]["clusterIP"]
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    request = urllib.request.Request(
        f"http://{address}/v2/models/{name}/infer",
        data=json.dumps({"inputs": [tensor]}).encode(),
        headers={"Content-Type": "application/json"},
    )

    def ask() -> None:
        while not stop.wait(0.005):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    answer.read()
            except OSError:
                stop.wait(0.5)

    threads = [threading.Thread(target=ask) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_an_autoscaler_on_cpu_scales_a_busy_model_and_leaves_an_idle_one_alone(models: Models) -> None:
    if not models.cluster.is_local:
        pytest.skip("callers reach no Service of another cluster")
    for name in ("busy", "idle"):
        _serve(models, name)
        models.cluster.kubectl("autoscale", f"onnx/{name}", "-n", models.namespace, "--min=1", "--max=3", "--cpu=70%")

    def replicas(name: str) -> int:
        return int(models.get(name)["spec"]["replicas"])

    def has_metrics(name: str) -> bool:
        status = models.cluster.get("hpa", name, models.namespace).get("status", {})
        return bool(status.get("currentMetrics"))

    models.cluster.wait(lambda: has_metrics("idle"), 180, "the autoscaler to read metrics", models.namespace, 1)
    with _asking(models, "busy"):
        models.cluster.wait(lambda: replicas("busy") > 1, 240, "the busy model to be scaled", models.namespace, 1)
    assert replicas("idle") == 1
    models.wait_ready("busy")
