"""What warmed a version up is kept where no tenant writes it: in the sealed notes of its revision."""

import json
from typing import Any

import pytest

from onnx_operator.api import names
from onnx_operator.api.contract import WarmUpFacts
from onnx_operator.api.onnxmodel import Started
from onnx_operator.api.warm_up import WarmUpInputs
from onnx_operator.controller.cluster.kinds import DEPLOYMENT, ONNX_MODEL
from onnx_operator.controller.revision.revisions import NOTE_WARMED
from onnx_operator.controller.rollout.history import history
from tests import models
from tests.security.desk import Desk, Operator

INPUTS = WarmUpInputs(shapes={"x": [1, 4]}, values={"x": [0]})


async def first_version(desk: Desk) -> Operator:
    await desk.write()
    operator = await desk.operator()
    await operator.settle(desk.namespace, "m")
    return operator


async def tell(desk: Desk, operator: Operator, facts: WarmUpFacts) -> dict[str, Any]:
    """Keep what a pod told, as the operator does once it has read its log; the stored revision."""
    revising = operator.reconciler._revising
    model = await desk.kube.get(ONNX_MODEL, desk.namespace, "m")
    assert model
    (stored,) = await desk.revisions()
    (revision,) = history([r for r in [revising.reader(model)(stored)] if r], "").own
    await revising.started(model, revision, facts)
    (stored,) = await desk.revisions()
    return stored


async def update(desk: Desk, operator: Operator) -> list[str]:
    """The server's arguments, once other bytes of the model are rolled out."""
    desk.files.body, desk.files.etag = models.linear(1), '"v2"'
    await desk.write(model={"uri": f"{desk.url}/other.onnx"})
    await operator.settle(desk.namespace, "m")
    deployment = await desk.kube.get(DEPLOYMENT, desk.namespace, "m")
    assert deployment
    arguments: list[str] = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert any("other.onnx" in json.dumps(r["data"]["spec"]) for r in await desk.revisions())
    return [each for each in arguments if "kept" in each or "require" in each]


async def serves(desk: Desk) -> None:
    """The status as it is while the one revision takes traffic."""
    (revision,) = await desk.revisions()
    serving = {"serving": {"revision": revision["metadata"]["name"], "digest": ""}}
    desk.kubectl("patch", "onnx", "m", "--subresource=status", "--type=merge", "-p", json.dumps({"status": serving}))


async def test_an_update_is_told_what_warmed_the_version_before(desk):
    operator = await first_version(desk)
    stored = await tell(desk, operator, WarmUpFacts(warmed=True, inputs=INPUTS))
    assert json.loads(stored["metadata"]["annotations"][names.NOTE_PREFIX + NOTE_WARMED])["warmed"] is True
    before = await desk.deployment()
    await operator.settle(desk.namespace, "m")
    assert (await desk.deployment())["metadata"]["generation"] == before["metadata"]["generation"], "no pod restarts"
    assert await update(desk, operator) == [f"--kept-inputs={INPUTS.to_text()}", "--require-warm-up"]


async def test_going_back_to_a_version_keeps_what_warmed_it_up(desk):
    operator = await first_version(desk)
    first = await tell(desk, operator, WarmUpFacts(warmed=True, inputs=INPUTS))
    await update(desk, operator)
    desk.files.body, desk.files.etag = models.linear(), '"v1"'
    await desk.write()
    await operator.settle(desk.namespace, "m")
    last = (await desk.revisions())[-1]
    assert last["metadata"]["name"] == first["metadata"]["name"]
    assert last["revision"] == 3
    note = names.NOTE_PREFIX + NOTE_WARMED
    assert last["metadata"]["annotations"][note] == first["metadata"]["annotations"][note]
    known = operator.reconciler._revising.reader(await desk.kube.get(ONNX_MODEL, desk.namespace, "m"))(last)
    assert known
    assert known.trust.holds
    assert await update(desk, operator) == [f"--kept-inputs={INPUTS.to_text()}", "--require-warm-up"]


async def test_a_version_that_never_took_traffic_is_no_reason_to_hold_the_next(desk):
    assert await update(desk, await first_version(desk)) == []


async def test_an_update_of_what_serves_must_be_warm_even_if_nobody_knows_how_that_was(desk):
    """Such as a version that an older operator rolled out."""
    operator = await first_version(desk)
    await serves(desk)
    assert await update(desk, operator) == ["--require-warm-up"]


async def test_an_operator_that_starts_again_does_not_rewrite_what_a_server_told_that_does_not_tell_of_warmth(
    desk, monkeypatch
):
    """Such as one of an older version, or of a tenant's own: each start of the operator would cost a write a model."""
    operator = await first_version(desk)
    (stored,) = await desk.revisions()
    name = stored["metadata"]["name"]

    async def told(operator: Operator, **facts: Any) -> dict[str, Any]:
        started = Started(revision=name, execution_providers=["CPUExecutionProvider"], **facts)
        monkeypatch.setattr(operator.reconciler._statuses._facts, "poll", lambda *_: started)
        await operator.settle(desk.namespace, "m")
        return (await desk.kube.get(ONNX_MODEL, desk.namespace, "m"))["status"]["started"]

    assert (await told(operator, resident_memory_bytes=100))["residentMemoryBytes"] == 100
    again = await desk.operator()
    assert (await told(again, resident_memory_bytes=200))["residentMemoryBytes"] == 100
    assert (await told(again, resident_memory_bytes=300, warmed=True))["residentMemoryBytes"] == 300, "that is news"


FORGED = [
    WarmUpInputs(shapes={"x": [1 << 20, 4]}).to_text(),
    '{"warmed": false}',
    json.dumps({"warmed": True, "inputs": {"shapes": {"x": [1, 4]}, "values": {"x": [0]}, "texts": {"x": ["$(A)"]}}}),
]


@pytest.mark.parametrize("note", FORGED)
async def test_inputs_that_a_tenant_wrote_reach_no_pod(desk, note):
    operator = await first_version(desk)
    stored = await tell(desk, operator, WarmUpFacts(warmed=True, inputs=INPUTS))
    await serves(desk)
    patch = {"metadata": {"annotations": {names.NOTE_PREFIX + NOTE_WARMED: note}}}
    name = stored["metadata"]["name"]
    desk.kubectl("patch", "controllerrevision", name, "--type=merge", "-p", json.dumps(patch))
    assert await update(desk, operator) == ["--require-warm-up"], "nor does it make the update a first version"
