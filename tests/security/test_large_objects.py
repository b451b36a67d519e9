"""Large objects that carry the operator's label take none of the memory that everybody's models are reconciled with."""

import asyncio
import json
import os
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import pytest

from onnx_operator.api import names
from onnx_operator.controller.cluster import kube as kube_module
from onnx_operator.controller.cluster.kinds import CHILD_KINDS, POD, SERVICE
from onnx_operator.controller.observation.pods import slim_pod
from onnx_operator.controller.rollout.children import list_children
from tests.cluster.layout import ROOT
from tests.security.stand_in import found, stand_in

MODEL = {"metadata": {"name": "m", "namespace": "tenant", "uid": "u"}}
MAX_GROWTH = 64 * 1024
"""KiB. The chart gives the controller 512 MiB."""


def pod(number=0, size=1_200_000, **metadata):
    return {
        "metadata": {
            "name": f"p{number}",
            "namespace": "tenant",
            "uid": f"u{number}",
            "labels": {names.LABEL_MODEL: "m"},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "m-abc", "uid": "r", "controller": True}
            ],
            **metadata,
        },
        "spec": {"containers": [{"name": "c", "env": [{"name": "A", "value": "x" * size}]}]},
    }


def paged(make, count):
    """Answers lists as the API server does: ``count`` objects, by limit and continue."""

    def made(number):
        item = make(number)
        return item if isinstance(item, bytes) else json.dumps(item).encode()

    def handler(target, headers):
        url = urlsplit(target)
        query = parse_qs(url.query)
        start = int(query.get("continue", ["0"])[0])
        if not url.path.endswith("/pods"):
            return found({"items": []})
        end = min(count, start + int(query["limit"][0]))
        if "PartialObjectMetadata" in headers["accept"]:
            items = [json.dumps({"metadata": make(number)["metadata"]}).encode() for number in range(start, end)]
        else:
            items = [made(number) for number in range(start, end)]
        head = b'{"metadata": {"continue": "%s"}, "items": [' % (str(end).encode() if end < count else b"")
        return 200, head + b",".join(items) + b"]}"

    return handler


LARGE = json.dumps(pod()).encode()


CLIENT = """
import asyncio, sys
from onnx_operator.controller.rollout.children import list_children
from onnx_operator.controller.cluster.kube import Kube
from tests.security.test_large_objects import MODEL

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

async def main():
    kube = await Kube.connect(sys.argv[1])
    before = peak()
    children = await asyncio.gather(*(list_children(kube, MODEL, lambda _: None) for _ in range(int(sys.argv[2]))))
    print(len(children[0].pods), peak() - before)
    await kube.close()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("count", "at_once"), [(150, 1), (60, 4), (1000, 1)], ids=["150 pods", "four models at once", "1000 pods"]
)
async def test_a_controller_does_not_grow_with_what_strangers_label(tmp_path, count, at_once):
    """Pods of 1.2 MB each, as anybody who may create pods can make them; the operator's process is measured."""
    async with stand_in(tmp_path, paged(lambda number: LARGE, count)):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CLIENT, str(tmp_path / "kubeconfig"), str(at_once)),
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'operator'}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 180)
    assert process.returncode == 0, err.decode()[-3000:]
    kept, growth = map(int, out.split())
    assert 0 < kept <= kube_module.LIST_ITEMS
    assert growth < MAX_GROWTH, f"{growth} KiB more"


async def test_all_small_objects_are_read_however_many_pages_they_take(tmp_path):
    async with stand_in(tmp_path, paged(lambda n: pod(n, 10), 350)) as (kube, server):
        children = await list_children(kube, MODEL, lambda _: None)
        assert [p["metadata"]["name"] for p in children.pods] == [f"p{n}" for n in range(350)]
        assert sum(path.endswith("/pods") for path in server.paths) == 4


async def test_pods_beyond_what_is_looked_at_are_left_out(tmp_path):
    async with stand_in(tmp_path, paged(lambda n: pod(n, 10), 5000)) as (kube, server):
        assert len((await list_children(kube, MODEL, lambda _: None)).pods) == kube_module.LIST_ITEMS
        assert sum(path.endswith("/pods") for path in server.paths) == kube_module.LIST_ITEMS // kube_module.PAGE_ITEMS


async def test_an_object_too_large_to_read_is_passed_over_and_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(kube_module, "PAGE_BYTES", 20_000)
    monkeypatch.setattr(kube_module, "OBJECT_BYTES", 50_000)
    async with stand_in(tmp_path, paged(lambda n: pod(n, 100_000 if n == 3 else 10), 6)) as (kube, _):
        listed = await kube.list(POD, "tenant", {names.LABEL_MODEL: "m"}, slim_pod)
    assert [p["metadata"]["name"] for p in listed] == ["p0", "p1", "p2", "p4", "p5"]
    assert [r.objects for r in caplog.records if "too large" in r.message] == [["p3"]]


async def test_what_is_not_the_models_is_dropped_while_it_is_read(tmp_path):
    kept = []

    def keep(item):
        kept.append(item["metadata"]["name"])

    async with stand_in(tmp_path, lambda *_: found({"items": [pod(n, 10) for n in range(5)]})) as (kube, _):
        assert await kube.list(SERVICE, "tenant", {"a": "b"}, keep) == []
    assert len(kept) == 5


async def test_of_objects_that_claim_a_model_nothing_large_is_kept(tmp_path):
    """Who may create Deployments or ControllerRevisions can name a model as their controller: its UID is no secret."""
    owner = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "m", "uid": "u", "controller": True}

    def claiming(target, headers):
        return found({"items": [pod(n, 100_000, ownerReferences=[owner]) | {"data": {}, "revision": 1} for n in "ab"]})

    async with stand_in(tmp_path, claiming) as (kube, _):
        children = await list_children(kube, MODEL, lambda item: None)
    assert children.revisions == ()
    assert {(o["kind"], o["metadata"]["name"]) for o in children.owned} == {
        (kind.kind, name) for kind in CHILD_KINDS for name in ("pa", "pb")
    }
    assert len(json.dumps(children.owned)) < 2000, "enough to have them deleted"


async def test_a_log_is_read_up_to_what_was_asked_for(tmp_path):
    """Whoever stands in for a node may send more than the kubelet would."""
    async with stand_in(tmp_path, lambda *_: (200, b"\xff\xfe" + b"x" * 5_000_000)) as (kube, server):
        log = await kube.log("tenant", "p", "c", 256 * 1024)
        assert len(log) == 256 * 1024
        assert log[:3] == "\ufffd\ufffdx"
        assert "limitBytes=262144" in server.asked[0][1]


async def test_a_single_object_of_the_largest_size_that_etcd_takes_is_read(tmp_path):
    """Every byte of it may take six in JSON."""
    model = pod(0, 0) | {"apiVersion": "v1", "kind": "Pod", "data": "<" * 1_500_000}
    body = json.dumps(model).replace("<", "\\u003c").encode()
    async with stand_in(tmp_path, lambda *_: (200, body)) as (kube, _):
        got = await kube.get(POD, "tenant", "p0")
        assert got is not None
        assert got["data"] == model["data"]
