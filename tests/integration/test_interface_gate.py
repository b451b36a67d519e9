"""The interface gate on a real API server: an update that breaks callers is held, and the old revision lives on."""

import json
import re

import pytest

from onnx_operator.api import names
from onnx_operator.controller.cluster.kinds import DEPLOYMENT, ONNX_MODEL, SERVICE
from tests import models
from tests.integration.test_calls import Kubelets
from tests.security.desk import Desk, Operator

OTHER = models.linear(features=5)
"""Its input has another size than that of the first version."""


async def serving(desk: Desk, **fields) -> Operator:
    """A first version that was rolled out to its end."""
    await desk.write(**fields)
    operator = await desk.operator()
    await operator.settle(desk.namespace, "m")
    await Kubelets(desk.kube, desk.namespace).run("m")
    await operator.settle(desk.namespace, "m")
    assert (await desk.reasons())["Ready"] == "Complete"
    return operator


def publish(desk: Desk, body: bytes, etag: str = '"v2"') -> None:
    desk.files.body, desk.files.etag = body, etag


async def update(desk: Desk, operator: Operator, body: bytes = OTHER, version: str = "2", **fields) -> None:
    """Ask for another model, at an address of its own."""
    publish(desk, body, f'"{version}"')
    await desk.write(model={"uri": f"{desk.url}/{version}.onnx"}, **fields)
    await operator.settle(desk.namespace, "m")


async def running(desk: Desk) -> str:
    return (await desk.deployment())["spec"]["template"]["metadata"]["labels"][names.LABEL_REVISION]


async def is_held(desk: Desk) -> str:
    """See that the status tells of a held update while the old revision serves; its message."""
    found = await desk.conditions()
    for kind, status in {"Ready": "False", "Progressing": "False", "Stalled": "True", "Available": "True"}.items():
        assert found[kind]["status"] == status, found[kind]
    assert {found[kind]["reason"] for kind in ("Ready", "Progressing", "Stalled")} == {"InterfaceChanged"}
    assert "Reconciling" not in found
    assert found["ModelValid"]["status"] == "True"
    return found["Ready"]["message"]


def patch_of(message: str) -> list[str]:
    """The arguments of the command that the message gives."""
    found = re.search(r"kubectl (patch onnxmodel m) -n \S+ (--type=merge) -p '(.*)'", message)
    return [*found[1].split(), found[2], f"--patch={found[3]}"]


async def test_an_update_that_breaks_callers_is_held_and_told_with_what_differs_and_how_to_go_on(desk):
    operator = await serving(desk)
    before, served = await desk.deployment(), (await desk.kube.get(ONNX_MODEL, desk.namespace, "m"))["status"]
    await update(desk, operator)
    message = await is_held(desk)
    assert "had the shape" in message
    assert (await desk.deployment())["spec"] == before["spec"]
    status = (await desk.kube.get(ONNX_MODEL, desk.namespace, "m"))["status"]
    assert (status["serving"], status["version"]) == (served["serving"], served["version"])
    assert status["interface"] != served["interface"]
    assert status["interface"] in message

    desk.kubectl(*patch_of(message))
    await operator.settle(desk.namespace, "m")
    assert await running(desk) == (await desk.revisions())[-1]["metadata"]["name"]
    assert (await desk.revisions())[-1]["data"]["interface"] == status["interface"]
    assert "Stalled" not in await desk.reasons()


async def test_any_interface_may_be_let_through_in_advance_and_a_wrong_hash_lets_none(desk):
    operator = await serving(desk)
    old = await running(desk)
    await update(desk, operator, rollout={"acceptInterface": "0" * 12})
    assert "which is another" in await is_held(desk)
    assert await running(desk) == old
    await update(desk, operator, rollout={"acceptInterface": "Any"})
    assert await running(desk) != old


async def test_while_an_update_is_held_the_old_revision_scales_heals_and_is_suspended(desk):
    operator = await serving(desk)
    old = await running(desk)
    await update(desk, operator, replicas=3, session={"intraOpThreads": 2})
    await is_held(desk)
    assert ((await desk.deployment())["spec"]["replicas"], await running(desk)) == (3, old)
    server = (await desk.deployment())["spec"]["template"]["spec"]["containers"][0]
    assert "--intra-op-threads=2" not in server["args"], "all that makes pods waits with the update"

    desk.kubectl("delete", "service", "m")
    desk.kubectl("delete", "deployment", "m", "--wait=false")
    await operator.settle(desk.namespace, "m")
    assert await desk.kube.get(SERVICE, desk.namespace, "m")
    assert ((await desk.deployment())["spec"]["replicas"], await running(desk)) == (3, old)

    await update(desk, operator, suspend=True)
    assert ((await desk.deployment())["spec"]["replicas"], await running(desk)) == (0, old)
    assert (await desk.reasons())["Ready"] == "Suspended"
    assert (await desk.reasons())["Progressing"] == "InterfaceChanged"


async def test_a_held_update_stays_held_after_a_restart_and_without_its_status(desk):
    operator = await serving(desk)
    old = await running(desk)
    await update(desk, operator)
    desk.kubectl(
        "patch", "onnxmodel", "m", "--subresource=status", "--type=json", '--patch=[{"op":"remove","path":"/status"}]'
    )
    again = await desk.operator()
    await again.settle(desk.namespace, "m")
    await is_held(desk)
    assert await running(desk) == old
    assert len(await desk.revisions()) == 1


async def test_a_spec_that_is_put_back_is_ready_again_and_nothing_has_moved(desk):
    operator = await serving(desk)
    before = (await desk.deployment())["metadata"]["generation"]
    await update(desk, operator)
    await is_held(desk)
    publish(desk, models.linear(), '"v1"')
    await desk.write()
    await operator.settle(desk.namespace, "m")
    assert (await desk.reasons())["Ready"] == "Complete"
    assert "Stalled" not in await desk.reasons()
    assert (await desk.deployment())["metadata"]["generation"] == before
    assert len(await desk.revisions()) == 1


async def test_an_update_of_the_same_interface_rolls_out(desk):
    operator = await serving(desk)
    old = await running(desk)
    await update(desk, operator, models.linear(7))
    assert await running(desk) != old


async def test_a_version_that_never_served_binds_nobody(desk):
    await desk.write()
    operator = await desk.operator()
    await operator.settle(desk.namespace, "m")
    old = await running(desk)
    await update(desk, operator)
    assert await running(desk) != old


async def test_an_accepted_update_that_never_served_may_be_taken_back_and_another_is_compared_with_what_serves(desk):
    operator = await serving(desk)
    await update(desk, operator, rollout={"acceptInterface": "Any"})
    accepted = await running(desk)
    # Consent that is taken back stops nothing that is under way, and covers nothing that comes.
    await update(desk, operator)
    assert await running(desk) == accepted
    await update(desk, operator, models.linear(features=6), "3")
    assert (await desk.reasons())["Ready"] == "InterfaceChanged"
    assert await running(desk) == accepted
    # The first interface is what callers know: back to it is always free.
    await update(desk, operator, models.linear(9), "4")
    assert (await desk.reasons())["Ready"] != "InterfaceChanged"
    assert await running(desk) == (await desk.revisions())[-1]["metadata"]["name"] != accepted


async def test_what_was_rolled_out_to_its_end_is_noted_once_under_the_seal(desk):
    operator = await serving(desk)
    (first,) = await desk.revisions()
    assert first["metadata"]["annotations"][f"{names.NOTE_PREFIX}good"] == "true"
    await operator.settle(desk.namespace, "m")
    await (await desk.operator()).settle(desk.namespace, "m")
    (again,) = await desk.revisions()
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert "NotSealed" not in (await desk.reasons()).values()


@pytest.mark.parametrize("value", ["any", "ABCDEF012345", "0123"])
async def test_what_is_no_hash_is_refused_at_once(desk, value):
    await desk.write()
    patch = json.dumps({"spec": {"rollout": {"acceptInterface": value}}})
    refused = desk.cluster.run_kubectl(
        "patch", "onnxmodel", "m", "--type=merge", f"--patch={patch}", f"--namespace={desk.namespace}", check=False
    )
    assert refused.returncode != 0
    assert "spec.rollout.acceptInterface" in refused.stderr


async def test_a_deployment_that_others_change_while_an_update_is_held_is_put_right(desk):
    operator = await serving(desk)
    await update(desk, operator)
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "evil"}]}}}}
    desk.kubectl("patch", "deployment", "m", "--field-manager=kubectl-edit", f"--patch={json.dumps(patch)}")
    await operator.settle(desk.namespace, "m")
    found = await desk.kube.get(DEPLOYMENT, desk.namespace, "m")
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "localhost/onnx-server:1"
    await is_held(desk)
