"""The way to the API server: whatever breaks on it is an error that callers know."""

import asyncio
import json
from pathlib import Path

import pytest

from onnx_operator.controller.cluster.answers import ApiError, failure
from onnx_operator.controller.cluster.kinds import DEPLOYMENT, POD
from onnx_operator.controller.cluster.kube import Kube


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


FORBIDDEN = 'deployments.apps "m" is forbidden:'


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
        (422, f"{FORBIDDEN} ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", False, True),
        (413, f"{FORBIDDEN} ValidatingAdmissionPolicy 'p' denied request: no", False, True),
        (401, f"{FORBIDDEN} ValidatingAdmissionPolicy 'p' denied request: no", False, True),
        (422, "pods is forbidden: whatever", False, True),
        (422, 'Deployment.apps "m" is invalid: metadata.labels: Invalid value: "x is forbidden: y"', True, True),
        (403, f'{FORBIDDEN} User "o" cannot patch resource "deployments"', False, True),
    ],
)
def test_only_what_lies_in_the_object_is_invalid(status, message, invalid, refused):
    error = ApiError(status, "", message)
    assert (error.invalid, error.refused) == (invalid, refused)


@pytest.mark.parametrize(
    ("message", "by_admission"),
    [
        (f"{FORBIDDEN} ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", True),
        (f"{FORBIDDEN} exceeded quota: small", True),
        ('admission webhook "v.example.com" denied the request: no', True),
        (f'{FORBIDDEN} User "o" cannot patch resource "deployments" in API group "apps"', False),
        ('Deployment.apps "m" is invalid: spec.replicas: Invalid value: -1', False),
        ("etcdserver: request timed out", False),
    ],
)
def test_what_may_change_its_mind_is_told_from_what_cannot(message, by_admission):
    assert ApiError(422, "", message).by_admission is by_admission


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ApiError(429, "TooManyRequests", "slow down"), "answers 429 (TooManyRequests): slow down"),
        (ApiError(413, "", "limit is 3145728"), "answers 413: limit is 3145728"),
        (TimeoutError(), "does not answer in time"),
        (ConnectionError("the API server does not answer: X"), "does not answer: X"),
    ],
)
def test_a_call_that_failed_is_told_in_the_api_servers_words(error, words):
    assert words in failure(error)


async def test_an_api_server_is_reached_by_an_address_of_ipv6(tmp_path, monkeypatch):
    """As KUBERNETES_SERVICE_HOST names it in a cluster of IPv6 alone."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "default", "uid": "u"}}
    body = json.dumps(pod).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    hosts = []

    async def handle(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        hosts.extend(line for line in head.decode().split("\r\n") if line.startswith("Host:"))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "::1", 0)
    port = server.sockets[0].getsockname()[1]
    path = Path(kubeconfig(tmp_path, port))
    path.write_text(path.read_text().replace("127.0.0.1", "[::1]"))
    kube = await Kube.connect(str(path))
    try:
        assert await kube.get(POD, "default", "a") == pod
        assert hosts == [f"Host: [::1]:{port}"]
    finally:
        await kube.close()
        server.close()
