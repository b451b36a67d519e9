"""What was concluded of a source stays concluded: no restart reads it again, and Ready never falls for that."""

import asyncio
import hashlib
import json

import model_signing
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from onnx_operator.api import names
from onnx_operator.controller.cluster.kinds import ONNX_MODEL
from tests import models
from tests.integration.working import at_work, conditions, serve, status, told, until
from tests.unit.model.webkit import FileServer, Server

BODY = models.linear()


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    """A signature of the model, and who made it."""
    folder, key = tmp_path_factory.mktemp("signing"), ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    (folder / "key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    (folder / "m.onnx").write_bytes(BODY)
    config = model_signing.signing.Config().use_elliptic_key_signer(private_key=folder / "key")
    config.sign(folder / "m.onnx", folder / "m.onnx.sig")
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    text = key.public_key().public_bytes(serialization.Encoding.PEM, public).decode()
    return (folder / "m.onnx.sig").read_bytes(), {"signatures": {"required": True, "publicKeys": text}}


@pytest.fixture
async def source(desk, authority, signed):
    """A store that holds the model and its signature; what it was asked is told."""
    files = {"/m.onnx": FileServer(BODY), "/m.onnx.sig": FileServer(signed[0])}

    async def answer(request):
        await (files[request.path](request) if request.path in files else request.answer(404))

    async with Server(answer, authority.server) as server:
        desk.url = f"https://localhost:{server.port}"
        yield server


async def looked_at(desk, operator, reads):
    """How much was read once an operator has looked at the model, and would have read it."""

    async def looked():
        return (desk.namespace, "m") in operator.reconciler._uids and not operator.queue._working

    await until(looked)
    await asyncio.sleep(1)
    assert (await conditions(desk))["Progressing"]["reason"] == "Complete"
    return len(reads)


async def version(desk):
    return (await desk.kube.get(ONNX_MODEL, desk.namespace, "m"))["metadata"]["resourceVersion"]


async def refresh(desk, _signed):
    desk.kubectl("annotate", "onnx", "m", f"{names.ANNOTATION_REFRESH}=1")
    return {}


async def pin(desk, _signed):
    await desk.write(model={"sha256": hashlib.sha256(BODY).hexdigest()})
    return {}


async def signatures(_desk, signed):
    return signed[1]


# The API server spells some characters in its own way.
ASKED = {
    "a refresh": (refresh, ""),
    "of a link": (refresh, "?a=1&b=2"),
    "a pin": (pin, ""),
    "signatures": (signatures, ""),
}


@pytest.mark.parametrize(("ask", "query"), ASKED.values(), ids=ASKED)
async def test_a_look_that_found_the_same_bytes_is_not_repeated_by_a_restart(desk, source, signed, ask, query):
    async with at_work(await desk.operator()):
        await desk.write(model={"uri": f"{desk.url}/m.onnx{query}"})
        await serve(desk)
    before, reads = await conditions(desk), len(source.requests)
    deployed = (await desk.deployment())["metadata"]["generation"]

    settings = await ask(desk, signed)
    key = (await status(desk))["inspection"]["key"]
    async with at_work(await desk.operator(**settings)):

        async def concluded():
            found = await status(desk)
            return found["inspection"]["key"] != key and found["conditions"][0]["status"] == "True"

        await until(concluded)
        await told(desk, "Progressing", "Complete")
    assert len(source.requests) > reads, "it was asked for, and so it was read"
    asked = await conditions(desk)
    assert asked["Ready"]["lastTransitionTime"] == before["Ready"]["lastTransitionTime"] or ask is pin

    for _ in range(2):
        reads, written, told_before = len(source.requests), await version(desk), await status(desk)
        async with at_work(await desk.operator(**settings)) as operator:
            assert await looked_at(desk, operator, source.requests) == reads
        assert await version(desk) == written, json.dumps([told_before, await status(desk)])
    assert (await desk.deployment())["metadata"]["generation"] == deployed


async def test_ready_stays_while_what_serves_is_looked_at_again(desk, source):
    async with at_work(await desk.operator()):
        await desk.write()
        await serve(desk)
        before = await conditions(desk)
        since = desk.cluster.get("onnx", "m", desk.namespace)["metadata"]["resourceVersion"]
        key = (await status(desk))["inspection"]["key"]
        await refresh(desk, None)
        seen = []

        async def over():
            found = await status(desk)
            seen.append({c["type"]: c["status"] for c in found["conditions"]}["Ready"])
            return found["inspection"]["key"] != key

        await until(over)
        assert since != await version(desk)
    assert set(seen) == {"True"}
    assert (await conditions(desk))["Ready"] == before["Ready"]
