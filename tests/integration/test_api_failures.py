"""What a user is told while the API server fails the operator: never that what was not applied is there."""

import asyncio

import pytest

from onnx_operator.api import names
from onnx_operator.controller.cluster.kinds import DEPLOYMENT, ONNX_MODEL, SERVICE
from onnx_operator.controller.cluster.owners import owner_reference
from onnx_operator.controller.rollout import deciding
from tests.integration.between import between
from tests.integration.test_calls import Kubelets
from tests.integration.working import at_work, conditions, serve, status, told, until

DEPLOYMENTS = "/deployments/m"
STATUSES = [413, 429, 500, 503, 0]


@pytest.fixture
async def api(desk, apiserver, tmp_path):
    """What stands between the operator and the API server."""
    async with between(apiserver.kubeconfig, tmp_path) as made:
        desk.kubeconfig = made.kubeconfig
        yield made


def arguments(deployment):
    return deployment["spec"]["template"]["spec"]["containers"][0].get("args", [])


@pytest.mark.parametrize("failure", STATUSES, ids=["too large", "too many", "error", "unavailable", "no answer"])
@pytest.mark.parametrize("call", [DEPLOYMENTS, DEPLOYMENTS + r"\?(?!.*dryRun)"], ids=["checking", "applying"])
async def test_a_spec_that_cannot_be_applied_is_not_ready_and_says_why(desk, api, call, failure):
    async with at_work(await desk.operator()):
        await desk.write()
        await serve(desk)
        before = arguments(await desk.deployment())
        api.fail("PATCH", call, failure)
        await desk.write(session={"intraOpThreads": 2})

        ready = await told(desk, "Ready", "ApiUnavailable")
        assert (ready["status"], ready["observedGeneration"]) == ("False", 2)
        assert "generation 2" in ready["message"]
        assert "does not answer" in ready["message"] if failure == 0 else str(failure) in ready["message"]
        found = await conditions(desk)
        assert found["Progressing"]["status"] == "True"
        assert found["Available"]["status"] == "True", "what serves goes on serving"
        assert found["Reconciling"]["status"] == "True"
        assert (await status(desk))["observedGeneration"] == 2
        wait = ("wait", "--for=condition=Ready", "onnx/m", "--timeout=1s", f"--namespace={desk.namespace}")
        ended = await asyncio.to_thread(desk.cluster.run_kubectl, *wait, check=False)
        assert ended.returncode != 0, "nobody may go on as if it were applied"
        assert arguments(await desk.deployment()) == before

        api.faults.clear()

        async def applied():
            return arguments(await desk.deployment()) != before

        await until(applied)
        await told(desk, "Ready", "RollingOut")


async def test_what_fails_once_is_done_at_the_next_try_and_nobody_is_alarmed(desk, api):
    async with at_work(await desk.operator()):
        await desk.write()
        await serve(desk)
        before = (await desk.kube.get(ONNX_MODEL, desk.namespace, "m"))["metadata"]["resourceVersion"]
        fault = api.fail("PATCH", "/services/m", 500, times=1)
        service = await desk.kube.get(SERVICE, desk.namespace, "m")
        await desk.kube.delete(SERVICE, desk.namespace, "m", service["metadata"]["uid"])
        await until(lambda: desk.kube.get(SERVICE, desk.namespace, "m"))
        assert fault.met == 1
        assert (await desk.kube.get(ONNX_MODEL, desk.namespace, "m"))["metadata"]["resourceVersion"] == before


async def test_what_meets_a_conflict_when_it_is_told_last_is_told_all_the_same(desk, api):
    refused = {"uri": "https://10.0.0.1/m.onnx"}
    async with at_work(await desk.operator()):
        # For good: nothing else would have it looked at again.
        await desk.write(model=refused)
        await told(desk, "ModelValid", "SourceRefused")
        fault = api.fail("PATCH", "/onnxmodels/m/status", 409, times=1)
        await desk.write(model=refused, replicas=2)

        async def caught_up():
            return (await status(desk))["observedGeneration"] == 2

        await until(caught_up, 30)
    assert fault.met == 1


async def test_what_goes_on_failing_is_told_of_a_spec_that_was_in_place_too(desk, api):
    async with at_work(await desk.operator()):
        await desk.write()
        await serve(desk)
        api.fail("PATCH", "/services/m", 503)
        service = await desk.kube.get(SERVICE, desk.namespace, "m")
        await desk.kube.delete(SERVICE, desk.namespace, "m", service["metadata"]["uid"])
        await told(desk, "Ready", "ApiUnavailable")
        assert (await conditions(desk))["Available"]["status"] == "True"
        api.faults.clear()
        await told(desk, "Ready", "Complete")


async def test_what_cannot_be_cleared_away_is_no_trouble_of_what_serves_and_goes_later(desk, api):
    async with at_work(await desk.operator()):
        await desk.write()
        await serve(desk)
        model = await desk.kube.get(ONNX_MODEL, desk.namespace, "m")
        before = model["metadata"]["resourceVersion"]
        fault = api.fail("DELETE", "/services/old", 503)
        spare = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "old",
                "namespace": desk.namespace,
                "labels": {names.LABEL_MODEL: "m"},
                "ownerReferences": [owner_reference(model)],
            },
            "spec": {"ports": [{"port": 80}]},
        }
        await desk.kube.create(SERVICE, spare)

        async def tried():
            return fault.met >= 3

        await until(tried)
        after = await desk.kube.get(ONNX_MODEL, desk.namespace, "m")
        assert after["metadata"]["resourceVersion"] == before, "nothing was told of it"
        api.faults.clear()

        async def gone():
            return await desk.kube.get(SERVICE, desk.namespace, "old") is None

        await until(gone)


async def test_an_inspection_that_cannot_be_noted_leaves_a_model_ready(desk, api, monkeypatch):
    monkeypatch.setattr(deciding, "NOTE_RETRY_SECONDS", 0.5)
    async with at_work(await desk.operator()):
        await desk.write()
        await serve(desk)
        fault = api.fail("PATCH", "/controllerrevisions/", 503)
        desk.kubectl("annotate", "onnxmodel", "m", f"{names.ANNOTATION_REFRESH}=now")

        async def tried():
            return fault.met >= 3

        await until(tried)
        await told(desk, "Ready", "Complete")
        await told(desk, "Progressing", "Complete")


async def test_a_model_whose_children_cannot_be_read_does_not_seem_to_be_in_place(desk, api):
    async with at_work(await desk.operator()):
        await desk.write()
        await serve(desk)
        lacking = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "words"}
        api.fail("GET", "/replicasets", 500)
        await Kubelets(desk.kube, desk.namespace).status(DEPLOYMENT, "m", {"conditions": [lacking]})
        ready = await told(desk, "Progressing", "ApiUnavailable")
        assert (await conditions(desk))["Ready"]["status"] == "True", "nothing is known to be wrong"
        await desk.write(session={"intraOpThreads": 2})
        ready = await told(desk, "Ready", "ApiUnavailable")
        assert ready["observedGeneration"] == 2


# --- the Secret -------------------------------------------------------------------------------------------------------


def secret(desk):
    desk.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "keys", "labels": {names.LABEL_CREDENTIALS: "true"}},
            "stringData": {"HTTPS_BEARER_TOKEN": "t", "HTTPS_HOSTS": desk.url.removeprefix("https://")},
        },
        desk.namespace,
    )


async def test_a_secret_that_cannot_be_read_for_a_while_says_nothing_of_what_serves(desk, api):
    secret(desk)
    async with at_work(await desk.operator()):
        await desk.write(model={"credentials": {"secretName": "keys"}})
        await serve(desk)
        before, reads = await conditions(desk), len(desk.requests)
        api.fail("GET", "/secrets/keys", 500)
        desk.kubectl("annotate", "onnx", "m", f"{names.ANNOTATION_REFRESH}=1")
        trouble = await told(desk, "Progressing", "ApiUnavailable")
        assert "500" in trouble["message"]
        after = await conditions(desk)
        for kind in ("Ready", "ModelValid", "Available"):
            assert after[kind] == before[kind]
        assert len(desk.requests) == reads

        api.faults.clear()
        await told(desk, "Progressing", "Complete")
        assert len(desk.requests) > reads, "it is looked at after all"
        assert (await conditions(desk))["Ready"] == before["Ready"]


async def test_a_new_model_whose_secret_cannot_be_read_is_not_said_to_have_a_bad_source(desk, api):
    secret(desk)
    api.fail("GET", "/secrets/keys", 429)
    async with at_work(await desk.operator()):
        await desk.write(model={"credentials": {"secretName": "keys"}})
        await told(desk, "Ready", "ApiUnavailable")
        assert "ModelValid" not in await conditions(desk)
        api.faults.clear()
        await told(desk, "ModelValid", "Inspected")


async def test_a_secret_that_comes_later_is_noticed_soon(desk, monkeypatch):
    monkeypatch.setattr("onnx_operator.controller.inspection.inspections.SHORT_SECONDS", 0.5)
    async with at_work(await desk.operator()) as operator:
        made = await desk.write(model={"credentials": {"secretName": "keys"}})
        await told(desk, "Ready", "CredentialsNotFound")
        # It has lacked it for hours.
        operator.reconciler._inspections._entries[made["metadata"]["uid"]].attempts = 20
        await asyncio.sleep(6)
        secret(desk)
        await told(desk, "ModelValid", "Inspected", seconds=3)
