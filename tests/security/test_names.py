"""A name that a stranger chose never leads the operator anywhere but to an object of that name, in that namespace."""

import asyncio
import json
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest

from onnx_operator.api import names
from onnx_operator.controller.app import _work
from onnx_operator.controller.cluster.answers import ApiError, UnexpectedAnswerError
from onnx_operator.controller.cluster.kinds import CONFIG_MAP, DEPLOYMENT, ONNX_MODEL, POD, SECRET, SERVICE, Kind
from onnx_operator.controller.cluster.naming import InvalidNameError, is_model_name, is_namespace, is_object_name
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.cluster.wakes import MAX_WOKEN, woken
from tests.security.fuzzing import mutated
from tests.security.stand_in import found, nothing, stand_in

MODELS = "/apis/onnx-operator.dev/v1alpha1/namespaces/sec-a/onnxmodels"
TRAVERSAL = "../../../../../../api/v1/namespaces/sec-a/pods/evil/log"
EVIL = [
    TRAVERSAL,
    "evil.sec-a.svc/x/../../../../sec-b/onnxmodels/foo",
    "..",
    ".",
    "",
    "a/b",
    "a//b",
    "a%2fb",
    "%2e%2e",
    "a%00",
    "a?watch=1",
    "a#b",
    "a\n",
    "a\r\nX: y",
    "a b",
    "a\\b",
    "A",
    "ａ",
    "a\u2024b",
    "\u2025",
    "\ud800",
    "-a",
    "a-",
    "a..b",
    "a" * 254,
    "a" * 1_000_000,
]


# --- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVIL, ids=lambda n: ascii(n)[:30])
async def test_a_name_that_no_object_can_have_is_never_asked_for(tmp_path, name):
    async with stand_in(tmp_path) as (kube, server):
        calls = [
            lambda: kube.get(ONNX_MODEL, "sec-a", name),
            lambda: kube.get(SECRET, name, "models-read"),
            lambda: kube.log("sec-a", name, "c", 10),
            lambda: kube.list(POD, name, {}),
            lambda: kube.delete(POD, "sec-a", name, "1"),
            lambda: kube.apply(DEPLOYMENT, {"metadata": {"namespace": name, "name": "a"}}),
            lambda: kube.apply(DEPLOYMENT, {"metadata": {"namespace": "sec-a", "name": name}}),
            lambda: kube.apply(ONNX_MODEL, {"metadata": {"namespace": "sec-a", "name": "a"}}, subresource=name or "x"),
            lambda: kube.create(POD, {"metadata": {"namespace": name, "name": "a"}}),
            lambda: kube.replace(POD, {"metadata": {"namespace": "sec-a", "name": name}}),
        ]
        for call in calls:
            with pytest.raises(InvalidNameError) as refusal:
                await call()
            assert len(str(refusal.value)) < 1000
        assert server.asked == []


@pytest.mark.fuzz
async def test_whatever_the_name_the_path_on_the_wire_has_exactly_its_parts(fuzz, tmp_path):
    words = [
        b"resnet50",
        b"a.b-c",
        b"sec-a",
        b"x" * 63,
        b"y" * 253,
        *(e.encode(errors="surrogatepass") for e in EVIL[:24]),
    ]
    alphabet = "ab0-.AZ_/%\\?#&=;: \n\r\t\0é．／․‥\u202e\ud800😀"
    async with stand_in(tmp_path) as (kube, server):
        for rng in fuzz(400):
            if rng.random() < 0.5:
                parts = ["".join(rng.choices(alphabet, k=rng.randint(0, 12))) for _ in range(2)]
            else:
                parts = [mutated(rng, rng.choice(words), 2).decode(errors="surrogateescape") for _ in range(2)]
            if rng.random() < 0.3:
                parts[0] = "sec-a"
            kind: Kind = rng.choice([ONNX_MODEL, POD, SECRET, SERVICE])
            server.asked.clear()
            try:
                assert await kube.get(kind, *parts) is None
            except InvalidNameError:
                assert server.asked == []
                assert not (is_namespace(parts[0]) and is_object_name(parts[1]))
                continue
            root = "/api/v1" if kind.api_version == "v1" else f"/apis/{kind.api_version}"
            assert server.asked == [("GET", f"{root}/namespaces/{parts[0]}/{kind.plural}/{parts[1]}")]


@pytest.mark.parametrize("value", ["a,b=c", "a in (b)", "!a", "a,!b", "a\n", "a b", "a=b", "(a)", "a" * 64, "a/b", "é"])
async def test_a_label_that_is_more_of_a_selector_selects_nothing(tmp_path, value):
    async with stand_in(tmp_path) as (kube, server):
        with pytest.raises(InvalidNameError, match=names.LABEL_MODEL):
            await kube.list(POD, "sec-a", {names.LABEL_MODEL: value})
        assert server.asked == []


async def test_a_selector_arrives_as_it_was_made(tmp_path):
    async with stand_in(tmp_path, lambda *_: found({"items": []})) as (kube, server):
        assert await kube.list(POD, "sec-a", {names.LABEL_MODEL: "a.b_C-1", names.LABEL_TRACK: ""}) == []
    query = parse_qs(urlsplit(server.asked[0][1]).query)
    assert query["labelSelector"] == ["onnx-operator.dev/model=a.b_C-1,onnx-operator.dev/track="]


async def test_a_redirect_is_not_followed(tmp_path):
    async with stand_in(tmp_path, lambda *_: (307, b"")) as (kube, server):
        with pytest.raises(OSError, match="redirects"):
            await kube.get(SECRET, "sec-a", "s")
    assert server.paths == ["/api/v1/namespaces/sec-a/secrets/s"]


# --- what comes back --------------------------------------------------------------------------------------------------


def model(**changes):
    metadata = {"name": "m", "namespace": "sec-a", "uid": "u", **changes.pop("metadata", {})}
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": metadata, "spec": {}, **changes}


OTHERS = {
    "another namespace": model(metadata={"namespace": "sec-b"}),
    "another name": model(metadata={"name": "pwned"}),
    "no namespace": model(metadata={"namespace": None}),
    "another kind": model(kind="Secret"),
    "another group": model(apiVersion="evil.dev/v1alpha1"),
    "no UID": model(metadata={"uid": ""}),
    "a UID of another type": model(metadata={"uid": 1}),
    "a UID without end": model(metadata={"uid": "u" * 1000}),
    "no metadata": model(metadata={}) | {"metadata": None},
    "labels of another form": model(metadata={"labels": ["a"]}),
    "annotations of another form": model(metadata={"annotations": "a"}),
    "owners of another form": model(metadata={"ownerReferences": {"a": 1}}),
    "owners that are texts": model(metadata={"ownerReferences": ["a"]}),
    "a list": [model()],
    "a text": "model",
    "a number": 1,
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
async def test_an_answer_that_is_another_object_is_not_believed(tmp_path, other):
    async with stand_in(tmp_path, lambda *_: found(other)) as (kube, _):
        with pytest.raises(UnexpectedAnswerError):
            await kube.get(ONNX_MODEL, "sec-a", "m")
        with pytest.raises(UnexpectedAnswerError):
            await kube.apply(ONNX_MODEL, model())


async def test_a_name_that_the_api_server_makes_up_is_taken(tmp_path):
    """A pod is made without one to see what it would be; else none of an earlier life would ever count."""
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p-x7k2p", "namespace": "sec-a", "uid": "u"}}
    nameless = {"metadata": {"namespace": "sec-a", "generateName": "p-"}}
    async with stand_in(tmp_path, lambda *_: found(made)) as (kube, server):
        assert (await kube.create(POD, nameless, dry_run=True))["metadata"]["name"] == "p-x7k2p"
    assert "dryRun=All" in server.asked[0][1]


@pytest.mark.parametrize(
    "name", [n for n in OTHERS if n != "another name"], ids=[n for n in OTHERS if n != "another name"]
)
async def test_an_object_of_elsewhere_among_those_listed_is_not_believed(tmp_path, name):
    async with stand_in(tmp_path, lambda *_: found({"items": [model(), OTHERS[name]]})) as (kube, _):
        with pytest.raises(UnexpectedAnswerError):
            await kube.list(ONNX_MODEL, "sec-a", {"a": "b"})


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b'{"metadata": NaN}', b"null"]
)
async def test_an_answer_that_is_no_json_is_an_answer_of_nobody(tmp_path, body):
    async with stand_in(tmp_path, lambda *_: (200, body)) as (kube, server):
        with pytest.raises(UnexpectedAnswerError):
            await kube.get(ONNX_MODEL, "sec-a", "m")
        server.handler = lambda *_: (500, body)
        with pytest.raises(ApiError):
            await kube.get(ONNX_MODEL, "sec-a", "m")


@pytest.mark.fuzz
async def test_a_mangled_answer_is_the_object_asked_for_or_an_error(fuzz, tmp_path):
    honest = json.dumps(model(metadata={"labels": {"a": "b"}, "ownerReferences": [{"uid": "x"}]})).encode()
    answer = b""
    async with stand_in(tmp_path, lambda *_: (200, answer)) as (kube, _):
        for rng in fuzz(300):
            answer = mutated(rng, honest, 3)
            try:
                got = await kube.get(ONNX_MODEL, "sec-a", "m")
            except UnexpectedAnswerError:
                continue
            assert got is not None
            metadata = got["metadata"]
            assert (metadata["namespace"], metadata["name"]) == ("sec-a", "m")
            assert (got["apiVersion"], got["kind"]) == (names.API_VERSION, names.KIND)
            assert metadata["uid"]


# --- whom a stranger's object wakes -----------------------------------------------------------------------------------


def reference(name, **changes):
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "uid": "u",
        "controller": True,
        "name": name,
        **changes,
    }


def child(label=None, *references, **metadata):
    labels = {} if label is None else {names.LABEL_MODEL: label}
    return {
        "metadata": {
            "namespace": "sec-a",
            "name": "p",
            "labels": labels,
            "ownerReferences": list(references),
            **metadata,
        }
    }


def test_a_label_and_an_owner_wake_models_of_their_own_namespace():
    assert woken(child("a", reference("b"))) == [("sec-a", "a"), ("sec-a", "b")]
    assert woken(child("a", reference("a"))) == [("sec-a", "a")]


@pytest.mark.parametrize(
    "name", [*EVIL, "1a", "a.b", "a" * 53, None, 1, ["a"], {"a": "b"}], ids=lambda n: ascii(n)[:30]
)
def test_a_name_that_no_model_can_have_wakes_nothing(name):
    assert woken(child(name, reference(name))) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"controller": False},
        {"controller": None},
        {"controller": "true"},
        {"kind": "Deployment"},
        {"apiVersion": "evil.dev/v1"},
        {"apiVersion": "onnx-operator.dev"},
        {"apiVersion": None},
    ],
    ids=str,
)
def test_an_owner_that_is_no_controlling_model_wakes_nothing(changes):
    assert woken(child(None, reference("b", **changes))) == []


@pytest.mark.parametrize(
    "metadata",
    [
        {"namespace": "../sec-b"},
        {"namespace": None},
        {"namespace": 5},
        {"labels": None, "ownerReferences": None},
        {"labels": "a", "ownerReferences": "b"},
        {"labels": ["a"], "ownerReferences": {"name": "b"}},
        {"labels": 1, "ownerReferences": [None, 1, "x", []]},
    ],
    ids=str,
)
def test_metadata_of_any_form_wakes_nothing(metadata):
    assert woken({"metadata": {**child("a", reference("b"))["metadata"], **metadata}}) == []


def test_thousands_of_owners_wake_no_more_than_a_few():
    assert len(woken(child("a", *(reference(f"m{n}") for n in range(10_000))))) <= MAX_WOKEN


@pytest.mark.fuzz
def test_whatever_is_written_on_an_object_the_keys_are_models_of_its_namespace(fuzz):
    honest = json.dumps(child("resnet50", reference("bert"), reference("x", kind="Pod"))).encode()
    for rng in fuzz(3000):
        try:
            body = json.loads(mutated(rng, honest, 4))
        except (ValueError, RecursionError):
            continue
        keys = woken(body)
        assert len(keys) <= MAX_WOKEN
        for namespace, name in keys:
            assert is_namespace(namespace)
            assert is_model_name(name)
            assert namespace == body["metadata"]["namespace"]


async def test_models_that_are_not_there_leave_nothing_behind(tmp_path):
    """A tenant who labels pods with ever new names fills no memory."""
    queue: KeyedQueue[tuple[str, str]] = KeyedQueue(party=lambda key: key[0], most=2)
    for number in range(100_000):
        key = (f"sec-{number % 7}", f"m{number}")
        queue.hint(key, 0)
        if number % 500 == 499:
            await asyncio.sleep(0.001)
            while len(queue):
                taken = await queue.get()
                queue.retry(taken)
                queue.forget(taken)
                queue.done(taken)
    await asyncio.sleep(0.05)
    while len(queue):
        taken = await queue.get()
        queue.forget(taken)
        queue.done(taken)
    assert queue.remembered == 0


async def test_configuration_of_elsewhere_is_never_read_through_a_name(tmp_path):
    async with stand_in(tmp_path, nothing) as (kube, server):
        for name in ("../../sec-b/secrets/x", "a/../../../sec-b/configmaps/y"):
            with pytest.raises(InvalidNameError):
                await kube.get(CONFIG_MAP, "sec-a", name)
        assert server.asked == []


async def test_a_name_that_cannot_be_is_not_tried_again():
    queue: KeyedQueue[tuple[str, str]] = KeyedQueue()
    asked = []

    class Refusing:
        async def reconcile(self, key):
            asked.append(key)
            raise InvalidNameError("name", "..", "a name")

    worker = asyncio.create_task(_work(queue, cast(Any, Refusing())))
    queue.add(("sec-a", "m"))
    while not asked or len(queue):
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert queue.remembered == 0, "no retry is due"
    assert not worker.done(), "and the worker goes on"
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
