"""A hundred models at once; and afterwards, silence."""

import time
from collections import Counter

import pytest

from tests import models as files
from tests.cluster.cluster import OPERATOR_NAMESPACE, Cluster
from tests.e2e.system import Models, conditions, kill_operator, operator_to_be_killed, wait_for_operator

SILENCE_SECONDS = 60


def _writes(cluster: Cluster, since: float, namespace: str | None) -> Counter[str]:
    """Writes of the operator, less those of its Lease; a dry run writes nothing."""
    user = f"system:serviceaccount:{OPERATOR_NAMESPACE}:"
    found = cluster.audit_events(since, username=user, writes=True, namespace=namespace)
    return Counter(
        f"{e.verb} {e.resource}/{e.subresource} {e.namespace}/{e.name}"
        for e in found
        if e.resource != "leases" and "dryRun=All" not in e.uri
    )


def _fleet(models: Models, real: int, fake: int, alone: bool) -> None:
    cluster = models.cluster
    if cluster.audit_log is None:
        pytest.skip("the audit log of another cluster cannot be read")
    pool = "fleet"
    cluster.fake_nodes(
        max(1, -(-fake // 60)),
        pool=pool,
        gpus=64,
        labels={"accelerator": "fleet"},
        taints=["nvidia.com/gpu=present:NoSchedule"],
    )
    try:
        uris = [models.upload(files.linear(1000 + i), f"fleet-{i}") for i in range(4)]
        bad = [
            models.upload(content, f"bad-{i}")
            for i, content in enumerate((files.unknown_operator(), files.newer_opset()))
        ]
        small = {"requests": {"cpu": "5m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}}
        manifests = [models.manifest(f"real-{i}", uris[i % 4], resources=small) for i in range(real)]
        manifests += [
            models.manifest(f"fake-{i}", uris[i % 4], runtime="GPU", nodePool="fleet", resources=small)
            for i in range(fake)
        ]
        manifests += [models.manifest(f"bad-{i}", bad[i % 2]) for i in range(100 - real - fake)]
        started = time.monotonic()
        cluster.apply(manifests)

        def settled() -> bool:
            found = cluster.list("onnxmodels.onnx-operator.dev", models.namespace)
            states = Counter()
            for model in found:
                ready = conditions(model)["Ready"]
                states[f"{ready['status']} {ready['reason']}"] += 1
            done = states["True Complete"] == real + fake
            refused = states["False UnknownOperator"] + states["False UnsupportedOpset"] == 100 - real - fake
            assert done, states
            assert refused, states
            return True

        cluster.wait(settled, 900, "all models to be ready or refused", interval=1)
        print(
            f"{real} on the real node, {fake} on fake ones, rest refused: settled in {time.monotonic() - started:.0f} s"
        )

        namespace = None if alone else models.namespace
        # Facts of the last starts may still be read and told.
        cluster.wait(
            lambda: not _writes(cluster, time.time() - 10, namespace), 120, "the operator to be done", interval=5
        )
        since = time.time()
        time.sleep(SILENCE_SECONDS)
        assert not _writes(cluster, since, namespace)

        since = time.time()
        with operator_to_be_killed():
            kill_operator(cluster)
            wait_for_operator(cluster)
        time.sleep(SILENCE_SECONDS / 2)
        assert not _writes(cluster, since, namespace)
        reads = cluster.audit_events(
            since, username=f"system:serviceaccount:{OPERATOR_NAMESPACE}:", resource="onnxmodels"
        )
        assert reads, "the operator has not looked at the models after its restart"
    finally:
        cluster.remove_fake_nodes(pool)


def test_a_hundred_models_at_once_and_then_no_write_also_after_a_restart(models: Models) -> None:
    _fleet(models, real=10, fake=80, alone=False)


@pytest.mark.soak
def test_a_hundred_models_on_the_real_node_and_then_no_write_at_all(models: Models) -> None:
    _fleet(models, real=90, fake=0, alone=True)
