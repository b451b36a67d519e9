"""Namespaced mode with real RBAC: a namespace whose rights are gone is degraded and said so, the others go on."""

import asyncio
import json
import re

import pytest

from onnx_operator.api import names
from onnx_operator.controller.cluster.kinds import ONNX_MODEL
from onnx_operator.controller.cluster.kube import Kube
from tests.integration.rights import allow, deny, limited
from tests.integration.test_controller_process import Operator
from tests.integration.wire import wired

pytestmark = pytest.mark.usefixtures("crd")


@pytest.fixture
async def kube(apiserver):
    connection = await Kube.connect(str(apiserver.kubeconfig))
    yield connection
    await connection.close()


async def made(kube, namespace, name):
    manifest = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": namespace},
        # Refused for good, and by nothing but looking at it.
        "spec": {"model": {"uri": "https://127.0.0.1/m.onnx"}},
    }
    await kube.create(ONNX_MODEL, manifest)


async def told(kube, namespace, name, seconds=30):
    async with asyncio.timeout(seconds):
        while not ((await kube.get(ONNX_MODEL, namespace, name)).get("status") or {}).get("conditions"):
            await asyncio.sleep(0.1)


def followed(operator, namespace):
    """Whether health and metrics tell that a namespace is followed; they must agree."""
    degraded = json.loads(operator.get("/readyz"))["notFollowed"]
    lines = re.findall(r'onnx_operator_not_followed\{kind="\w+",namespace="([^"]+)"\} 1\.0', operator.get("/metrics"))
    return namespace not in degraded and namespace not in lines


async def until(condition, seconds=60):
    def holds():
        try:
            return condition()
        except AssertionError:
            # It does not answer yet.
            return False

    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.2)


@pytest.fixture
async def operator(apiserver, namespace, tmp_path):
    """One that may work in the second of two namespaces only; and the wire between it and the API server."""
    other = f"{namespace}-b"
    apiserver.kubectl("create", "namespace", other)
    allow(apiserver, other, other)
    async with wired(apiserver.kubeconfig, tmp_path) as (wire, led):
        few = limited(apiserver, other, led, tmp_path)
        # Its Lease is where it has rights; the namespace without any is the first of the list.
        running = await asyncio.to_thread(Operator, few, other, tmp_path, namespaces=[namespace, other])
        running.wire, running.other = wire, other
        try:
            yield running
        finally:
            running.stop()


async def test_a_namespace_without_rights_is_told_and_served_once_it_has_them(apiserver, namespace, kube, operator):
    await until(lambda: json.loads(operator.get("/readyz"))["leading"])
    await until(lambda: not followed(operator, namespace))
    assert followed(operator, operator.other)
    assert f'"namespace": "{namespace}"' in operator.log.read_text()
    await made(kube, operator.other, "here")
    await told(kube, operator.other, "here")
    await made(kube, namespace, "there")
    allow(apiserver, namespace, operator.other)
    await told(kube, namespace, "there", 60)
    await until(lambda: followed(operator, namespace))


async def test_rights_that_are_taken_away_cost_that_namespace_alone(apiserver, namespace, kube, operator):
    allow(apiserver, namespace, operator.other)
    await until(lambda: json.loads(operator.get("/readyz"))["leading"])
    await until(lambda: followed(operator, namespace))
    deny(apiserver, namespace)
    # Watches that are open go on for minutes, whatever the rights.
    operator.wire.cut()
    await until(lambda: not followed(operator, namespace))
    await made(kube, operator.other, "here")
    await told(kube, operator.other, "here")
    assert operator.controller.poll() is None
    assert json.loads(operator.get("/readyz"))["status"] == "ok", "the others are served"
    allow(apiserver, namespace, operator.other)
    await made(kube, namespace, "there")
    await told(kube, namespace, "there", 60)
    await until(lambda: followed(operator, namespace))
