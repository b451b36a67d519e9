"""GPU models land on their pool's nodes, and only there; a fallback to the CPU is told."""

from collections.abc import Iterator

import pytest

from tests import models as files
from tests.cluster.cluster import Cluster
from tests.e2e.system import Models, conditions


@pytest.fixture(scope="module")
def gpu_nodes(cluster: Cluster) -> Iterator[None]:
    """Two fake nodes of each of two pools."""
    if not cluster.is_local:
        pytest.skip("nodes can only be faked in the local cluster")
    for pool in ("t4", "a100"):
        cluster.fake_nodes(
            2, pool=pool, gpus=8, labels={"accelerator": pool}, taints=["nvidia.com/gpu=present:NoSchedule"]
        )
    yield
    for pool in ("t4", "a100"):
        cluster.remove_fake_nodes(pool)


pytestmark = pytest.mark.xdist_group("gpu")


def _nodes(models: Models, name: str) -> set[str]:
    return {p["spec"]["nodeName"].rsplit("-", 1)[0] for p in models.pods(name)}


@pytest.mark.usefixtures("gpu_nodes")
def test_gpu_models_land_on_the_nodes_of_their_pool(models: Models) -> None:
    uri = models.upload(files.linear(50))
    models.apply("any", uri, runtime="GPU", replicas=2)
    models.apply("big", uri, runtime="GPU", nodePool="a100", replicas=2)
    for name in ("any", "big"):
        models.cluster.wait(
            lambda name=name: len([p for p in models.pods(name) if p["spec"].get("nodeName")]) == 2,
            60, f"the pods of {name} to be placed", models.namespace,
        )  # fmt: skip
    # The smallest pool that fits, and the one that was asked for.
    assert _nodes(models, "any") == {"t4"}
    assert _nodes(models, "big") == {"a100"}
    pod = models.pods("big")[0]["spec"]
    server = next(c for c in pod["containers"] if c["name"] == "server")
    assert server["resources"]["limits"]["nvidia.com/gpu"] == "1"
    models.wait_for("any", ready="True")
    model = models.wait_for("big", ready="True")
    # Fake pods have no log to report in.
    assert conditions(model)["Accelerated"]["reason"] == "NotReported"


@pytest.mark.usefixtures("gpu_nodes")
def test_cpu_models_stay_off_gpu_nodes_even_where_they_would_be_tolerated(models: Models) -> None:
    template = {"spec": {"tolerations": [{"operator": "Exists"}]}}
    models.apply("cpu", models.upload(files.linear(51)), replicas=3, podTemplate=template)
    models.wait_ready("cpu")
    assert _nodes(models, "cpu").isdisjoint({"t4", "a100"})


@pytest.mark.usefixtures("gpu_nodes")
def test_a_pool_without_room_is_said(models: Models) -> None:
    models.apply("many", models.upload(files.linear(52)), runtime="GPU", nodePool="t4", replicas=30)
    model = models.wait_for("many", ready="False", reason="Unschedulable")
    assert "nvidia.com/gpu" in conditions(model)["Progressing"]["message"]


def test_no_pool_that_fits_is_a_clear_refusal(models: Models) -> None:
    models.apply("none", models.upload(files.linear(53)), runtime="GPU", nodePool="h100")
    model = models.wait_for("none", ready="False", reason="NoMatchingPool")
    message = conditions(model)["ModelValid"]["message"]
    assert "h100" in message
    assert "t4" in message
    assert not models.cluster.list("pods", models.namespace)


def test_a_gpu_that_onnxruntime_does_not_find_is_told(models: Models) -> None:
    models.cluster.patch_node_gpu(resource="example.com/gpu", count=1)
    try:
        models.apply("fallback", models.upload(files.linear(54)), runtime="GPU", nodePool="real")
        model = models.wait_for(
            "fallback",
            ready="True",
            where=lambda m: conditions(m).get("Accelerated", {}).get("reason") == "FallbackToCPU",
        )
        assert conditions(model)["Accelerated"]["status"] == "False"
        assert model["status"]["started"]["executionProviders"] == ["CPUExecutionProvider"]
        assert models.pods("fallback")[0]["spec"]["nodeName"] == "node1"
        models.cluster.kubectl("delete", "onnx", "fallback", "-n", models.namespace)
    finally:
        models.cluster.patch_node_gpu(resource="example.com/gpu", count=0)
