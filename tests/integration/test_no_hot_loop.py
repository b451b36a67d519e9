"""A model that cannot be helped costs next to nothing while it waits for its next try."""

import asyncio
import itertools
import time
from collections import Counter

import pytest

from onnx_operator.controller.cluster.kinds import DEPLOYMENT, ONNX_MODEL
from onnx_operator.controller.cluster.kube import Kube
from tests import models
from tests.integration.admission import admission
from tests.integration.test_controller_process import Operator
from tests.integration.test_fairness import model
from tests.unit.model.webkit import FileServer, Server

pytestmark = pytest.mark.usefixtures("crd")


@pytest.fixture
async def kube(apiserver):
    connection = await Kube.connect(str(apiserver.kubeconfig))
    connection._api.user_agent = "somebody-else"
    yield connection
    await connection.close()


@pytest.fixture
async def uri(authority):
    async with Server(FileServer(models.linear()), authority.server) as server:
        yield f"https://localhost:{server.port}/m.onnx"


@pytest.fixture
async def operator(apiserver, namespace, tmp_path, authority):
    sources = {"allowedNetworks": ["127.0.0.0/8"], "https": {"caBundle": authority.pem}}
    running = Operator(apiserver, namespace, tmp_path, sources=sources)
    await asyncio.to_thread(apiserver.wait, lambda: '"leading": true' in running.get("/readyz"), 60, "a leader")
    yield running
    running.stop()


def calls(apiserver, since, namespace):
    events = apiserver.audit_events(since, user_agent="onnx-operator/", namespace=namespace)
    counted = [e for e in events if e.resource != "leases" and e.verb != "watch"]
    return Counter(f"{e.verb} {e.resource}/{e.subresource}".rstrip("/") for e in counted)


async def trouble(kube, namespace, name):
    """The message of a model that is not Ready, once there is one."""
    async with asyncio.timeout(60):
        while True:
            found = await kube.get(ONNX_MODEL, namespace, name)
            for condition in (found.get("status") or {}).get("conditions", []):
                if condition["type"] == "Ready" and condition["reason"] != "Inspecting":
                    return condition["message"]
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "words",
    [
        "upstream 10.0.0.{n}:{n} is away: read tcp 10.0.0.9:4{n}->10.0.0.{n}:443: reset",
        "it is refused for the {n}th time",
    ],
    ids=["another address each time", "other words each time"],
)
async def test_a_webhook_that_refuses_in_other_words_each_time_costs_a_few_calls(
    apiserver, namespace, kube, authority, uri, operator, words
):
    numbers = itertools.count(1)

    async def refuse(request):
        return False, words.format(n=next(numbers) % 250)

    async with admission(apiserver, authority, namespace, refuse) as webhook:
        since = time.time()
        await kube.create(ONNX_MODEL, model(namespace, "refused", uri))
        message = await trouble(kube, namespace, "refused")
        await asyncio.sleep(10)
        found = calls(apiserver, since, namespace)
        assert 2 <= len(webhook.asked) <= 8, "it is tried again, later each time"
        assert found.total() <= 40, found
        if "10.0.0" in words:
            assert "10.0.0" not in message
            assert found["patch onnxmodels/status"] <= 2, found
        else:
            assert found["patch onnxmodels/status"] <= len(webhook.asked) + 1, found


async def test_a_change_of_the_spec_does_not_wait_for_the_next_try(
    apiserver, namespace, kube, authority, uri, operator
):
    async def refuse(request):
        replicas = request["object"]["spec"].get("replicas")
        version = request["object"]["spec"]["template"]["spec"]["containers"][0]["image"]
        return "good" in version, f"{replicas} of {version} are refused"

    async with admission(apiserver, authority, namespace, refuse) as webhook:
        await kube.create(ONNX_MODEL, model(namespace, "refused", uri))
        await trouble(kube, namespace, "refused")
        async with asyncio.timeout(60):
            while len(webhook.asked) < 4:
                await asyncio.sleep(0.1)
        template = {"spec": {"containers": [{"name": "server", "image": "good"}]}}
        began = time.monotonic()
        await kube.merge(ONNX_MODEL, namespace, "refused", {"spec": {"podTemplate": template}})
        async with asyncio.timeout(20):
            while not await kube.get(DEPLOYMENT, namespace, "refused"):
                await asyncio.sleep(0.05)
        assert time.monotonic() - began < 3
