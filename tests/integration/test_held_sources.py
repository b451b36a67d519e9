"""Bytes that changed at the source while the spec did not: held where somebody said so, with the real API server."""

import asyncio
import json

import pytest

from onnx_operator.api import names
from onnx_operator.controller.cluster.kinds import ONNX_MODEL, POD
from tests import models
from tests.integration.test_rollback import BAD, LOAD_FAILED, Cluster, fails, holds
from tests.integration.test_rollback import look as settle
from tests.security.desk import Desk, Operator

pytestmark = pytest.mark.usefixtures("crd")

HOLD = {"model": {"onChange": "Hold"}}


async def starts_anew(desk: Desk, cluster: Cluster, etag: str = '"v2"') -> str:
    """A pod starts where the source has changed, as after a drain, and says so."""
    name = await cluster.pod(
        {"state": {"waiting": {"reason": "PodInitializing"}}, "ready": False, "restartCount": 0},
        await desk.deployment(),
    )
    told = {
        "phase": "Downloading",
        "reason": "SourceChanged",
        "message": "the file changed",
        "observed": {"kind": "Conditional", "value": etag},
    }
    ended = {"terminated": {"exitCode": 1, "message": json.dumps(told)}}
    fetch = {"name": "fetch", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": ended}
    path = POD.path(desk.namespace, name, "status")
    await desk.kube._object(
        "PATCH", path, None, {"status": {"initContainerStatuses": [fetch]}}, "application/merge-patch+json"
    )
    return name


def change(desk: Desk, seed: int = 7, etag: str = '"v2"') -> None:
    desk.files.body, desk.files.etag = models.linear(seed), etag


async def look(desk: Desk, operator: Operator) -> dict[str, dict]:
    """Look until the source has been read again, where that is under way."""
    async with asyncio.timeout(30):
        while (found := await settle(desk, operator))["Progressing"]["message"].endswith("inspecting"):
            await asyncio.sleep(0.2)
    return found


async def serving(desk: Desk, settings: dict | None = None, **spec) -> tuple[Operator, Cluster, str]:
    await desk.write(**spec)
    operator, cluster = await desk.operator(**(settings or {})), Cluster(desk)
    await operator.settle(desk.namespace, "m")
    await cluster.roll()
    assert (await look(desk, operator))["Ready"]["reason"] == "Complete"
    return operator, cluster, await holds(desk)


async def test_where_nobody_says_hold_other_bytes_are_rolled_out(desk):
    operator, cluster, first = await serving(desk)
    change(desk)
    await starts_anew(desk, cluster)
    await look(desk, operator)
    assert await holds(desk) != first


async def test_held_bytes_reach_no_pod_until_somebody_asks_for_them(desk):
    operator, cluster, first = await serving(desk, **HOLD)
    change(desk)
    await starts_anew(desk, cluster)
    found = await look(desk, operator)
    assert await holds(desk) == first
    assert len(await desk.revisions()) == 1
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "SourceHeld")
    assert found["Available"]["status"] == "True"
    assert "Stalled" in found
    # What serves scales; what would make other pods waits too.
    await desk.write(**HOLD, replicas=2, session={"intraOpThreads": 2})
    await look(desk, operator)
    assert (await holds(desk), (await desk.deployment())["spec"]["replicas"]) == (first, 2)
    assert (await desk.reasons())["Ready"] == "SourceHeld"
    # Another life knows it as well, without a status too.
    path = ONNX_MODEL.path(desk.namespace, "m", "status")
    for body in ({}, {"status": None}):
        await desk.kube._object("PATCH", path, None, body, "application/merge-patch+json")
        await look(desk, await desk.operator())
        assert await holds(desk) == first

    desk.kubectl("annotate", "onnxmodel", "m", f"{names.ANNOTATION_REFRESH}=reviewed")
    await look(desk, operator)
    assert await holds(desk) != first
    assert (await desk.reasons())["Ready"] != "SourceHeld"


async def test_the_digest_of_the_new_bytes_is_consent_and_the_message_gives_it(desk):
    operator, cluster, first = await serving(desk, **HOLD)
    change(desk)
    await starts_anew(desk, cluster)
    message = (await look(desk, operator))["Ready"]["message"]
    digest = message.split("spec.model.sha256: ")[1][:64]
    await desk.write(model={"onChange": "Hold", "sha256": digest})
    await look(desk, operator)
    assert await holds(desk) != first


async def test_the_same_bytes_uploaded_again_are_nothing_to_hold(desk):
    operator, cluster, first = await serving(desk, **HOLD)
    desk.files.etag = '"v2"'
    await starts_anew(desk, cluster)
    await look(desk, operator)
    assert (await desk.reasons())["Ready"] != "SourceHeld"
    assert await holds(desk) != first, "pods are pinned to the new ETag, or none could start"


async def test_the_settings_hold_for_namespaces_and_a_model_may_follow_all_the_same(desk):
    settings = {"holdSourceChanges": [f"{desk.namespace[:-2]}*"]}
    operator, cluster, first = await serving(desk, settings)
    change(desk)
    await starts_anew(desk, cluster)
    assert (await look(desk, operator))["Ready"]["reason"] == "SourceHeld"
    assert await holds(desk) == first
    await desk.write(model={"onChange": "Follow"})
    await look(desk, operator)
    assert await holds(desk) != first


async def test_held_bytes_that_are_no_model_are_refused_as_ever(desk):
    operator, cluster, first = await serving(desk, **HOLD)
    desk.files.body, desk.files.etag = b"by now it is no model", '"v2"'
    await starts_anew(desk, cluster)
    assert (await look(desk, operator))["Ready"]["reason"] == "NotOnnx"
    assert await holds(desk) == first


async def test_what_was_taken_back_does_not_come_back_because_bytes_are_held(desk):
    operator, cluster, good = await serving(desk, **HOLD)
    update = await fails(desk, operator, cluster, LOAD_FAILED, **HOLD, **BAD)
    assert (update != good, await holds(desk)) == (True, good)
    change(desk)
    path = ONNX_MODEL.path(desk.namespace, "m", "status")
    await desk.kube._object("PATCH", path, None, {"status": None}, "application/merge-patch+json")
    await look(desk, await desk.operator())
    assert await holds(desk) == good
