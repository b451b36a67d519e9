"""Models that are left alone: paused ones, those of another installation, and those that were deleted alone."""

import asyncio
import json

import pytest

from onnx_operator.api import names
from onnx_operator.controller.cluster.kinds import DEPLOYMENT, EVENT, ONNX_MODEL, SERVICE
from onnx_operator.controller.revision.revisions import HISTORY
from onnx_operator.controller.settings.selector import ModelSelector
from tests.integration.sights import caught_up
from tests.security.desk import Desk, Operator

EVIL = {"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "evil"}]}}}}


async def rolled_out(desk: Desk, **fields) -> Operator:
    await desk.write(**fields)
    operator = await desk.operator()
    await operator.settle(desk.namespace, "m")
    return operator


async def look(desk: Desk, operator: Operator, name: str = "m") -> None:
    """One look, whether or not it tells anything."""
    await caught_up(operator.kube, operator.store, desk.namespace)
    await operator.reconciler.reconcile((desk.namespace, name))


# --- paused -----------------------------------------------------------------------------------------------------------


def pause(desk: Desk, value: str = "true") -> None:
    desk.kubectl("annotate", "onnxmodel", "m", f"{names.ANNOTATION_PAUSED}={value}", "--overwrite")


async def test_nothing_of_a_paused_model_is_changed_and_its_status_tells(desk, apiserver):
    operator = await rolled_out(desk)
    pause(desk)
    desk.kubectl("patch", "deployment", "m", "--field-manager=kubectl-edit", f"--patch={json.dumps(EVIL)}")
    desk.kubectl("delete", "service", "m")
    await desk.write(session={"intraOpThreads": 2}, replicas=3)
    before = await desk.deployment()
    events = await desk.kube.list(EVENT, desk.namespace, {})
    for _ in range(3):
        await operator.settle(desk.namespace, "m")

    assert await desk.deployment() == before
    assert await desk.kube.get(SERVICE, desk.namespace, "m") is None
    assert len(await desk.revisions()) == 1
    assert len(await desk.kube.list(EVENT, desk.namespace, {})) == len(events)
    conditions = await desk.conditions()
    assert conditions["Progressing"]["reason"] == "Paused"
    assert names.ANNOTATION_PAUSED in conditions["Progressing"]["message"]
    assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == ("False", "Paused")

    desk.kubectl("annotate", "onnxmodel", "m", f"{names.ANNOTATION_PAUSED}-")
    await operator.settle(desk.namespace, "m")
    after = await desk.deployment()
    server = after["spec"]["template"]["spec"]["containers"][0]
    assert (server["image"], after["spec"]["replicas"]) == ("localhost/onnx-server:1", 3)
    assert "--intra-op-threads=2" in server["args"]
    assert await desk.kube.get(SERVICE, desk.namespace, "m")
    assert (await desk.reasons())["Progressing"] != "Paused"


async def test_of_a_model_that_is_paused_from_the_start_nothing_is_made(desk):
    await desk.write()
    pause(desk)
    operator = await desk.operator()
    await operator.settle(desk.namespace, "m")
    assert await desk.deployment() is None
    assert await desk.revisions() == []
    assert (await desk.reasons())["Ready"] == "Paused"


async def test_the_value_false_pauses_nothing(desk):
    await desk.write()
    pause(desk, "false")
    operator = await desk.operator()
    await operator.settle(desk.namespace, "m")
    assert await desk.deployment()


# --- two installations ------------------------------------------------------------------------------------------------

BLUE = {"modelSelector": {"matchLabels": {"operator": "blue"}}}
OTHERS = {"modelSelector": {"matchExpressions": [{"key": "operator", "operator": "NotIn", "values": ["blue"]}]}}


async def test_two_installations_share_a_cluster_by_the_labels_of_models(desk, apiserver):
    home = f"{desk.namespace}-b"
    apiserver.kubectl("create", "namespace", home)
    blue, others = await desk.operator(**BLUE), await desk.operator(home=home, **OTHERS)
    await desk.write()
    await look(desk, blue)
    assert await desk.deployment() is None
    await others.settle(desk.namespace, "m")
    before = await desk.deployment()
    assert before

    # It leaves one, and comes to the other; the one it left does nothing, whatever it asks for.
    desk.kubectl("label", "onnxmodel", "m", "operator=blue")
    await desk.write(session={"intraOpThreads": 2})
    status = await desk.conditions()
    await look(desk, others)
    assert await desk.deployment() == before
    assert await desk.conditions() == status
    await blue.settle(desk.namespace, "m")
    args = (await desk.deployment())["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--intra-op-threads=2" in args


async def test_a_model_that_leaves_in_the_middle_of_a_look_is_left_alone(desk):
    blue = await desk.operator(**BLUE)
    await desk.write()
    desk.kubectl("label", "onnxmodel", "m", "operator=blue")
    await caught_up(blue.kube, blue.store, desk.namespace)
    model = blue.store.find(ONNX_MODEL, desk.namespace, "m")
    assert model
    desk.kubectl("label", "onnxmodel", "m", "operator=green", "--overwrite")
    with pytest.raises(Exception, match="another installation"):
        await blue.reconciler._sight.confirm(model)


@pytest.mark.parametrize(
    "expression",
    [
        {"key": "a", "operator": "In", "values": ["1", "2"]},
        {"key": "a", "operator": "NotIn", "values": ["1"]},
        {"key": "a", "operator": "Exists"},
        {"key": "a", "operator": "DoesNotExist"},
    ],
    ids=lambda expression: expression["operator"],
)
async def test_a_selector_means_to_the_operator_what_it_means_to_the_api_server(desk, expression):
    labels = {"none": {}, "one": {"a": "1"}, "two": {"a": "2"}, "empty": {"a": ""}, "other": {"b": "1"}}
    for name, given in labels.items():
        await desk.write(name)
        for key, value in given.items():
            desk.kubectl("label", "onnxmodel", name, f"{key}={value}")
    selector = ModelSelector(match_expressions=[expression])
    seen: list[str] = []
    await desk.kube.scan(ONNX_MODEL, desk.namespace, selector, lambda item: seen.append(item["metadata"]["name"]))
    assert sorted(seen) == sorted(name for name, given in labels.items() if selector.matches(given))


# --- deleted alone ----------------------------------------------------------------------------------------------------


async def delete_alone(desk: Desk) -> None:
    """Delete the model and leave its children, as the garbage collector does, which does not run here."""
    desk.kubectl("delete", "onnxmodel", "m", "--cascade=orphan", "--wait=false")
    loose = '--patch={"metadata":{"ownerReferences":null}}'
    for revision in await desk.revisions():
        desk.kubectl("patch", "controllerrevision", revision["metadata"]["name"], "--type=merge", loose)
    for kind in ("deployment", "service", "poddisruptionbudget"):
        desk.kubectl("patch", kind, "m", "--type=merge", loose)
    desk.kubectl("patch", "onnxmodel", "m", "--type=merge", '--patch={"metadata":{"finalizers":null}}')


async def test_revisions_that_an_earlier_model_of_the_name_left_belong_to_the_next(desk):
    operator = await rolled_out(desk)
    for threads in range(2, HISTORY + 4):
        await desk.write(session={"intraOpThreads": threads})
        await operator.settle(desk.namespace, "m")
    before, kept = await desk.deployment(), await desk.revisions()
    assert len(kept) == HISTORY + 1
    await delete_alone(desk)

    model = await desk.write(session={"intraOpThreads": HISTORY + 3})
    for again in (operator, await desk.operator()):
        await again.settle(desk.namespace, "m")
        found = await desk.revisions()
        owners = {reference["uid"] for r in found for reference in r["metadata"]["ownerReferences"]}
        assert owners == {model["metadata"]["uid"]}, "none is left without an owner, to stay for ever"
        assert len(found) == HISTORY + 1
    after = await desk.kube.get(DEPLOYMENT, desk.namespace, "m")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"] == before["spec"]


async def test_what_an_earlier_model_of_the_name_was_made_of_does_not_run_for_one_of_another_source(desk):
    await rolled_out(desk)
    await delete_alone(desk)
    for kind in ("deployment", "service", "poddisruptionbudget"):
        desk.kubectl("delete", kind, "m")
    await asyncio.sleep(1.1)  # Creation is told in whole seconds.
    model = await desk.write(model={"uri": f"{desk.url}/other.onnx"})
    desk.files.body = b"by now it is no model"
    operator = await desk.operator()
    await operator.settle(desk.namespace, "m")
    assert await desk.deployment() is None
    (revision,) = await desk.revisions()
    assert revision["metadata"]["ownerReferences"][0]["uid"] == model["metadata"]["uid"]
    assert (await desk.reasons())["Ready"] == "NotOnnx"
