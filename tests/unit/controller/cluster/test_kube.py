"""The way to the API server: whatever breaks on it is an error that callers know."""

import asyncio
import json

import pytest

from onnx_operator.controller.cluster.kube import DEPLOYMENT, POD, ApiError, Kube


def kubeconfig(folder, port):
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return str(path)


async def answering(answer: bytes):
    """A server that reads a request, sends this, and hangs up."""

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    return await asyncio.start_server(handle, "127.0.0.1", 0)


async def get(tmp_path, answer: bytes):
    server = await answering(answer)
    kube = await Kube.connect(kubeconfig(tmp_path, server.sockets[0].getsockname()[1]))
    try:
        return await kube.get(POD, "default", "a")
    finally:
        await kube.close()
        server.close()


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{", b"what?\r\n\r\n"],
    ids=["hangs up", "short body", "no HTTP"],
)
async def test_a_broken_connection_is_a_connection_error(tmp_path, answer):
    with pytest.raises(ConnectionError):
        await get(tmp_path, answer)


async def test_a_server_that_is_not_there_is_an_os_error(tmp_path):
    kube = await Kube.connect(kubeconfig(tmp_path, 1))
    with pytest.raises(OSError, match="does not answer"):
        await kube.list(DEPLOYMENT, "default", {"a": "b"})
    await kube.close()


async def test_a_refusal_carries_the_reason_and_the_message_of_the_api(tmp_path):
    body = json.dumps({"kind": "Status", "reason": "Forbidden", "message": "pods is forbidden", "code": 403}).encode()
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    with pytest.raises(ApiError) as refusal:
        await get(tmp_path, answer % (len(body), body))
    assert (refusal.value.status, refusal.value.reason) == (403, "Forbidden")
    assert refusal.value.message == "pods is forbidden"


@pytest.mark.parametrize(
    ("status", "message", "invalid", "refused"),
    [
        (422, "spec.replicas: Invalid value", True, True),
        (500, "failed to create typed patch object: .spec.x: field not declared in schema", True, True),
        (500, 'failed calling webhook "v.example.com": connection refused', False, True),
        (400, 'admission webhook "v.example.com" denied the request', False, True),
        (403, "exceeded quota: small", False, True),
        (500, "etcdserver: request timed out", False, False),
        (429, "too many requests", False, False),
    ],
)
def test_only_what_lies_in_the_object_is_invalid(status, message, invalid, refused):
    error = ApiError(status, "", message)
    assert (error.invalid, error.refused) == (invalid, refused)
