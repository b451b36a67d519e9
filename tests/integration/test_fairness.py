"""Nobody waits for what others have brought: a namespace whose admission is slow holds up no other."""

import asyncio
import time

import pytest

from onnx_operator.api import names
from onnx_operator.controller.cluster import patience
from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.cluster.kinds import DEPLOYMENT, ONNX_MODEL
from onnx_operator.controller.cluster.kube import Kube
from tests import models
from tests.integration.admission import admission
from tests.integration.test_controller_process import Operator
from tests.unit.model.webkit import FileServer, Server

pytestmark = pytest.mark.usefixtures("crd")

SLOW_SECONDS = 12.0
"""Longer than the operator waits for an object to be taken."""


def model(namespace, name, uri):
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"uri": uri}},
    }


def deployment(namespace, name):
    labels = {"app": name}
    containers = [{"name": "c", "image": "i"}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }


@pytest.fixture
async def kube(apiserver):
    connection = await Kube.connect(str(apiserver.kubeconfig))
    yield connection
    await connection.close()


async def slow(request):
    await asyncio.sleep(SLOW_SECONDS)
    return True, ""


async def test_forty_models_whose_admission_is_slow_delay_no_other_namespace(
    apiserver, namespace, kube, authority, tmp_path
):
    modest = f"{namespace}-b"
    apiserver.kubectl("create", "namespace", modest)
    sources = {"allowedNetworks": ["127.0.0.0/8"], "https": {"caBundle": authority.pem}}
    async with (
        Server(FileServer(models.linear()), authority.server) as server,
        admission(apiserver, authority, namespace, slow) as webhook,
    ):
        uri = f"https://localhost:{server.port}/m.onnx"
        operator = Operator(apiserver, namespace, tmp_path, namespaces=[namespace, modest], sources=sources)
        try:
            await asyncio.to_thread(
                apiserver.wait, lambda: '"leading": true' in operator.get("/readyz"), 60, "a leader"
            )
            for number in range(40):
                await kube.create(ONNX_MODEL, model(namespace, f"greedy{number}", uri))
            # By now as many are at it as may be.
            async with asyncio.timeout(60):
                while len(webhook.asked) < 6:
                    await asyncio.sleep(0.1)
            for number in range(5):
                began = time.monotonic()
                await kube.create(ONNX_MODEL, model(modest, f"modest{number}", uri))
                async with asyncio.timeout(SLOW_SECONDS):
                    while not await kube.get(DEPLOYMENT, modest, f"modest{number}"):
                        await asyncio.sleep(0.05)
                assert time.monotonic() - began < SLOW_SECONDS / 2
            assert not await kube.get(DEPLOYMENT, namespace, "greedy0"), "they were slow all the time"
        finally:
            operator.stop()


async def test_an_object_that_is_not_taken_in_time_is_given_more_the_next_time(
    apiserver, namespace, kube, authority, monkeypatch
):
    """As a webhook that is out of order, and may be ignored, takes its whole time for every object."""
    monkeypatch.setattr(patience, "WRITE_SECONDS", 1.0)

    async def late(request):
        await asyncio.sleep(2)
        return True, ""

    async with admission(apiserver, authority, namespace, late):
        began = time.monotonic()
        with pytest.raises(ApiError) as refused:
            await kube.apply(DEPLOYMENT, deployment(namespace, "a"))
        assert refused.value.status == 504
        assert time.monotonic() - began < 2
        await asyncio.sleep(2)
        assert await kube.get(DEPLOYMENT, namespace, "a") is None, "what nobody waits for is not done"
        assert await kube.apply(DEPLOYMENT, deployment(namespace, "a"))
