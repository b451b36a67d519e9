"""Whoever may write ControllerRevisions decides nothing: only what carries the operator's seal is applied."""

import asyncio
import base64
import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_operator.api import names
from onnx_operator.controller.cluster.kinds import CONTROLLER_REVISION, DEPLOYMENT, ONNX_MODEL, SECRET
from onnx_operator.controller.cluster.owners import owner_reference
from onnx_operator.controller.revision import alpha
from onnx_operator.controller.revision.revisions import (
    Revision,
    RevisionData,
    controller_revision,
    decode,
    new_revision,
)
from onnx_operator.controller.revision.seal import Key, Sealer, fingerprint
from onnx_operator.controller.revision.sealkey import SealKeyError, obtain_keys
from onnx_operator.controller.rollout.children import desired_children
from tests.security.desk import SEAL, Desk
from tests.security.fuzzing import mutated
from tests.unit.controller.samples import files, report, spec

NO_OWNER = '{"metadata":{"ownerReferences":null}}'


async def rolled_out(desk: Desk, **fields):
    """A model that an operator rolled out; the operator, and the one revision that there is."""
    await desk.write(**fields)
    operator = await desk.operator()
    await operator.settle(desk.namespace, "m")
    (revision,) = await desk.revisions()
    return operator, revision


def forged(revision: dict, **changes) -> dict:
    """A ControllerRevision as a tenant writes it, after the operator's own."""
    metadata = {
        "name": "m-forged",
        "namespace": revision["metadata"]["namespace"],
        **{k: revision["metadata"][k] for k in ("labels", "annotations", "ownerReferences")},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata | changes.pop("metadata", {}),
        "data": revision["data"],
        "revision": revision["revision"] + 1,
    } | changes


async def unmoved(desk: Desk, operator, before: dict) -> None:
    """The Deployment is, and stays, as it was."""
    await operator.settle(desk.namespace, "m")
    after = await desk.deployment()
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["spec"] == before["spec"]


# --- forged ---------------------------------------------------------------------------------------------------------


async def test_a_revision_that_a_tenant_wrote_is_never_applied(desk):
    operator, revision = await rolled_out(desk)
    before = await desk.deployment()
    data = copy.deepcopy(revision["data"])
    elsewhere = next(copy.deepcopy(m) for m in data["manifests"] if m["kind"] == "Deployment")
    elsewhere["metadata"] |= {"namespace": "default", "name": "carols"}
    own = next(m for m in data["manifests"] if m["kind"] == "Deployment")
    own["spec"]["template"]["spec"]["containers"][0]["image"] = "evil"
    await desk.kube.create(
        CONTROLLER_REVISION, forged(revision, data=data | {"manifests": [*data["manifests"], elsewhere]})
    )

    await unmoved(desk, operator, before)
    assert await desk.deployment("carols", "default") is None
    # Nor after a restart, whatever is known then.
    await unmoved(desk, await desk.operator(), before)


@pytest.mark.parametrize("number", [2, 0, 2**61], ids=str)
async def test_a_seal_is_worth_nothing_under_another_number(desk, number):
    operator, first = await rolled_out(desk)
    await desk.write(session={"intraOpThreads": 2})
    await operator.settle(desk.namespace, "m")
    before = await desk.deployment()
    # The first revision, replayed as the newest.
    desk.kubectl(
        "patch", "controllerrevision", first["metadata"]["name"], "--type=merge", "-p", f'{{"revision":{number}}}'
    )
    await unmoved(desk, operator, before)
    await unmoved(desk, await desk.operator(), before)


async def test_a_seal_is_worth_nothing_with_another_note(desk):
    operator, revision = await rolled_out(desk)
    before = await desk.deployment()
    desk.kubectl("annotate", "controllerrevision", revision["metadata"]["name"], f"{names.NOTE_PREFIX}good=true")
    await operator.settle(desk.namespace, "m")
    # What runs is what would be made again: it is sealed once more, and no pod restarts.
    await unmoved(desk, operator, before)


async def test_deleting_the_newest_revision_brings_no_older_one_back(desk):
    operator, first = await rolled_out(desk)
    await desk.write(session={"intraOpThreads": 2})
    await operator.settle(desk.namespace, "m")
    before = await desk.deployment()
    desk.kubectl("delete", "controllerrevision", (await desk.revisions())[-1]["metadata"]["name"])
    desk.kubectl("patch", "onnxmodel", "m", "--subresource=status", "--type=merge", "-p", '{"status":null}')

    again = await desk.operator()
    # Before the model was looked at again, and after.
    await again.reconciler.reconcile((desk.namespace, "m"))
    assert (await desk.deployment())["spec"] == before["spec"]
    await unmoved(desk, again, before)
    assert first["metadata"]["name"] in {r["metadata"]["name"] for r in await desk.revisions()}


async def test_a_copied_revision_means_nothing_to_another_model_or_namespace(desk, apiserver):
    operator, revision = await rolled_out(desk)
    other = await desk.write("other", suspend=True)
    copied = forged(
        revision,
        metadata={
            "name": revision["metadata"]["name"].replace("m-", "other-"),
            "labels": {**revision["metadata"]["labels"], names.LABEL_MODEL: "other"},
            "ownerReferences": [owner_reference(other)],
        },
    )
    await desk.kube.create(CONTROLLER_REVISION, copied)
    await operator.settle(desk.namespace, "other")
    found = await desk.deployment("other")
    assert found["spec"]["template"]["metadata"]["labels"][names.LABEL_REVISION] != copied["metadata"]["name"]


async def test_a_taken_name_is_told(desk):
    operator, _ = await rolled_out(desk)
    await desk.write(session={"intraOpThreads": 2})
    await operator.settle(desk.namespace, "m")
    second = (await desk.revisions())[-1]
    # Somebody waits for the model to go back, with something else under the name that its revision will have.
    await desk.write(session={"intraOpThreads": 3})
    await operator.settle(desk.namespace, "m")
    desk.kubectl("delete", "controllerrevision", second["metadata"]["name"])
    other = forged(second, metadata={"name": second["metadata"]["name"]}, data={**second["data"], "pool": "other"})
    await desk.kube.create(CONTROLLER_REVISION, other)
    before = await desk.deployment()

    await desk.write(session={"intraOpThreads": 2})
    await operator.settle(desk.namespace, "m")
    assert (await desk.reasons())["Progressing"] == "NameConflict"
    assert (await desk.deployment())["spec"] == before["spec"]


async def test_what_the_settings_forbid_by_now_is_not_applied_again(desk):
    image = {"spec": {"containers": [{"name": "server", "env": [{"name": "A", "value": "1"}]}]}}
    await rolled_out(desk, podTemplate=image)
    before = await desk.deployment()
    strict = await desk.operator(allowPodTemplate=False)
    await desk.write(podTemplate=image, replicas=3)
    await strict.settle(desk.namespace, "m")
    after = await desk.deployment()
    assert after["spec"]["template"] == before["spec"]["template"]
    assert after["spec"]["replicas"] == 3, "it still scales"
    assert (
        await desk.reasons() | {"Ready": "PodTemplateRejected", "Outdated": "SettingsChanged"} == await desk.reasons()
    )
    # Nothing that could be left running: it is not said to roll out.
    desk.kubectl("delete", "deployment", "m")
    await strict.settle(desk.namespace, "m")
    assert await desk.kube.get(DEPLOYMENT, desk.namespace, "m") is None
    reasons = await desk.reasons()
    assert (reasons["Ready"], reasons["Progressing"]) == ("PodTemplateRejected", "CreationFailed")
    assert "Outdated" not in reasons


# --- keys -----------------------------------------------------------------------------------------------------------


async def test_a_lost_key_restarts_no_pod(desk):
    await rolled_out(desk)
    before = await desk.deployment()
    desk.kubectl("delete", "secret", SEAL)
    again = await desk.operator()
    await unmoved(desk, again, before)
    # An equal rendering is sealed in silence.
    assert "Outdated" not in await desk.reasons()
    writes = [r["metadata"]["resourceVersion"] for r in await desk.revisions()]
    await unmoved(desk, again, before)
    assert [r["metadata"]["resourceVersion"] for r in await desk.revisions()] == writes, "and once"


async def test_a_note_that_somebody_wrote_is_never_sealed(desk):
    """Such as that a revision was found good; on one whose seal was taken away, and on one that comes back."""
    operator, first = await rolled_out(desk)
    before = await desk.deployment()
    forged_note = f"{names.NOTE_PREFIX}good"

    def write_on(revision, **more):
        patch = {"metadata": {"annotations": {forged_note: "true", **more}}}
        name = revision["metadata"]["name"]
        desk.kubectl("patch", "controllerrevision", name, "--type=merge", "-p", json.dumps(patch))

    write_on(first, **{names.ANNOTATION_SEAL: None})
    await unmoved(desk, operator, before)
    (after,) = await desk.revisions()
    assert after["metadata"]["annotations"].keys() == first["metadata"]["annotations"].keys()
    assert "Outdated" not in await desk.reasons()

    await desk.write(session={"intraOpThreads": 2})
    await operator.settle(desk.namespace, "m")
    write_on(first)
    await desk.write()
    await operator.settle(desk.namespace, "m")
    (again,) = (r for r in await desk.revisions() if r["metadata"]["name"] == first["metadata"]["name"])
    assert again["metadata"]["annotations"].keys() == first["metadata"]["annotations"].keys()
    assert "Outdated" not in await desk.reasons()
    assert (await desk.deployment())["spec"]["template"] == before["spec"]["template"]


async def test_after_a_lost_key_what_this_operator_would_make_otherwise_is_left_and_told_and_scales(desk):
    await rolled_out(desk)
    before = await desk.deployment()
    desk.kubectl("delete", "secret", SEAL)
    again = await desk.operator(serverImage="localhost/onnx-server:2")
    await unmoved(desk, again, before)
    assert (await desk.reasons())["Outdated"] == "NotSealed"

    await desk.write(replicas=4)
    await again.settle(desk.namespace, "m")
    after = await desk.deployment()
    assert after["spec"]["replicas"] == 4
    assert after["spec"]["template"] == before["spec"]["template"]

    await desk.write(replicas=4, session={"intraOpThreads": 2})
    await again.settle(desk.namespace, "m")
    after = await desk.deployment()
    assert after["spec"]["template"]["spec"]["containers"][0]["image"] == "localhost/onnx-server:2"
    assert "Outdated" not in await desk.reasons()


async def test_a_new_key_seals_anew_and_changes_annotations_only(desk):
    await rolled_out(desk)
    before, (old,) = await desk.deployment(), await desk.revisions()
    desk.kubectl(
        "patch", "secret", SEAL, "--type=json", "-p", '[{"op":"move","from":"/data/current","path":"/data/previous"}]'
    )
    again = await desk.operator()
    await unmoved(desk, again, before)
    (new,) = await desk.revisions()
    assert (
        new["metadata"]["annotations"][names.ANNOTATION_SEAL] != old["metadata"]["annotations"][names.ANNOTATION_SEAL]
    )
    assert (new["data"], new["revision"]) == (old["data"], old["revision"])
    # The previous key is not needed any more.
    desk.kubectl("patch", "secret", SEAL, "--type=json", "-p", '[{"op":"remove","path":"/data/previous"}]')
    await unmoved(desk, await desk.operator(serverImage="localhost/onnx-server:2"), before)
    assert "Outdated" not in await desk.reasons()


async def test_leaders_that_start_together_have_one_key(desk):
    first = await obtain_keys(desk.kube, desk.namespace, "both")
    second = await obtain_keys(desk.kube, desk.namespace, "both")
    assert first == second
    assert first.since


@pytest.mark.parametrize("content", ["", "c2hvcnQ=", base64.b64encode(b"x" * 33).decode()], ids=len)
async def test_a_broken_key_is_told_and_never_used(desk, content):
    secret = {"metadata": {"name": "broken", "namespace": desk.namespace}, "data": {"current": content}}
    await desk.kube.create(SECRET, {"apiVersion": "v1", "kind": "Secret", **secret})
    if content:
        with pytest.raises(SealKeyError, match=r"data\.current must hold 32 bytes"):
            await obtain_keys(desk.kube, desk.namespace, "broken")
    else:
        await obtain_keys(desk.kube, desk.namespace, "broken")


async def test_two_installations_do_not_fight_over_a_model(desk, apiserver):
    first, _ = await rolled_out(desk)
    before = await desk.deployment()
    home = f"{desk.namespace}-b"
    apiserver.kubectl("create", "namespace", home)
    second = await desk.operator(home=home)
    # Each may seal once what it would make as well; then neither writes.
    for _ in range(3):
        await unmoved(desk, second, before)
        await unmoved(desk, first, before)
    writes = [r["metadata"]["resourceVersion"] for r in await desk.revisions()]
    for _ in range(3):
        await unmoved(desk, second, before)
        await unmoved(desk, first, before)
    assert [r["metadata"]["resourceVersion"] for r in await desk.revisions()] == writes


async def deleted_alone(desk: Desk) -> None:
    """What the garbage collector, which does not run here, makes of a deletion with ``--cascade=orphan``."""
    desk.kubectl("delete", "onnxmodel", "m", "--cascade=background")
    for revision in await desk.revisions():
        desk.kubectl("patch", "controllerrevision", revision["metadata"]["name"], "--type=merge", "-p", NO_OWNER)
    for kind in ("deployment", "service", "poddisruptionbudget"):
        desk.kubectl("patch", kind, "m", "--type=merge", "-p", NO_OWNER)


async def test_a_restored_backup_goes_on_as_before(desk):
    """Objects come back with other UIDs, the owner references of old are gone; the Secret came back too."""
    await rolled_out(desk)
    saved = [await desk.deployment(), *await desk.revisions()]
    model = await desk.kube.get(ONNX_MODEL, desk.namespace, "m")
    await deleted_alone(desk)
    for item in saved:
        desk.kubectl("delete", item["kind"].lower(), item["metadata"]["name"])
    for item in saved:
        bare = {k: v for k, v in item["metadata"].items() if k in ("name", "namespace", "labels", "annotations")}
        await desk.kube.create(
            {"Deployment": DEPLOYMENT}.get(item["kind"], CONTROLLER_REVISION), item | {"metadata": bare}
        )
    await desk.write(**{k: v for k, v in model["spec"].items() if k != "model"})
    before = await desk.deployment()
    again = await desk.operator()
    await again.settle(desk.namespace, "m")
    after = await desk.deployment()
    assert after["spec"]["template"] == before["spec"]["template"]
    assert len(await desk.revisions()) == 1


async def test_a_model_that_is_deleted_without_its_children_and_applied_again_keeps_its_pods(desk):
    operator, _ = await rolled_out(desk)
    before = await desk.deployment()
    await deleted_alone(desk)
    await desk.write()
    await operator.settle(desk.namespace, "m")
    after = await desk.deployment()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["template"] == before["spec"]["template"]


# --- earlier and later versions ---------------------------------------------------------------------------------------


async def as_the_first_alpha_left_it(desk: Desk, **fields):
    """A model as the first alpha rolled it out: a revision of its form, no seal, and the Deployment made from it."""
    await desk.write(**fields)
    home = "default"
    today = await desk.operator(home=home)
    await today.settle(desk.namespace, "m")
    (made,) = await desk.revisions()
    model = await desk.kube.get(ONNX_MODEL, desk.namespace, "m")
    data = RevisionData.model_validate(made["data"])
    wanted = spec(model=model["spec"]["model"], **{k: v for k, v in model["spec"].items() if k not in ("model",)})
    old = {
        **{k: made["data"][k] for k in ("report", "files", "interface", "pool", "manifests", "testData")},
        "inputs": alpha.inputs_hash(wanted, data.report, {}, []),
        "uri": data.uri,
        "inspectionKey": made["metadata"]["annotations"][f"{names.NOTE_PREFIX}inspection-key"],
        "image": "localhost/onnx-server:1",
        "gpu": False,
        "workloadIdentity": False,
    }
    name = f"m-{fingerprint(old)[:10]}"
    metadata = {k: made["metadata"][k] for k in ("labels", "ownerReferences", "namespace")} | {"name": name}
    desk.kubectl("delete", "controllerrevision", made["metadata"]["name"])
    await desk.kube.apply(CONTROLLER_REVISION, forged(made, metadata=metadata | {"annotations": {}}, data=old))
    for child in desired_children(model, wanted, Revision(name, 1, data)):
        if child["kind"] == "Deployment":
            await desk.kube.apply(DEPLOYMENT, child)
    desk.cluster.kubectl("delete", "secret", SEAL, f"--namespace={home}")
    return await desk.deployment()


async def test_an_upgrade_from_the_first_alpha_restarts_no_pod(desk):
    before = await as_the_first_alpha_left_it(desk)
    await _next_second()
    # With another image: it is as old as can be, and what runs goes on running.
    again = await desk.operator(serverImage="localhost/onnx-server:2")
    await unmoved(desk, again, before)
    (revision,) = await desk.revisions()
    assert revision["metadata"]["annotations"][names.ANNOTATION_SEAL]
    assert "Outdated" not in await desk.reasons()
    await desk.write(replicas=3)
    await again.settle(desk.namespace, "m")
    assert (await desk.deployment())["spec"]["replicas"] == 3
    await desk.write(session={"intraOpThreads": 2})
    await again.settle(desk.namespace, "m")
    assert len(await desk.revisions()) == 2


async def test_a_downgrade_to_the_first_alpha_and_up_again_restarts_no_pod_twice(desk):
    keys = await desk.operator()
    before = await as_the_first_alpha_left_it(desk)
    # The key is older than what the first alpha left: an equal rendering is sealed, anything else is left and told.
    again = await desk.operator(serverImage="localhost/onnx-server:2")
    await unmoved(desk, again, before)
    assert (await desk.reasons())["Outdated"] == "NotSealed"
    equal = await desk.operator()
    await unmoved(desk, equal, before)
    assert "Outdated" not in await desk.reasons()
    assert keys


async def _next_second() -> None:
    # The API server's times are whole seconds.
    await asyncio.sleep(1.1)


# --- at byte level ----------------------------------------------------------------------------------------------------


@pytest.mark.fuzz
def test_no_mutation_of_a_stored_revision_is_applied_or_stops_the_operator(fuzz):
    sealer = Sealer(Key(b"k" * 32))
    manifests = [
        {"kind": "Deployment", "metadata": {"name": "m"}, "spec": {"template": {"metadata": {"labels": {"a": "b"}}}}},
        {"kind": "Service", "metadata": {"name": "m"}, "spec": {"ports": [{"port": 80}]}},
    ]
    data = RevisionData(
        spec={"model": {"uri": "s3://models/m.onnx"}},
        report=report(),
        interface="f",
        files=files(),
        pool="cpu",
        manifests=manifests,
    )
    whole = controller_revision(new_revision("m", 1, data, "key"), "m", "ns", sealer)
    text = json.dumps(whole).encode()
    original = decode(whole, "m", "ns", sealer)
    assert original is not None
    model = {"metadata": {"name": "m", "namespace": "ns", "uid": "u"}}
    for rng in fuzz(400):
        try:
            item = json.loads(mutated(rng, text, most=3))
        except ValueError:
            continue
        if not isinstance(item, dict) or not isinstance(item.get("metadata"), dict):
            continue
        found = decode(item, "m", "ns", sealer)
        if found is None:
            continue
        if found.trust.holds:
            assert (found.number, found.name, found.notes) == (original.number, original.name, original.notes)
            assert found.data.to_json() == original.data.to_json()
        else:
            assert not found.notes
        # What is left running is still looked at: never with an exception, never beyond the model.
        children = desired_children(model, spec(), found)
        assert all((c["metadata"]["namespace"], c["metadata"]["name"]) == ("ns", "m") for c in children)
        found.serves(spec(), report(), {}, [])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda i: st.lists(i, max_size=3) | st.dictionaries(st.text(max_size=8), i, max_size=3),
    )
)
def test_whatever_lies_where_a_revision_should_be_is_passed_over(value):
    sealer = Sealer(Key(b"k" * 32))
    item = {"metadata": {"name": "m-1", "annotations": {names.ANNOTATION_SEAL: "x"}}, "data": value, "revision": 1}
    assert decode(item, "m", "ns", sealer) is None
