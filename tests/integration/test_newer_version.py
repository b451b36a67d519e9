"""An operator that meets what a newer version made: nothing older is rolled out, and what runs is kept and repaired."""

import asyncio
import copy
import json
from contextlib import asynccontextmanager

import pytest

from onnx_operator.api import names
from onnx_operator.api.crd import to_yaml
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.controller.cluster.kinds import CONTROLLER_REVISION, DEPLOYMENT, KINDS, SERVICE
from onnx_operator.controller.cluster.owners import owner_reference
from onnx_operator.controller.revision.revisions import Revision, RevisionData
from onnx_operator.controller.revision.seal import Subject, fingerprint
from onnx_operator.controller.revision.sealkey import obtain_keys
from onnx_operator.controller.rollout.children import desired_children
from tests.security.desk import SEAL, Desk

NEWER_IMAGE = "localhost/onnx-server:9"


def with_a_new_field(data: dict) -> None:
    data["spec"]["canary"] = {"percent": 10}


def in_a_new_form(data: dict) -> None:
    data["report"] = {"form": 2}


def with_a_new_kind(data: dict) -> None:
    data["manifests"].append({"apiVersion": "x/v1", "kind": "HTTPRoute", "metadata": {"name": "m"}, "spec": {}})


FORMS = [with_a_new_field, in_a_new_form, with_a_new_kind]


async def rolled_out_by_a_newer(desk: Desk, change, **fields) -> str:
    """A model that this version rolled out, and then a newer one; the name of the newer one's revision."""
    model = await desk.write(**fields)
    operator = await desk.operator()
    await operator.settle(desk.namespace, "m")
    (first,) = await desk.revisions()
    keys = await obtain_keys(desk.kube, desk.namespace, SEAL)
    data = copy.deepcopy(first["data"])
    for manifest in data["manifests"]:
        if manifest["kind"] == "Deployment":
            manifest["spec"]["template"]["spec"]["containers"][0]["image"] = NEWER_IMAGE
    readable = RevisionData.model_validate(data)
    change(data)
    name = f"m-{fingerprint(data)[:10]}"
    subject = Subject(desk.namespace, "m", name, 2, fingerprint(data), {})
    metadata = {
        "name": name,
        "namespace": desk.namespace,
        "labels": first["metadata"]["labels"],
        "annotations": {names.ANNOTATION_SEAL: keys.sealer.seal(subject)},
        "ownerReferences": [owner_reference(model)],
    }
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "data": data,
        "revision": 2,
    }
    await desk.kube.create(CONTROLLER_REVISION, manifest)
    spec = OnnxModelSpec.model_validate(model["spec"])
    for child in desired_children(model, spec, Revision(name, 2, readable)):
        await desk.kube.apply(KINDS[child["kind"]], child)
    return name


@pytest.mark.parametrize("change", FORMS, ids=lambda change: change.__name__)
async def test_a_downgraded_operator_rolls_out_nothing_older(desk, change):
    name = await rolled_out_by_a_newer(desk, change)
    before = await desk.deployment()
    older = await desk.operator()
    for _ in range(3):
        await older.settle(desk.namespace, "m")
    assert await desk.deployment() == before
    progressing = (await desk.conditions())["Progressing"]
    assert progressing["reason"] == "NewerVersion"
    assert name in progressing["message"]
    assert "upgrade the operator" in progressing["message"]
    assert len(await desk.revisions()) == 2


@pytest.mark.parametrize("change", FORMS, ids=lambda change: change.__name__)
async def test_what_runs_is_repaired_and_scaled(desk, change):
    await rolled_out_by_a_newer(desk, change)
    older = await desk.operator()
    await older.settle(desk.namespace, "m")
    before = await desk.deployment()
    evil = {"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "evil"}]}}}}
    desk.kubectl("patch", "deployment", "m", "--field-manager=kubectl-edit", f"--patch={json.dumps(evil)}")
    desk.kubectl("delete", "service", "m")
    await older.settle(desk.namespace, "m")
    after = await desk.deployment()
    assert after["spec"] == before["spec"]
    # The newer version finds what it left, and has nothing to write.
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert await desk.kube.get(SERVICE, desk.namespace, "m")

    await desk.write(replicas=4)
    await older.settle(desk.namespace, "m")
    assert (await desk.deployment())["spec"] == {**before["spec"], "replicas": 4}

    desk.kubectl("delete", "deployment", "m")
    await older.settle(desk.namespace, "m")
    found = await desk.deployment()
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == NEWER_IMAGE


async def test_a_change_of_the_spec_is_not_rolled_out_and_never_ready(desk):
    await rolled_out_by_a_newer(desk, with_a_new_field)
    older = await desk.operator()
    await desk.write(session={"intraOpThreads": 2})
    before = await desk.deployment()
    await older.settle(desk.namespace, "m")
    assert await desk.deployment() == before
    ready = (await desk.conditions())["Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "NewerVersion")
    assert "Stalled" in await desk.reasons()


async def test_a_revision_that_nobody_sealed_stops_nothing(desk):
    await desk.write()
    operator = await desk.operator()
    await operator.settle(desk.namespace, "m")
    (first,) = await desk.revisions()
    data = copy.deepcopy(first["data"])
    with_a_new_field(data)
    kept = {k: first["metadata"][k] for k in ("labels", "annotations", "ownerReferences", "namespace")}
    forged = {**first, "metadata": {"name": "m-forged", **kept}, "data": data, "revision": 99}
    await desk.kube.create(CONTROLLER_REVISION, forged)
    await desk.write(session={"intraOpThreads": 2})
    await operator.settle(desk.namespace, "m")
    args = (await desk.deployment())["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--intra-op-threads=2" in args
    assert (await desk.reasons())["Progressing"] != "NewerVersion"


@asynccontextmanager
async def a_newer_crd(apiserver):
    """A CRD by which ``runtime`` takes a value that this version does not know."""
    where = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/runtime/pattern"
    patch = json.dumps([{"op": "replace", "path": where, "value": "^(CPU|GPU|TPU)$"}])
    apiserver.kubectl("patch", "crd", "onnxmodels.onnx-operator.dev", "--type=json", f"--patch={patch}")
    try:
        yield
    finally:
        apiserver.apply(to_yaml())


async def test_a_spec_of_a_newer_version_is_kept_running_repaired_and_told(desk, apiserver):
    await desk.write()
    operator = await desk.operator()
    await operator.settle(desk.namespace, "m")
    before = await desk.deployment()
    async with a_newer_crd(apiserver):
        patch = '--patch={"spec":{"runtime":"TPU","replicas":2}}'
        for _ in range(100):
            done = apiserver.run_kubectl(
                "patch", "onnxmodel", "m", "--type=merge", patch, f"--namespace={desk.namespace}", check=False
            )
            if done.returncode == 0:
                break
            await asyncio.sleep(0.1)
        evil = {"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "evil"}]}}}}
        desk.kubectl("patch", "deployment", "m", "--field-manager=kubectl-edit", f"--patch={json.dumps(evil)}")
        await operator.settle(desk.namespace, "m")
        assert (await desk.deployment())["spec"] == {**before["spec"], "replicas": 2}
        ready = (await desk.conditions())["Ready"]
        assert (ready["status"], ready["reason"]) == ("False", "NewerVersion")
        assert "spec.runtime" in ready["message"]
        desk.kubectl("patch", "onnxmodel", "m", "--type=merge", '--patch={"spec":{"runtime":"CPU"}}')
    await operator.settle(desk.namespace, "m")
    assert (await desk.reasons())["Progressing"] != "NewerVersion"
    assert (await desk.kube.get(DEPLOYMENT, desk.namespace, "m"))["spec"]["replicas"] == 2
