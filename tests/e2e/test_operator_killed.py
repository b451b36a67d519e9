"""The operator may be killed at any moment: what was asked for happens all the same, and only that."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from tests import models as files
from tests.cluster.cluster import Cluster
from tests.e2e.system import (
    MODEL_LABEL,
    Models,
    conditions,
    expected,
    kill_operator,
    operator_to_be_killed,
    wait_for_operator,
)

X = np.array([[0.5, -1.0, 2.0, 3.0]], np.float32)


@contextmanager
def killed_at_random(cluster: Cluster, seed: int, kills: int) -> Iterator[None]:
    """Kill the operator again and again at random moments, from a thread beside the test."""
    moments = random.Random(seed)
    stop = threading.Event()

    def work() -> None:
        for _ in range(kills):
            if stop.wait(moments.uniform(0.05, 4.0)):
                return
            kill_operator(cluster)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        wait_for_operator(cluster)


def _story(models: Models, seed: int, kills: int) -> None:
    """Create, update, refuse, scale, suspend, resume and delete, with kills at random moments of each."""
    old, new = files.linear(60), files.linear(61)
    cluster = models.cluster
    with killed_at_random(cluster, seed, kills):
        models.apply("story", models.upload(old, "old"))
        models.wait_for("story", ready="True", timeout=240)
    with killed_at_random(cluster, seed + 1, kills):
        models.apply("story", models.upload(new, "new"))
        models.wait_for("story", ready="True", timeout=240)
    np.testing.assert_allclose(models.predict("story", {"x": X})["y"], expected(new, {"x": X})["y"], rtol=1e-5)
    with killed_at_random(cluster, seed + 2, kills):
        models.apply("story", models.upload(files.unknown_operator(), "bad"))
        model = models.wait_for("story", ready="False", reason="UnknownOperator", timeout=240)
    assert conditions(model)["Available"]["status"] == "True"
    with killed_at_random(cluster, seed + 3, kills):
        models.apply("story", models.system.store.uri(f"{models.namespace}/new.onnx"), replicas=2)
        models.wait_for("story", ready="True", where=lambda m: m["status"].get("readyReplicas") == 2, timeout=240)
    with killed_at_random(cluster, seed + 4, kills):
        models.patch("story", {"suspend": True})
        cluster.wait(lambda: not models.pods("story"), 240, "the pods to go", models.namespace)
        models.wait_for("story", reason="Suspended", timeout=240)
    with killed_at_random(cluster, seed + 5, kills):
        models.patch("story", {"suspend": None})
        models.wait_for("story", ready="True", timeout=240)
    # The same content is the same revision: kills made none too many.
    revisions = cluster.list("controllerrevisions", models.namespace, f"{MODEL_LABEL}=story")
    assert len(revisions) == 2
    with killed_at_random(cluster, seed + 6, kills):
        cluster.kubectl("delete", "onnx", "story", "-n", models.namespace)
        kinds = ("deployments", "services", "pods", "poddisruptionbudgets", "controllerrevisions")
        cluster.wait(
            lambda: not any(cluster.list(kind, models.namespace, f"{MODEL_LABEL}=story") for kind in kinds),
            120, "all children to go", models.namespace,
        )  # fmt: skip


def test_every_step_of_a_model_survives_a_killed_operator(models: Models) -> None:
    with operator_to_be_killed():
        _story(models, seed=7, kills=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 600, 100))
def test_every_step_of_a_model_survives_an_operator_killed_again_and_again(models: Models, seed: int) -> None:
    with operator_to_be_killed():
        _story(models, seed=seed, kills=4)


def test_a_model_applied_while_the_operator_is_away_is_served_when_it_is_back(models: Models) -> None:
    uri = models.upload(files.linear(62))
    with operator_to_be_killed():
        kill_operator(models.cluster)
        models.apply("meanwhile", uri)
        models.wait_for("meanwhile", ready="True", timeout=240)
        wait_for_operator(models.cluster)
