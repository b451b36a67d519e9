"""What wakes a model: what changed of it or of its children, and nothing else."""

import asyncio

import pytest

from onnx_operator.api import names
from onnx_operator.controller.cluster.kinds import CONFIG_MAP, DEPLOYMENT, ONNX_MODEL, POD, SERVICE
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.cluster.store import Store
from onnx_operator.controller.cluster.watches import CHILD_DELAY_SECONDS, wake
from onnx_operator.controller.rollout.shapes import shapes


def model(name="m", version=1, generation=1, namespace="ns", spec=None, **more):
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "generation": generation}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": metadata | {"resourceVersion": str(version)} | more.pop("metadata", {}),
        "spec": spec or {},
        **more,
    }


def child(kind=SERVICE, name="m", version=1, label="m", owner="m", **more):
    reference = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": owner, "uid": "u", "controller": True}
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": str(version)}
    labels = {"labels": {names.LABEL_MODEL: label}} if label else {}
    owners = {"ownerReferences": [reference]} if owner else {}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata | labels | owners, **more}


class Desk:
    def __init__(self):
        self.queue = KeyedQueue()
        self.store = Store(shapes(lambda item, model: None))
        wake(self.queue, self.store)
        for kind in self.store.shapes:
            self.store.settled(kind, None, "1", self.store.scanning(kind, None))

    def told(self, kind, item, event="MODIFIED"):
        self.store.watched(kind, None, event, item)

    async def woken(self):
        await asyncio.sleep(CHILD_DELAY_SECONDS * 1.5)
        found = []
        while len(self.queue):
            found.append(await self.queue.get())
            self.queue.done(found[-1])
        return sorted(name for _, name in found)


@pytest.fixture
async def desk():
    return Desk()


async def test_a_new_model_one_that_changed_and_one_that_is_gone_are_looked_at(desk):
    desk.told(ONNX_MODEL, model(), "ADDED")
    assert await desk.woken() == ["m"]
    desk.told(ONNX_MODEL, model(version=2, generation=2))
    assert await desk.woken() == ["m"]
    desk.told(ONNX_MODEL, model(version=3, generation=2, metadata={"deletionTimestamp": "now"}))
    assert await desk.woken() == ["m"]
    desk.told(ONNX_MODEL, model(version=4, generation=2), "DELETED")
    assert await desk.woken() == ["m"]


@pytest.mark.parametrize("field", ["annotations", "labels"])
async def test_what_people_write_on_a_model_wakes_it(desk, field):
    desk.told(ONNX_MODEL, model(), "ADDED")
    await desk.woken()
    desk.told(ONNX_MODEL, model(version=2, metadata={field: {names.ANNOTATION_REFRESH: "1"}}))
    assert await desk.woken() == ["m"]


async def test_a_status_wakes_nobody(desk):
    desk.told(ONNX_MODEL, model(), "ADDED")
    await desk.woken()
    desk.told(ONNX_MODEL, model(version=2, status={"replicas": 1}, metadata={"managedFields": [{}]}))
    desk.store.heard(ONNX_MODEL, model(version=3, status={"replicas": 2}))
    assert await desk.woken() == []
    assert desk.store.find(ONNX_MODEL, "ns", "m")["status"] == {"replicas": 2}, "but is known"


async def test_children_wake_the_model_of_their_label_and_of_their_owner(desk):
    for name in "mno":
        desk.told(ONNX_MODEL, model(name), "ADDED")
    await desk.woken()
    desk.told(SERVICE, child(), "ADDED")
    assert await desk.woken() == ["m"]
    # The label was changed by hand: it names another, and the owner stays.
    desk.told(SERVICE, child(version=2, label="n"))
    assert await desk.woken() == ["m", "n"]
    desk.told(SERVICE, child(version=3, label=""), "DELETED")
    assert await desk.woken() == ["m"]
    desk.told(DEPLOYMENT, child(DEPLOYMENT), "ADDED")
    desk.told(DEPLOYMENT, child(DEPLOYMENT, version=2, status={"replicas": 1}))
    desk.told(DEPLOYMENT, child(DEPLOYMENT, version=3), "DELETED")
    assert await desk.woken() == ["m"], "once for all of it"


async def test_what_nobody_looks_at_wakes_nobody(desk):
    desk.told(ONNX_MODEL, model(), "ADDED")
    desk.told(SERVICE, child(), "ADDED")
    desk.told(POD, child(POD, owner=""), "ADDED")
    await desk.woken()
    desk.told(SERVICE, child(version=2, status={"loadBalancer": {}}))
    changed = child(version=3)
    changed["metadata"]["managedFields"] = [{"manager": "x"}]
    desk.told(SERVICE, changed)
    desk.told(SERVICE, child(version=4, name="x", label="nobody", owner="nobody"))
    desk.told(SERVICE, child(version=5, name="y", label="../m", owner="M"))
    assert await desk.woken() == []


async def test_somebody_elses_object_of_a_childs_name_wakes_the_model_that_waits_for_it(desk):
    desk.told(ONNX_MODEL, model(), "ADDED")
    desk.told(SERVICE, child(owner=""), "ADDED")
    await desk.woken()
    desk.told(SERVICE, child(owner="", version=2), "DELETED")
    assert await desk.woken() == ["m"]


def script(name, version=1, **data):
    metadata = {"name": name, "namespace": "ns", "uid": name, "resourceVersion": str(version)}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata | {"labels": {names.LABEL_SCORING: "true"}},
        "data": data,
    }


async def test_a_config_map_wakes_the_models_that_name_it_and_no_others(desk):
    for name, named in (("m", "a"), ("n", "b"), ("o", None), ("p", "a")):
        desk.told(ONNX_MODEL, model(name, spec={"scoring": {"configMapName": named}} if named else {}), "ADDED")
    await desk.woken()
    desk.told(CONFIG_MAP, script("a", **{"score.py": "1"}), "ADDED")
    assert await desk.woken() == ["m", "p"]
    desk.told(CONFIG_MAP, script("a", 2, **{"score.py": "2"}))
    assert await desk.woken() == ["m", "p"]
    desk.told(CONFIG_MAP, script("a", 3), "DELETED")
    assert await desk.woken() == ["m", "p"]
    desk.told(ONNX_MODEL, model("m", 2, 2, spec={"scoring": {"configMapName": "b"}}))
    await desk.woken()
    desk.told(CONFIG_MAP, script("b", 4), "ADDED")
    assert await desk.woken() == ["m", "n"]


async def test_where_models_are_not_known_whoever_is_named_is_looked_at(desk):
    desk.store.lost(ONNX_MODEL, None)
    desk.told(SERVICE, child(), "ADDED")
    assert await desk.woken() == ["m"]
