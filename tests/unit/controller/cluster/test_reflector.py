"""Following the cluster through whatever a connection, or an API server, may do."""

import asyncio
import json
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import pytest

from onnx_operator.controller.cluster import kube as kube_module
from onnx_operator.controller.cluster import reflector as module
from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.cluster.kinds import POD, SERVICE
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.reflector import Reflector, Reflectors
from onnx_operator.controller.cluster.store import Shape, Store
from tests.unit.controller.cluster.test_kube import kubeconfig

LABEL = "onnx-operator.dev/model"


def service(name="a", version=1, uid=None, namespace="ns", **more):
    metadata = {"name": name, "namespace": namespace, "uid": uid or name, "resourceVersion": str(version)}
    return {"metadata": metadata | {"labels": {LABEL: "m"}}, **more}


def event(kind, item):
    return json.dumps({"type": kind, "object": {"apiVersion": "v1", "kind": "Service"} | item}).encode() + b"\n"


def bookmark(version):
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version), "creationTimestamp": None}})


def status(code, reason="Expired"):
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": f"told {code}"}


GONE = event("ERROR", {"kind": "Status", **status(410)})
STALL = object()


class Api:
    """Lists what it is given; each watch sends what its turn has, then ends, or stalls."""

    def __init__(self):
        self.items, self.version, self.refusal = [], 10, {}
        self.watches = []
        self.asked = []
        self.writers = []

    async def serve(self, reader, writer):
        self.writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                target = urlsplit(head.split(" ")[1])
                query = {key: values[0] for key, values in parse_qs(target.query).items()}
                self.asked.append((target.path, query))
                namespace = target.path.split("/")[4] if "/namespaces/" in target.path else ""
                if code := self.refusal.get(namespace) or self.refusal.get("watch" if "watch" in query else "list"):
                    self._send(writer, code, json.dumps(status(code, "Forbidden")).encode())
                elif "watch" in query:
                    await self._watch(writer)
                else:
                    shown = [i for i in self.items if namespace in ("", i["metadata"]["namespace"])]
                    self._send(writer, 200, json.dumps(self._page(shown, query)).encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _page(self, shown, query):
        start, limit = int(query.get("continue", 0)), int(query["limit"])
        following = {"continue": str(start + limit)} if start + limit < len(shown) else {}
        metadata = {"resourceVersion": str(self.version), **following}
        return {"metadata": metadata, "items": shown[start : start + limit]}

    @staticmethod
    def _send(writer, code, body):
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (code, len(body), body))

    async def _watch(self, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in self.watches.pop(0) if self.watches else [STALL]:
            if part is STALL:
                await asyncio.Event().wait()
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    @property
    def watched_from(self):
        return [query["resourceVersion"] for _, query in self.asked if "watch" in query]

    @property
    def listed(self):
        return sum("watch" not in query for _, query in self.asked)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF", module.Backoff(first=0.01, longest=0.02))
    monkeypatch.setattr(module, "LOST_SECONDS", 0.2)


@asynccontextmanager
async def following(tmp_path, api, namespaces=(), kinds=(SERVICE,)):
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
    kube = await Kube.connect(kubeconfig(tmp_path, server.sockets[0].getsockname()[1]))
    store = Store({kind: Shape({LABEL: None}) for kind in kinds})
    reflectors = Reflectors(kube, store, namespaces)
    try:
        async with asyncio.timeout(20):
            await reflectors.start()
            yield store
    finally:
        await reflectors.stop()
        await kube.close()
        server.close()
        for writer in api.writers:
            writer.close()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def names(store):
    return sorted(name for _, name in store.keys(SERVICE))


async def test_a_list_of_many_pages_is_one_moment_and_the_watch_goes_on_from_it(tmp_path):
    api = Api()
    api.items = [service(f"a{n}", n + 1) for n in range(1200)]
    api.version = 2000
    api.watches = [[event("DELETED", service("a7", 2001)), bookmark(2050), STALL]]
    async with following(tmp_path, api) as store:
        assert store.knows(SERVICE, "ns")
        await until(lambda: len(names(store)) == 1199)
        assert api.watched_from == ["2000"]
        assert api.listed == 3
        assert api.asked[0][1]["labelSelector"] == LABEL
        assert api.asked[-1][1]["allowWatchBookmarks"] == "true"


async def test_a_watch_that_ends_goes_on_where_it_was(tmp_path, quick):
    api = Api()
    api.watches = [[event("ADDED", service("a", 11))], [bookmark(40)], [event("ADDED", service("b", 41)), STALL]]
    async with following(tmp_path, api) as store:
        await until(lambda: names(store) == ["a", "b"])
        assert (api.watched_from, api.listed) == (["10", "11", "40"], 1)


@pytest.mark.parametrize("how", ["event", "status"])
async def test_what_was_deleted_during_a_gap_is_noticed(tmp_path, quick, how):
    api = Api()
    api.items = [service("a", 1), service("b", 2)]
    async with following(tmp_path, api) as store:
        changed = []
        store.changed = changed.append
        await until(lambda: api.watched_from)
        api.items, api.version = [service("b", 2), service("c", 90)], 100
        if how == "event":
            api.watches = [[GONE]]
        else:
            api.refusal = {"watch": 410}
        for writer in api.writers:
            writer.close()
        if how == "status":
            await until(lambda: len(api.watched_from) > 1)
            api.refusal = {}
        await until(lambda: names(store) == ["b", "c"] and api.watched_from[-1] == "100")
        assert sorted(c.name for c in changed) == ["a", "c"], "and nothing else is news"


async def test_a_namespace_without_rights_is_told_and_tried_again_and_the_others_go_on(tmp_path, quick, caplog):
    api = Api()
    api.items = [service("a", 1, namespace="good"), service("b", 2, namespace="bad")]
    api.refusal = {"bad": 403}
    async with following(tmp_path, api, ["good", "bad"]) as store:
        assert (store.knows(SERVICE, "good"), store.knows(SERVICE, "bad")) == (True, False)
        assert [r.namespace for r in caplog.records if r.levelname == "ERROR"] == ["bad"], "once"
        api.refusal = {}
        await until(lambda: store.knows(SERVICE, "bad"))
        assert names(store) == ["a", "b"]
        # Rights that are taken away later.
        api.refusal = {"good": 403}
        for writer in api.writers:
            writer.close()
        await until(lambda: not store.knows(SERVICE, "good"))
        assert store.knows(SERVICE, "bad")


async def test_a_watch_that_brings_nothing_has_stalled(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(kube_module, "SILENCE_SECONDS", 0.3)
    api = Api()
    api.watches = [[bookmark(11), STALL], [event("ADDED", service("a", 12)), STALL]]
    async with following(tmp_path, api) as store:
        await until(lambda: names(store) == ["a"])
        assert api.watched_from[:2] == ["10", "11"]


async def test_an_api_server_that_is_away_for_long_is_not_believed_to_be_as_it_was(tmp_path, quick):
    api = Api()
    api.items = [service("a", 1)]
    async with following(tmp_path, api) as store:
        api.refusal = {"watch": 500, "list": 500}
        for writer in api.writers:
            writer.close()
        await until(lambda: not store.knows(SERVICE, "ns"))
        assert names(store) == ["a"]
        api.refusal = {}
        await until(lambda: store.knows(SERVICE, "ns"))


async def test_a_start_without_any_answer_goes_on(tmp_path, quick):
    api = Api()
    api.refusal = {"list": 500}
    async with following(tmp_path, api) as store:
        assert not store.knows(SERVICE, "ns")


async def test_a_watch_that_ends_at_once_is_not_asked_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF", module.Backoff(first=0.2))
    api = Api()
    api.watches = [[] for _ in range(1000)]
    async with following(tmp_path, api):
        await asyncio.sleep(1)
        assert len(api.asked) < 10


ODD = {
    "half a character": b'{"type":"MODIFIED","object":%s,"x":"\\ud800"}\n',
    "a number without end": b'{"type":"MODIFIED","object":%s,"x":' + b"9" * 5000 + b"}\n",
    "beyond a float": b'{"type":"MODIFIED","object":%s,"x":1e999}\n',
}


@pytest.mark.parametrize("line", ODD.values(), ids=ODD)
async def test_an_event_that_cannot_be_read_takes_its_object_and_no_other(tmp_path, quick, line):
    api = Api()
    api.items = [service("a", 1), service("odd", 2)]
    odd = json.dumps({"apiVersion": "v1", "kind": "Service"} | service("odd", 11)).encode()
    api.watches = [[line % odd, event("ADDED", service("b", 12)), STALL]]
    async with following(tmp_path, api) as store:
        await until(lambda: names(store) in (["a", "b"], ["a", "b", "odd"]))
        assert (api.listed, api.watched_from) == (1, ["10"]), "and the watch goes on"


async def test_deep_events_are_read(tmp_path, quick):
    deep = b'{"a":' * 9000 + b"1" + b"}" * 9000
    line = event("ADDED", service("a", 11, deep=[])).replace(b'"deep": []', b'"deep": ' + deep)
    api = Api()
    api.watches = [[line, STALL]]
    async with following(tmp_path, api) as store:
        await until(lambda: names(store) == ["a"])


HOSTILE = {
    "no JSON": b"what?\n",
    "no event": b"[1]\n",
    "no object": b'{"type":"ADDED","object":7}\n',
    "another type": event("EXPLODED", service("x", 11)),
    "another kind": event("ADDED", {"kind": "Secret"} | service("x", 11)),
    "another namespace": event("ADDED", service("x", 11, namespace="elsewhere")),
    "no uid": event("ADDED", {"metadata": {"name": "x", "namespace": "ns", "resourceVersion": "11"}}),
    "no namespace's name": event("ADDED", service("x", 11, namespace="../x")),
    "an error of no code": event("ERROR", {"code": "x", "message": [1]}),
    "half an event": event("ADDED", service("x", 11))[:20],
}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE)
async def test_what_is_no_event_of_the_kind_is_not_believed_and_ends_nothing(tmp_path, quick, line):
    api = Api()
    api.watches = [[line], [line], [event("ADDED", service("a", 12)), STALL]]
    async with following(tmp_path, api, ["ns"]) as store:
        await until(lambda: names(store) == ["a"])


async def test_an_event_without_end_is_not_read_to_its_end(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(kube_module, "OBJECT_BYTES", 1_000_000)
    api = Api()
    api.watches = [[b"x" * 700_000, b"x" * 700_000, STALL], [event("ADDED", service("a", 12)), STALL]]
    async with following(tmp_path, api) as store:
        await until(lambda: names(store) == ["a"])


async def test_a_large_event_that_stops_halfway_gives_its_turn_back(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(kube_module, "LINE_SECONDS", 0.3)
    api = Api()
    large = event("ADDED", service("large", 13, spec="x" * 600_000))
    api.watches = [[large[:400_000], STALL], [large, event("ADDED", service("a", 14)), STALL]]
    async with following(tmp_path, api) as store:
        await until(lambda: names(store) == ["a", "large"])


async def test_many_namespaces_are_followed_side_by_side(tmp_path, quick):
    """Each watch takes a connection, and others of the operator's need some too."""
    api = Api()
    api.items = [service("a", 1, namespace=f"n{n}") for n in range(120)]
    async with following(tmp_path, api, [f"n{n}" for n in range(120)]) as store:
        await until(lambda: len(api.watched_from) == 120)
        assert len(store.keys(SERVICE)) == 120


async def test_a_refused_scan_is_what_the_api_server_said(tmp_path):
    api = Api()
    api.refusal = {"list": 403}
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
    kube = await Kube.connect(kubeconfig(tmp_path, server.sockets[0].getsockname()[1]))
    with pytest.raises(ApiError, match="told 403"):
        await kube.scan(POD, None, {}, lambda item: None)
    assert Reflector(kube, Store({POD: Shape()}), POD, None).scope is None
    await kube.close()
    server.close()
