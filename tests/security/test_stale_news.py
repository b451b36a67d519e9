"""News that is late makes nothing for a model that is gone, on a real API server."""

import pytest

from onnx_operator.controller.cluster.kinds import DEPLOYMENT, ONNX_MODEL

KINDS = ("deployment", "service", "poddisruptionbudget")


async def rolled_out_and_deaf(desk):
    """An operator with a model rolled out, to which nothing is told any more."""
    operator = await desk.operator()
    await desk.write()
    await operator.settle(desk.namespace, "m")
    assert await desk.deployment()
    await operator.reflectors.stop()
    return operator


def gone(desk, operator):
    """The model is deleted, and its children with it, of which alone the operator hears."""
    desk.kubectl("delete", "onnxmodel", "m")
    for kind in KINDS:
        desk.kubectl("delete", kind, "m")
    for revision in desk.kubectl("get", "controllerrevision", "-o", "name").split():
        desk.kubectl("delete", revision)
    for kind in operator.store.shapes:
        if kind != ONNX_MODEL:
            for namespace, name in operator.store.keys(kind):
                item = operator.store.find(kind, namespace, name)
                operator.store.watched(kind, desk.namespace, "DELETED", item)


@pytest.mark.parametrize("again", [False, True], ids=["gone", "made anew"])
async def test_children_of_a_model_that_is_gone_are_not_made_again(desk, again):
    operator = await rolled_out_and_deaf(desk)
    old = await desk.kube.get(ONNX_MODEL, desk.namespace, "m")
    gone(desk, operator)
    if again:
        await desk.write(model={"uri": f"{desk.url}/other.onnx"})
    for _ in range(3):
        await operator.reconciler.reconcile((desk.namespace, "m"))
    assert await desk.kube.get(DEPLOYMENT, desk.namespace, "m") is None
    left = desk.kubectl("get", ",".join((*KINDS, "controllerrevision")), "-o", "json")
    assert old["metadata"]["uid"] not in left
    held = operator.store.find(ONNX_MODEL, desk.namespace, "m")
    if again:
        assert held["metadata"]["uid"] != old["metadata"]["uid"], "the new one is known now"
    else:
        assert held is None


async def test_a_spec_that_was_changed_meanwhile_is_not_rolled_out_as_it_was(desk):
    operator = await rolled_out_and_deaf(desk)
    for kind in KINDS:
        desk.kubectl("delete", kind, "m")
    for kind in operator.store.shapes:
        for namespace, name in operator.store.keys(kind) if kind.kind in ("Deployment", "Service") else ():
            operator.store.watched(kind, desk.namespace, "DELETED", operator.store.find(kind, namespace, name))
    await desk.write(replicas=3)
    await operator.reconciler.reconcile((desk.namespace, "m"))
    assert await desk.deployment() is None, "looked at with the old spec"
    await operator.reconciler.reconcile((desk.namespace, "m"))
    made = await desk.deployment()
    assert made is not None
    assert made["spec"]["replicas"] == 3
