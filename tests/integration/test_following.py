"""Following a real API server: what the store holds is what is there, whatever happens to the watches."""

import asyncio
import contextlib
import random
import subprocess
from contextlib import asynccontextmanager

import pytest

from onnx_operator.api import names
from onnx_operator.controller.cluster import kube as kube_module
from onnx_operator.controller.cluster import reflector as reflector_module
from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.cluster.kinds import CONTROLLER_REVISION, SERVICE
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.reflector import Reflector, Reflectors
from onnx_operator.controller.cluster.store import Shape, Store
from tests.cluster import apiserver as api_server_only
from tests.integration.wire import wired

LABELS = {names.LABEL_MODEL: None}


def service(namespace, name, **spec):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {names.LABEL_MODEL: "m"}},
        "spec": {"ports": [{"port": 80}], **spec},
    }


def without_version(item):
    return {**item, "metadata": {k: v for k, v in item["metadata"].items() if k != "managedFields"}}


def shapes(*kinds):
    return {kind: Shape(LABELS, without_version) for kind in kinds}


class Followed:
    """A store that follows, and somebody else who writes, by a connection of his own."""

    def __init__(self, store, kube, other, reflectors):
        self.store, self.kube, self.other, self.reflectors = store, kube, other, reflectors
        self.changed = []
        store.changed = self.changed.append

    async def truth(self, namespace):
        listed = await self.other.list(SERVICE, namespace, {names.LABEL_MODEL: "m"})
        return {i["metadata"]["name"]: without_version(i) for i in listed}

    def held(self, namespace):
        found = [self.store.find(*(SERVICE, *key)) for key in self.store.keys(SERVICE) if key[0] == namespace]
        return {i["metadata"]["name"]: i for i in found}

    async def same(self, namespace):
        """Wait until the store holds what is there, and nothing else."""
        async with asyncio.timeout(30):
            while self.held(namespace) != await self.truth(namespace):
                await asyncio.sleep(0.05)


@asynccontextmanager
async def followed(kubeconfig, other, namespaces=(), kinds=(SERVICE,)):
    kube = await Kube.connect(str(kubeconfig))
    others = await Kube.connect(str(other))
    store = Store(shapes(*kinds))
    kube.heard, kube.missed = store.heard, store.missed
    reflectors = Reflectors(kube, store, namespaces)
    made = Followed(store, kube, others, reflectors)
    async with asyncio.timeout(60):
        await reflectors.start()
    try:
        yield made
    finally:
        await reflectors.stop()
        await kube.close()
        await others.close()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(reflector_module, "_BACKOFF", reflector_module.Backoff(first=0.05, longest=0.2))


async def test_what_comes_changes_and_goes_is_held_as_it_is(apiserver, namespace):
    async with followed(apiserver.kubeconfig, apiserver.kubeconfig) as it:
        await it.other.create(SERVICE, service(namespace, "a"))
        await it.other.create(SERVICE, service(namespace, "b"))
        await it.same(namespace)
        await it.other.merge(SERVICE, namespace, "a", {"spec": {"sessionAffinity": "ClientIP"}})
        await it.same(namespace)
        # Without its label it is none of ours, and with it again it is.
        await it.other.merge(SERVICE, namespace, "a", {"metadata": {"labels": {names.LABEL_MODEL: None}}})
        await it.same(namespace)
        assert set(it.held(namespace)) == {"b"}
        await it.other.merge(SERVICE, namespace, "a", {"metadata": {"labels": {names.LABEL_MODEL: "m"}}})
        await it.same(namespace)
        assert set(it.held(namespace)) == {"a", "b"}
        for item in (await it.truth(namespace)).values():
            await it.other.delete(SERVICE, namespace, item["metadata"]["name"], item["metadata"]["uid"])
        await it.same(namespace)


async def test_own_writes_are_known_before_any_watch_tells(apiserver, namespace, tmp_path):
    async with (
        wired(apiserver.kubeconfig, tmp_path) as (wire, led),
        followed(led, apiserver.kubeconfig, [namespace]) as it,
    ):
        own = await Kube.connect(str(apiserver.kubeconfig))
        own.heard, own.missed = it.store.heard, it.store.missed
        wire.open.clear()
        made = await own.apply(SERVICE, service(namespace, "a"))
        assert it.held(namespace) == {"a": without_version(made)}
        await own.merge(SERVICE, namespace, "a", {"spec": {"sessionAffinity": "ClientIP"}})
        assert it.held(namespace)["a"]["spec"]["sessionAffinity"] == "ClientIP"
        await own.delete(SERVICE, namespace, "a", made["metadata"]["uid"])
        assert it.held(namespace) == {}
        again = await own.apply(SERVICE, service(namespace, "a"))
        assert it.held(namespace)["a"]["metadata"]["uid"] == again["metadata"]["uid"]
        seen = []
        it.store.changed = lambda change: seen.append(it.held(namespace)["a"]["metadata"]["uid"])
        wire.open.set()
        await it.other.create(SERVICE, service(namespace, "last"))
        await it.same(namespace)
        assert set(seen) == {again["metadata"]["uid"]}, "late news of the first never shows"
        # What a finalizer holds is there until it is gone.
        held = service(namespace, "held")
        held["metadata"]["finalizers"] = ["example.com/wait"]
        made = await own.apply(SERVICE, held)
        await own.delete(SERVICE, namespace, "held", made["metadata"]["uid"])
        assert "deletionTimestamp" in it.held(namespace)["held"]["metadata"]
        await own.merge(SERVICE, namespace, "held", {"metadata": {"finalizers": None}})
        await it.same(namespace)
        await own.delete(SERVICE, namespace, "never", "0")
        await own.close()


async def test_a_dry_run_tells_nothing(apiserver, namespace):
    async with followed(apiserver.kubeconfig, apiserver.kubeconfig, [namespace]) as it:
        await it.kube.apply(SERVICE, service(namespace, "a"), dry_run=True)
        await it.kube.create(SERVICE, service(namespace, "a"), dry_run=True)
        assert it.held(namespace) == {}


async def test_watches_that_are_cut_again_and_again_miss_nothing(apiserver, namespace, tmp_path, quick):
    """Somebody writes all the time, the operator too, and the wire is cut in between, sometimes for a while."""
    chance = random.Random(7)
    async with (
        wired(apiserver.kubeconfig, tmp_path) as (wire, led),
        followed(led, apiserver.kubeconfig, [namespace]) as it,
    ):
        for turn in range(80):
            name = f"a{chance.randrange(5)}"
            who = it.kube if chance.random() < 0.3 and not wire.refusing else it.other
            try:
                found = await it.other.get(SERVICE, namespace, name)
                if found and chance.random() < 0.4:
                    await who.delete(SERVICE, namespace, name, found["metadata"]["uid"])
                else:
                    await who.apply(SERVICE, service(namespace, name, ports=[{"port": 80 + turn}]), manager="x")
            except (OSError, ApiError):
                pass
            if turn % 8 == 3:
                wire.refusing = chance.random() < 0.5
                wire.cut()
            if turn % 8 == 6:
                wire.refusing = False
        wire.refusing = False
        await it.same(namespace)
        assert it.store.knows(SERVICE, namespace)


async def test_a_watch_through_which_nothing_comes_is_noticed(apiserver, namespace, tmp_path, quick, monkeypatch):
    monkeypatch.setattr(kube_module, "SILENCE_SECONDS", 2.0)
    async with (
        wired(apiserver.kubeconfig, tmp_path) as (wire, led),
        followed(led, apiserver.kubeconfig, [namespace]) as it,
    ):
        # As when a firewall forgets a connection: both ends believe in it.
        wire.open.clear()
        await it.other.create(SERVICE, service(namespace, "a"))
        await asyncio.sleep(0.2)
        wire.open = asyncio.Event()
        wire.open.set()
        await it.same(namespace)


async def test_a_place_that_is_too_long_ago_is_left_and_deletions_are_noticed(apiserver, namespace, tmp_path, quick):
    async with (
        wired(apiserver.kubeconfig, tmp_path) as (wire, led),
        followed(led, apiserver.kubeconfig, [namespace]) as it,
    ):
        made = await it.other.create(SERVICE, service(namespace, "a"))
        await it.other.create(SERVICE, service(namespace, "b"))
        await it.same(namespace)
        wire.refusing = True
        wire.cut()
        await it.other.delete(SERVICE, namespace, "a", made["metadata"]["uid"])
        (reflector,) = it.reflectors._all
        reflector._version = "1"
        told = len(it.changed)
        wire.refusing = False
        await it.same(namespace)
        assert [c.name for c in it.changed[told:]] == ["a"], "what stayed the same is no news"
        await it.other.create(SERVICE, service(namespace, "c"))
        await it.same(namespace)


async def test_an_api_server_that_is_restarted_is_followed_again(tmp_path, quick):
    folder = api_server_only.programs()
    if folder is None:
        pytest.skip("no programs of an API server's are built")
    api_server_only._sweep()
    server = await asyncio.to_thread(api_server_only._start, folder)
    try:
        async with followed(server.cluster.kubeconfig, server.cluster.kubeconfig) as it:
            made = {name: await it.other.create(SERVICE, service("default", name)) for name in "abc"}
            await it.same("default")
            told = len(it.changed)
            process = server.running[1]
            process.kill()
            await asyncio.to_thread(process.wait)
            with (server.folder / "kube-apiserver.log").open("ab") as log:
                server.running[1] = subprocess.Popen(process.args, stdout=log, stderr=log)
            while True:
                try:
                    await it.other.delete(SERVICE, "default", "b", made["b"]["metadata"]["uid"])
                    break
                except (OSError, ApiError):
                    await asyncio.sleep(0.2)
            await it.same("default")
            assert {c.name for c in it.changed[told:]} == {"b"}, "nothing else is looked at for a restart"
    finally:
        server.stop()


async def test_a_namespace_without_rights_keeps_no_other_from_being_followed(apiserver, namespace, quick, caplog):
    other = f"{namespace}-b"
    apiserver.kubectl("create", "namespace", other)
    rules = ["--verb=list,watch,get", "--resource=services"]
    for each in (namespace, other):
        apiserver.kubectl("create", "role", "reader", *rules, f"--namespace={each}")
    apiserver.kubectl("create", "rolebinding", "reader", "--role=reader", f"--user={namespace}", "-n", namespace)
    kube, others = await Kube.connect(str(apiserver.kubeconfig)), await Kube.connect(str(apiserver.kubeconfig))
    kube._api.set_default_header("Impersonate-User", namespace)
    store = Store(shapes(SERVICE))
    reflectors = Reflectors(kube, store, [namespace, other])
    it = Followed(store, kube, others, reflectors)
    async with asyncio.timeout(60):
        await reflectors.start()
        assert (store.knows(SERVICE, namespace), store.knows(SERVICE, other)) == (True, False)
        assert [r.namespace for r in caplog.records if r.levelname == "ERROR"] == [other]
        for each in (namespace, other):
            await others.create(SERVICE, service(each, "a"))
        await it.same(namespace)
        apiserver.kubectl("create", "rolebinding", "reader", "--role=reader", f"--user={namespace}", "-n", other)
        await it.same(other)
        assert store.knows(SERVICE, other)
    await reflectors.stop()
    await kube.close()
    await others.close()


async def test_revisions_of_any_form_pass_through(apiserver, namespace):
    """Their data is whatever its author likes."""
    async with followed(apiserver.kubeconfig, apiserver.kubeconfig, [namespace], [CONTROLLER_REVISION]) as it:
        for number, data in enumerate([None, "text", 7, {"a": [1.5, 10**18, "ü\\"]}, {"b": "x" * 500_000}]):
            revision = {
                "apiVersion": "apps/v1",
                "kind": "ControllerRevision",
                "metadata": {"name": f"r{number}", "namespace": namespace, "labels": {names.LABEL_MODEL: "m"}},
                "revision": number,
                "data": data,
            }
            # Some the API server does not take.
            with contextlib.suppress(ApiError):
                await it.other.create(CONTROLLER_REVISION, revision)
        listed = await it.other.list(CONTROLLER_REVISION, namespace, {names.LABEL_MODEL: "m"})
        truth = {i["metadata"]["name"]: without_version(i) for i in listed}
        async with asyncio.timeout(20):
            while len(it.store.keys(CONTROLLER_REVISION)) < len(truth):
                await asyncio.sleep(0.05)
        assert len(truth) > 1
        assert {name: it.store.find(CONTROLLER_REVISION, namespace, name) for name in truth} == truth
        assert Reflector(it.kube, it.store, CONTROLLER_REVISION, None).tried.is_set() is False
