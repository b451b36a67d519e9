"""The store: whatever is told in whatever order, in the end it holds what the API server holds, and never a ghost."""

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from onnx_operator.controller.cluster import store as module
from onnx_operator.controller.cluster.kinds import DEPLOYMENT, POD, SERVICE
from onnx_operator.controller.cluster.store import Large, Shape, Store, order_of, packed, unpacked

LABEL = "onnx-operator.dev/model"


def item(name="a", version=1, uid="u1", namespace="ns", model="m", **more):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "resourceVersion": str(version),
            "labels": {LABEL: model} if model else {},
        },
        **more,
    }


def shape(**changes):
    groups = {"groups": lambda i: (i["metadata"]["labels"][LABEL],)}
    return replace(Shape({LABEL: None}), **(groups | changes))


def made(**changes):
    store = Store({SERVICE: shape(**changes)})
    changed = []
    store.changed = changed.append
    return store, changed


def scan(store, items, version, scope=None):
    number = store.scanning(SERVICE, scope)
    for each in items:
        store.scanned(SERVICE, each, number)
    store.settled(SERVICE, scope, str(version), number)


# --- one thing at a time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1", "12", "9" * 39])
def test_versions_that_compare_are_numbers(version):
    assert order_of(version) == int(version)


@pytest.mark.parametrize("version", ["", "0", "01", "-1", "1.0", "a1", "١", "9" * 40, None, 7, "1\n"])
def test_what_is_no_such_number_does_not_compare(version):
    assert order_of(version) is None


def test_what_was_kept_comes_back_as_it_was_told():
    store, _ = made()
    told = item(spec={"a": [1, 2.5, "ü\ud800", None, 10**30, {"b": "x" * 1000}]})
    store.watched(SERVICE, None, "ADDED", told)
    assert store.find(SERVICE, "ns", "a") == told
    assert list(store.group(SERVICE, "ns", "m")) == [told]
    assert list(store.group(SERVICE, "other", "m")) == []


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists))
def test_packing_changes_nothing(value):
    assert unpacked(packed({"value": value})) == {"value": value}


def test_the_answer_to_a_write_counts_at_once_and_older_news_does_not_undo_it():
    store, changed = made()
    store.watched(SERVICE, None, "ADDED", item(version=3))
    store.heard(SERVICE, item(version=5, spec=1))
    store.watched(SERVICE, None, "MODIFIED", item(version=4, spec=0))
    store.watched(SERVICE, None, "MODIFIED", item(version=5, spec=1))
    assert store.find(SERVICE, "ns", "a") == item(version=5, spec=1)
    assert len(changed) == 2, "the event of what is known already is no news"


def test_a_late_answer_does_not_bring_back_what_was_deleted_since():
    store, _ = made()
    store.watched(SERVICE, None, "ADDED", item(version=3))
    store.watched(SERVICE, None, "DELETED", item(version=5))
    store.heard(SERVICE, item(version=4))
    assert store.find(SERVICE, "ns", "a") is None
    scan(store, [], 9)
    store.heard(SERVICE, item(version=8, uid="u2"))
    assert store.find(SERVICE, "ns", "a") is None, "made and deleted while nobody watched"
    store.watched(SERVICE, None, "BOOKMARK", {"metadata": {"resourceVersion": "12"}})
    store.heard(SERVICE, item(version=11, uid="u3"))
    assert store.find(SERVICE, "ns", "a") is None
    store.heard(SERVICE, item(version=13, uid="u4"))
    assert store.find(SERVICE, "ns", "a")


def test_a_deletion_of_our_own_is_final_whatever_the_watch_still_tells():
    store, _ = made()
    store.watched(SERVICE, None, "ADDED", item(version=3))
    store.missed(SERVICE, "ns", "a", "u1")
    for version in (3, 4):
        store.watched(SERVICE, None, "MODIFIED", item(version=version))
    assert not store.keys(SERVICE)
    store.watched(SERVICE, None, "ADDED", item(version=9, uid="u2"))
    assert store.has(SERVICE, "ns", "a")


def test_the_deletion_of_one_never_removes_its_successor():
    store, _ = made()
    store.watched(SERVICE, None, "ADDED", item(version=3))
    store.heard(SERVICE, item(version=7, uid="u2"))
    store.watched(SERVICE, None, "DELETED", item(version=6))
    store.missed(SERVICE, "ns", "a", "u1")
    assert store.find(SERVICE, "ns", "a") == item(version=7, uid="u2")
    store.watched(SERVICE, None, "MODIFIED", item(version=5))
    store.heard(SERVICE, item(version=8))
    assert store.find(SERVICE, "ns", "a") == item(version=7, uid="u2"), "the first has gone with its name"


def test_what_loses_its_label_goes_and_what_gets_it_back_returns():
    store, _ = made()
    store.watched(SERVICE, None, "ADDED", item(version=3))
    store.watched(SERVICE, None, "DELETED", item(version=4, model=""))
    assert not store.has(SERVICE, "ns", "a")
    store.heard(SERVICE, item(version=5))
    assert store.has(SERVICE, "ns", "a")
    store.watched(SERVICE, None, "ADDED", item(version=5))
    store.heard(SERVICE, item(version=6, model=""))
    assert not store.has(SERVICE, "ns", "a"), "an answer that shows it without the label"
    store.watched(SERVICE, None, "MODIFIED", item(version=5))
    assert not store.has(SERVICE, "ns", "a")


def test_a_scan_notices_what_was_deleted_unseen_and_tells_it_once():
    store, changed = made()
    scan(store, [item("a"), item("b", uid="u2", model="n")], 5)
    assert [c.name for c in changed] == ["a", "b"]
    scan(store, [item("a")], 9)
    assert store.keys(SERVICE) == [("ns", "a")]
    assert [(c.name, c.item, c.groups) for c in changed[2:]] == [("b", None, ("n",))]
    scan(store, [item("a")], 9)
    assert len(changed) == 3, "another scan that shows the same is no news"


def test_what_is_written_during_a_scan_stays():
    store, _ = made()
    number = store.scanning(SERVICE, None)
    store.heard(SERVICE, item("new", version=8, uid="u8"))
    store.scanned(SERVICE, item("old", version=2, uid="u2"), number)
    store.heard(SERVICE, item("old", version=9, uid="u2"))
    store.missed(SERVICE, "ns", "third", "u3")
    store.scanned(SERVICE, item("third", version=1, uid="u3"), number)
    store.settled(SERVICE, None, "7", number)
    assert {i["metadata"]["name"]: i["metadata"]["resourceVersion"] for i in store.group(SERVICE, "ns", "m")} == {
        "new": "8",
        "old": "9",
    }


def test_a_scan_of_one_namespace_says_nothing_of_another():
    store, _ = made()
    scan(store, [item("a", namespace="x")], 5, "x")
    scan(store, [item("b", namespace="y", uid="u2")], 6, "y")
    scan(store, [], 7, "x")
    assert store.keys(SERVICE) == [("y", "b")]
    assert (store.knows(SERVICE, "x"), store.knows(SERVICE, "z")) == (True, False)
    store.lost(SERVICE, "x")
    assert (store.knows(SERVICE, "x"), store.knows(SERVICE, "y")) == (False, True)
    assert not store.knows(POD, "y"), "a kind that nothing is kept of"


def test_a_restored_backup_is_believed_although_its_numbers_are_lower():
    store, _ = made()
    store.watched(SERVICE, None, "ADDED", item("a", version=50, spec="new"))
    store.watched(SERVICE, None, "ADDED", item("b", version=60, uid="u2"))
    store.watched(SERVICE, None, "DELETED", item("c", version=70, uid="u3"))
    store.missed(SERVICE, "ns", "d", "u4")
    backup = [item("a", version=10, spec="old"), item("c", version=11, uid="u3"), item("d", version=12, uid="u4")]
    scan(store, backup, 20)
    assert list(store.group(SERVICE, "ns", "m")) == backup
    store.watched(SERVICE, None, "MODIFIED", item("d", version=21, uid="u4"))
    assert store.find(SERVICE, "ns", "d")["metadata"]["resourceVersion"] == "21"


def test_where_versions_do_not_compare_watches_are_believed_and_answers_are_not():
    store, _ = made()
    store.heard(SERVICE, item(version="x-1"))
    assert not store.keys(SERVICE), "it is told again, by the watch"
    store.watched(SERVICE, None, "ADDED", item(version="x-1"))
    store.heard(SERVICE, item(version="x-3"))
    assert store.find(SERVICE, "ns", "a")["metadata"]["resourceVersion"] == "x-1"
    store.watched(SERVICE, None, "MODIFIED", item(version="x-2"))
    assert store.find(SERVICE, "ns", "a")["metadata"]["resourceVersion"] == "x-2"
    store.watched(SERVICE, None, "DELETED", item(version="x-4"))
    store.heard(SERVICE, item(version="x-3"))
    assert not store.keys(SERVICE)
    store.watched(SERVICE, None, "ADDED", item(version="x-5"))
    scan(store, [], "y")
    assert not store.keys(SERVICE)


def test_only_what_is_news_is_told():
    store, changed = made(news=lambda i: i.get("spec"))
    store.watched(SERVICE, None, "ADDED", item(version=1, spec=1))
    store.watched(SERVICE, None, "MODIFIED", item(version=2, spec=1, status=5))
    assert store.find(SERVICE, "ns", "a")["status"] == 5
    assert len(changed) == 1
    store.watched(SERVICE, None, "MODIFIED", item(version=3, spec=2, status=5))
    store.watched(SERVICE, None, "MODIFIED", item(version=4, spec=2, status=5, model="n"))
    assert [c.groups for c in changed[1:]] == [("m",), ("m",)]
    assert store.group_names(SERVICE, "ns", "m") == []
    assert store.group_names(SERVICE, "ns", "n") == ["a"]


def test_what_is_not_kept_is_told_of_when_a_watch_brings_it_and_not_by_every_scan():
    store, changed = made(prune=lambda i: i if i.get("ours") else None)
    store.watched(SERVICE, None, "ADDED", item(version=1))
    assert len(changed) == 1
    scan(store, [item(version=1)], 2)
    assert len(changed) == 1
    store.watched(SERVICE, None, "MODIFIED", item(version=3, ours=True))
    store.watched(SERVICE, None, "MODIFIED", item(version=4))
    assert not store.keys(SERVICE)
    store.heard(SERVICE, item(version=3, ours=True))
    assert not store.keys(SERVICE)


def test_an_object_that_cannot_be_read_is_not_there():
    store, _ = made()
    store.watched(SERVICE, None, "ADDED", item(version=1))
    store.watched(SERVICE, None, "UNREADABLE", item(version=2))
    assert not store.keys(SERVICE)
    store.watched(SERVICE, None, "MODIFIED", item(version=3))
    assert store.keys(SERVICE)


# --- bounds -----------------------------------------------------------------------------------------------------------


def noise(size, seed=0):
    return random.Random(seed).randbytes(size).hex()


def test_a_large_object_is_known_by_name_alone():
    store, changed = made()
    store.watched(SERVICE, None, "ADDED", item(version=1, spec=noise(300_000)))
    assert store.find(SERVICE, "ns", "a") == Large("ns", "a")
    assert list(store.group(SERVICE, "ns", "m")) == [Large("ns", "a")]
    assert store.size < 1000
    store.watched(SERVICE, None, "MODIFIED", item(version=2, spec=noise(300_000, 1)))
    assert len(changed) == 2


def test_a_namespace_that_is_full_is_not_known_and_takes_nothing_from_another(monkeypatch):
    monkeypatch.setattr(module, "MAX_NAMESPACE_BYTES", 10_000)
    store, changed = made()
    scan(store, [item("b", uid="v", namespace="other")], 1)
    for number in range(100):
        store.watched(SERVICE, None, "ADDED", item(f"a{number}", version=number + 2, uid=f"u{number}"))
    assert (store.knows(SERVICE, "ns"), store.knows(SERVICE, "other")) == (False, True)
    assert store.size <= 10_000 + 1000
    assert len(changed) == 101, "what is not kept is news all the same"
    scan(store, [item("a0", version=2, uid="u0"), item("b", uid="v", namespace="other")], 200)
    assert store.knows(SERVICE, "ns")


def test_all_namespaces_together_have_a_bound_that_what_is_proven_ours_does_not_count_for(monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 10_000)
    store = Store({SERVICE: shape(), DEPLOYMENT: shape(bounded=False)})
    for number in range(100):
        store.watched(
            SERVICE, None, "ADDED", item(f"a{number}", version=number + 1, uid=f"u{number}", namespace=f"n{number}")
        )
        store.watched(DEPLOYMENT, None, "ADDED", item(f"a{number}", version=number + 1, uid=f"u{number}"))
    assert len(store.keys(SERVICE)) < 20
    assert len(store.keys(DEPLOYMENT)) == 100


def test_deletions_are_forgotten_after_a_while_and_beyond_a_number(monkeypatch):
    now = [0.0]
    store = Store({SERVICE: shape()}, clock=lambda: now[0])
    for number in range(50):
        store.missed(SERVICE, "ns", "a", f"u{number}")
    assert store.remembered == 50
    now[0] += module.REMEMBERED_SECONDS + 1
    store.missed(SERVICE, "ns", "a", "v")
    assert store.remembered == 1
    monkeypatch.setattr(module, "MAX_REMEMBERED", 7)
    for number in range(50):
        store.missed(SERVICE, "ns", "a", f"u{number}")
        store.watched(SERVICE, None, "DELETED", item(uid=f"w{number}", version=number + 1))
    assert store.remembered == 7, "strangers add nothing"
    assert store.size == 0


# --- whatever the order -----------------------------------------------------------------------------------------------


class Cluster(RuleBasedStateMachine):
    """An API server of one kind, a watch that lags behind, scans that take time, and writes of the operator's own.

    Whatever happens in whatever order: when everything has arrived, the store holds what the API server holds.
    """

    names = st.sampled_from(["a", "b", "c"])
    namespaces = st.sampled_from(["x", "y"])

    @initialize()
    def begin(self):
        self.store = Store({SERVICE: shape()}, clock=lambda: 0.0)
        self.told = {}
        self.store.changed = self.change
        self.revision = 10
        self.uids = 0
        self.live = {}
        self.log = []
        self.place = None
        self.answers = []
        self.scan = None

    def change(self, change):
        self.told[change.namespace, change.name] = change

    def _write(self, key, spec, model="m"):
        self.revision += 1
        old = self.live.get(key)
        if old is None:
            self.uids += 1
        uid = old["metadata"]["uid"] if old else f"u{self.uids}"
        new = item(key[1], self.revision, uid, key[0], model, spec=spec)
        was = bool(old and old["metadata"]["labels"])
        self.live[key] = new
        if model:
            self.log.append((self.revision, "MODIFIED" if was else "ADDED", new))
        elif was:
            self.log.append((self.revision, "DELETED", new))
        return new

    def _delete(self, key):
        old = self.live.pop(key)
        self.revision += 1
        gone = json.loads(json.dumps(old))
        gone["metadata"]["resourceVersion"] = str(self.revision)
        if old["metadata"]["labels"]:
            self.log.append((self.revision, "DELETED", gone))
        return old["metadata"]["uid"]

    @rule(namespace=namespaces, name=names, spec=st.integers(0, 3), model=st.sampled_from(["m", "n", ""]))
    def somebody_writes(self, namespace, name, spec, model):
        self._write((namespace, name), spec, model)

    @rule(namespace=namespaces, name=names)
    def somebody_deletes(self, namespace, name):
        if (namespace, name) in self.live:
            self._delete((namespace, name))

    @rule(namespace=namespaces, name=names, spec=st.integers(0, 3))
    def the_operator_writes(self, namespace, name, spec):
        written = self._write((namespace, name), spec)
        self.answers.append(lambda: self.store.heard(SERVICE, written))

    @rule(namespace=namespaces, name=names)
    def the_operator_deletes(self, namespace, name):
        if (namespace, name) in self.live:
            uid = self._delete((namespace, name))
            self.answers.append(lambda: self.store.missed(SERVICE, namespace, name, uid))

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def an_answer_arrives(self, data):
        self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1)))()

    @precondition(lambda self: self.scan is None)
    @rule()
    def a_scan_begins(self):
        """The watch has lost its place, or there has been none."""
        self.place = None
        number = self.store.scanning(SERVICE, None)
        shown = [each for each in self.live.values() if each["metadata"]["labels"]]
        self.scan = (number, self.revision, shown)

    @precondition(lambda self: self.scan and self.scan[2])
    @rule(count=st.integers(1, 3))
    def a_page_arrives(self, count):
        number, _, shown = self.scan
        for _ in range(min(count, len(shown))):
            self.store.scanned(SERVICE, shown.pop(), number)

    @precondition(lambda self: self.scan)
    @rule(broken=st.booleans())
    def a_scan_ends(self, broken):
        number, version, shown = self.scan
        self.scan = None
        if broken:
            return
        for each in shown:
            self.store.scanned(SERVICE, each, number)
        self.store.settled(SERVICE, None, str(version), number)
        self.place = version

    @precondition(lambda self: self.place is not None)
    @rule(count=st.integers(1, 5))
    def the_watch_goes_on(self, count):
        for version, event, told in [entry for entry in self.log if entry[0] > self.place][:count]:
            self.store.watched(SERVICE, None, event, told)
            self.place = version

    @precondition(lambda self: self.scan is None)
    @rule(by=st.integers(1, 8))
    def a_backup_is_restored(self, by):
        """The numbers go back, and so does what is there; what was on its way is lost with the connections."""
        back = self.revision - by
        state = {}
        for version, event, told in self.log:
            key = (told["metadata"]["namespace"], told["metadata"]["name"])
            if version <= back and event != "DELETED":
                state[key] = told
            elif version <= back:
                state.pop(key, None)
        self.live, self.revision = state, back
        self.log = [entry for entry in self.log if entry[0] <= back]
        self.answers = []
        self.a_scan_begins()

    @invariant()
    def what_is_found_by_name_is_found_by_group(self):
        if not hasattr(self, "store"):
            return
        for namespace, name in self.store.keys(SERVICE):
            found = self.store.find(SERVICE, namespace, name)
            assert name in self.store.group_names(SERVICE, namespace, found["metadata"]["labels"][LABEL])

    def teardown(self):
        if not hasattr(self, "store"):
            return
        if self.scan:
            self.a_scan_ends(False)
        if self.place is None:
            self.a_scan_begins()
            self.a_scan_ends(False)
        self.the_watch_goes_on(10_000)
        # Answers that are the last to arrive bring nothing back either.
        for answer in self.answers:
            answer()
        truth = {key: each for key, each in self.live.items() if each["metadata"]["labels"]}
        held = {key: self.store.find(SERVICE, *key) for key in self.store.keys(SERVICE)}
        assert held == truth
        assert self.store.size == sum(module.ENTRY_BYTES + len(packed(without_version(i))) for i in held.values())
        for key in truth:
            assert self.told[key].item is not None, "and has told so"


def without_version(told):
    return {**told, "metadata": {k: v for k, v in told["metadata"].items() if k != "resourceVersion"}}


TestCluster = Cluster.TestCase
TestCluster.settings = limits(max_examples=100, stateful_step_count=30, deadline=None)
