"""Looking: without a call where all is known, and by a call where what is known could be too old."""

import json

import pytest

from onnx_operator.api import names
from onnx_operator.controller.cluster import store as store_module
from onnx_operator.controller.cluster.kinds import CONFIG_MAP, ONNX_MODEL, SERVICE
from onnx_operator.controller.cluster.sight import ModelChangedError, Sight
from onnx_operator.controller.cluster.store import Shape, Store
from onnx_operator.controller.rollout.children import list_children
from onnx_operator.controller.rollout.shapes import shapes
from onnx_operator.controller.settings.selector import ModelSelector
from tests.security.stand_in import found, nothing, stand_in
from tests.unit.controller.cluster.test_watches import child, model, script

LABELS = {names.LABEL_MODEL: "m"}


def known(**told):
    store = Store(shapes(lambda item, model: None))
    for kind in store.shapes:
        scan = store.scanning(kind, None)
        for item in told.get(kind.plural, []):
            store.scanned(kind, item, scan)
        store.settled(kind, None, "10", scan)
    return store


async def test_a_look_at_what_is_known_asks_for_nothing(tmp_path):
    own = child()
    own["metadata"]["ownerReferences"][0]["uid"] = "uid-m"
    async with stand_in(tmp_path) as (kube, server):
        sight = Sight(kube, known(onnxmodels=[model()], services=[own], configmaps=[script("a")]))
        asked = await sight.get(ONNX_MODEL, "ns", "m")
        assert asked is not None
        assert asked["metadata"]["resourceVersion"] == "1"
        assert await sight.get(ONNX_MODEL, "ns", "other") is None
        assert (await sight.get(CONFIG_MAP, "ns", "a"))["data"] == {}
        children = await list_children(sight, asked, lambda item: None)
        assert [o["kind"] for o in children.owned] == ["Service"]
        assert server.asked == []


async def test_a_script_without_the_label_is_asked_for(tmp_path):
    """Its label is a favour: without it, it is not followed."""
    there = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "ns", "uid": "u"}}
    async with stand_in(tmp_path, lambda *_: found(there)) as (kube, server):
        assert await Sight(kube, known()).get(CONFIG_MAP, "ns", "a") == there
        assert len(server.asked) == 1


@pytest.mark.parametrize("followed", [True, False])
async def test_a_model_that_another_installation_looks_after_is_not_there(tmp_path, followed):
    selector = ModelSelector(match_labels={"operator": "blue"})
    store = Store(shapes(lambda item, model: None, models=selector))
    store.settled(ONNX_MODEL, None, "10", store.scanning(ONNX_MODEL, None))
    if not followed:
        store.lost(ONNX_MODEL, None)
    ours, theirs = (model(metadata={"labels": {"operator": colour}}) for colour in ("blue", "green"))
    async with stand_in(tmp_path, lambda *_: found(theirs)) as (kube, server):
        sight = Sight(kube, store)
        assert await sight.get(ONNX_MODEL, "ns", "m") is None
        assert len(server.asked) == (0 if followed else 1)
        store.watched(ONNX_MODEL, None, "ADDED", ours)
        with pytest.raises(ModelChangedError, match="another installation"):
            await sight.confirm(ours)


async def test_what_is_not_known_is_asked_for(tmp_path):
    store = known()
    store.lost(SERVICE, None)
    store.lost(ONNX_MODEL, None)
    async with stand_in(tmp_path, lambda target, _: found({"items": []}) if "?" in target else nothing(target, {})) as (
        kube,
        server,
    ):
        sight = Sight(kube, store)
        assert await sight.get(ONNX_MODEL, "ns", "m") is None
        assert await sight.list(SERVICE, "ns", LABELS) == []
        assert len(server.asked) == 2


async def test_what_is_too_large_to_be_kept_is_asked_for_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_OBJECT_BYTES", 10)
    whole = {"services": child(), "onnxmodels": model()}
    answers = {f"/{plural}/m": item for plural, item in whole.items()}

    def answer(target, headers):
        return next((found(item) for end, item in answers.items() if target.endswith(end)), nothing(target, headers))

    async with stand_in(tmp_path, answer) as (kube, server):
        sight = Sight(kube, known(onnxmodels=[model()], services=[child()]))
        assert await sight.get(ONNX_MODEL, "ns", "m") == model()
        assert await sight.list(SERVICE, "ns", LABELS) == [child()]
        assert len(server.asked) == 2
        # Gone, or without the label, in the meantime.
        answers["/services/m"] = child(label="other")
        assert await sight.list(SERVICE, "ns", LABELS) == []
        answers.clear()
        assert await sight.list(SERVICE, "ns", LABELS) == []


async def test_what_is_too_large_to_be_kept_is_asked_for_however_well_it_was_known(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_OBJECT_BYTES", 10)
    async with stand_in(tmp_path, lambda *_: found(child())) as (kube, server):
        sight = Sight(kube, known(services=[child()]))
        assert await sight.list(SERVICE, "ns", LABELS, recall=lambda handle: "from memory") == [child()]
        assert len(server.asked) == 1


CHANGED = {
    "gone": None,
    "another of the name": model(version=20, metadata={"uid": "other"}),
    "on its way out": model(version=20, metadata={"deletionTimestamp": "now"}),
    "another generation": model(version=20, generation=2),
}


@pytest.mark.parametrize("live", CHANGED.values(), ids=CHANGED)
async def test_a_model_that_is_not_as_it_was_looked_at_is_noticed_and_known_from_then_on(tmp_path, live):
    store = known(onnxmodels=[model()])
    changed = []
    store.changed = changed.append
    async with stand_in(tmp_path, lambda *a: found(live) if live else nothing(*a)) as (kube, _):
        with pytest.raises(ModelChangedError):
            await Sight(kube, store).confirm(model())
        told = store.find(ONNX_MODEL, "ns", "m")
        assert (told or {}).get("metadata", {}).get("resourceVersion") == (None if live is None else "20")
        assert [c.name for c in changed][-1:] == ["m"], "and looked at again"
        # News of the one before brings nothing back.
        store.watched(ONNX_MODEL, None, "MODIFIED", model(version=12, status={"replicas": 1}))
        after = store.find(ONNX_MODEL, "ns", "m")
        assert json.dumps(after) == json.dumps(told)


async def test_a_model_that_is_as_it_was_is_confirmed_whatever_its_status(tmp_path):
    async with stand_in(tmp_path, lambda *_: found(model(version=20, status={"replicas": 1}))) as (kube, server):
        await Sight(kube, known(onnxmodels=[model()])).confirm(model())
        await Sight(kube).confirm(model())
        with pytest.raises(ModelChangedError):
            await Sight(kube).confirm(model(generation=7))
        await Sight(kube).confirm(model(generation=7), same_spec=False)
        assert len(server.asked) == 4


def test_nothing_is_known_without_a_store():
    assert not Store({}).knows(SERVICE, "ns")
    assert not Store({SERVICE: Shape()}).knows(SERVICE, "ns")
