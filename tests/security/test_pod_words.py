"""Whatever pods say of themselves is heard in bounded words, and stops nobody's reconciling.

A tenant writes termination messages and logs as they like; one who may patch the status of pods writes anything at all.
"""

import json
import random
import tracemalloc
from typing import Any

import pytest

from onnx_operator.api import names
from onnx_operator.api.report import shorten
from onnx_operator.controller.inspection.pod import start_cause, started, terminated
from onnx_operator.controller.observation.observe import MAX_FAILURES, Observation, observe, pod_cause, rollout_cause
from onnx_operator.controller.observation.pods import slim_pod
from onnx_operator.controller.status.facts import MAX_INT64, find_facts
from tests.security.fuzzing import mutated

MAX_SHARE_OF_A_POD = 256 * 1024
"""Bytes of JSON that are kept of one pod, whatever it holds: sixteen containers of a kind, each text at its longest."""

FACTS = {
    "event": "started",
    "executionProviders": ["CPUExecutionProvider"],
    "fallbackOperators": ["Conv"],
    "fallbackCauses": ["a cause"],
    "loadSeconds": 0.1,
    "warmUpSeconds": 0.2,
    "warmUp": {
        "warmed": True,
        "message": "by made-up inputs",
        "inputs": {"shapes": {"x": [1, 80]}, "values": {"x": [0, 0.5, True]}, "texts": {"t": ["red"]}},
    },
    "residentMemoryBytes": 123456,
}
MESSAGE = {
    "phase": "Loading",
    "reason": "SourceChanged",
    "message": "the source holds other bytes",
    "observed": {"kind": "Conditional", "value": '"etag"'},
}


def container(name="server", **state):
    return {"name": name, "image": "i", "state": state, "lastState": {}, "ready": False, "restartCount": 3}


def pod(**status) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "m-abc-1",
            "namespace": "sec-a",
            "uid": "u",
            "labels": {names.LABEL_MODEL: "m", names.LABEL_REVISION: "m-1"},
        },
        "spec": {
            "initContainers": [{"name": "fetch", "resources": {"limits": {"memory": "1Gi"}}}],
            "containers": [{"name": "server", "resources": {"limits": {"memory": "1Gi"}}}],
        },
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "not ready"},
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"},
            ],
            "initContainerStatuses": [container("fetch", terminated={"exitCode": 0, "reason": "Completed"})],
            "containerStatuses": [
                container(terminated={"exitCode": 137, "reason": "Error", "message": json.dumps(MESSAGE)})
                | {"lastState": {"terminated": {"exitCode": 1, "reason": "OOMKilled"}}},
                container("side", waiting={"reason": "ImagePullBackOff", "message": "Back-off"}),
            ],
            **status,
        },
    }


DEPLOYMENT: dict[str, Any] = {
    "metadata": {"name": "m", "generation": 3},
    "spec": {"replicas": 1, "template": {"metadata": {"labels": {names.LABEL_REVISION: "m-1"}}}},
    "status": {
        "observedGeneration": 3,
        "conditions": [
            {"type": "ReplicaFailure", "status": "True", "message": 'pods "m-x" is forbidden: exceeded quota'},
            {"type": "Progressing", "reason": "ProgressDeadlineExceeded"},
        ],
    },
}


def paths(value, path=()):
    """Every place in a document."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from paths(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from paths(value[index], (*path, index))


def nested(depth):
    value: Any = "x"
    for _ in range(depth):
        value = {"state": value} if depth % 2 else [value]
    return value


STRANGE: list[Any] = [
    None, True, False, 0, -1, 2**31, 2**63, 10**400, 1.5, float("inf"), float("nan"), "", "True", "running",
    "x" * 100_000, "\ud800", "\x00\x1b[31m", "\u202e", "é" * 5000, [], {}, [None], ["x"], [[]], {"": ""},
    {"reason": 1}, {"terminated": "x"}, {"terminated": {"exitCode": "1"}}, {"waiting": []}, {"running": {}},
    [{"name": ["server"]}] * 3, [container()] * 1000, {str(n): n for n in range(1000)}, nested(300),
    "[" * 5000, json.dumps(MESSAGE), json.dumps(MESSAGE | {"message": "m" * 50_000}),
    json.dumps(MESSAGE | {"observed": {"kind": "None", "value": "v" * 50_000}}),
]  # fmt: skip
"""Values of a type that nobody expects, or a length that nobody needs."""


def spoiled(rng: random.Random, document: Any) -> Any:
    """The document with strange values at up to four places."""
    places = list(paths(document))[1:]
    document = json.loads(json.dumps(document))
    for *above, last in rng.choices(places, k=rng.randint(1, 4)):
        at = document
        for step in above:
            if any(at is value for value in STRANGE):
                break
            at = at[step] if isinstance(at, list) or step in at else None
            if not isinstance(at, dict | list):
                break
        else:
            if isinstance(at, dict) and rng.random() < 0.15:
                at.pop(last, None)
            elif not any(at is value for value in STRANGE):
                at[last] = rng.choice(STRANGE)
    return document


def told(observation: Observation) -> str:
    """Everything in it that goes on from here."""
    causes = [p.cause for p in observation.pods] + [rollout_cause(observation, "m-1"), observation.creation]
    words = [observation.revision, *(f.message for f in observation.failures)]
    for cause in causes:
        words += [cause.message, cause.observed.value if cause.observed else ""] if cause else []
    words += [w for p in observation.pods for w in (p.name, p.revision, p.failed)]
    return "\n".join(words)


@pytest.mark.fuzz
def test_a_pods_status_of_any_form_is_observed_in_bounded_words(fuzz):
    for rng in fuzz(400):
        pods = [spoiled(rng, pod()) for _ in range(rng.randint(1, 3))]
        observation = observe(DEPLOYMENT, pods)
        assert len(observation.pods) == len(pods)
        assert len(observation.failures) <= MAX_FAILURES
        words = told(observation)
        words.encode()
        assert len(words) < 60_000
        for each in pods:
            slim = slim_pod(each)
            assert len(json.dumps(slim)) < MAX_SHARE_OF_A_POD
            assert slim_pod(slim) == slim
            assert pod_cause(slim) == pod_cause(each)


@pytest.mark.fuzz
def test_a_deployments_status_of_any_form_is_observed(fuzz):
    for rng in fuzz(400):
        observation = observe(spoiled(rng, DEPLOYMENT), [pod()])
        words = told(observation)
        words.encode()
        assert len(words) < 20_000


@pytest.mark.fuzz
def test_an_inspection_pods_status_of_any_form_is_heard(fuzz):
    for rng in fuzz(400):
        found = slim_pod(spoiled(rng, pod()))
        for each in (start_cause(found, "claim"), terminated(found), started(found)):
            assert len(str(each)) < 20_000


@pytest.mark.fuzz
def test_a_termination_message_of_any_form_is_heard_in_bounded_words(fuzz):
    honest = json.dumps(MESSAGE).encode()
    for rng in fuzz(400):
        if rng.random() < 0.2:
            message = json.dumps({**MESSAGE, rng.choice(list(MESSAGE)): rng.choice(STRANGE)})
        else:
            message = mutated(rng, honest, 5).decode(errors=rng.choice(["replace", "surrogateescape"]))
        ended = {"exitCode": rng.choice([1, 137, 255]), "message": message}
        cause = pod_cause(pod(containerStatuses=[container(terminated=ended)]))
        assert cause is not None
        assert len(cause.message) <= 4096 + 200
        shorten(cause.message, 256).encode()
        if cause.observed:
            assert len(cause.observed.value) <= 4096
            cause.observed.value.encode()


@pytest.mark.fuzz
def test_a_log_of_any_form_gives_facts_of_a_bounded_size_or_none(fuzz):
    honest = json.dumps(FACTS).encode()
    for rng in fuzz(400):
        if rng.random() < 0.3:
            line = json.dumps({**FACTS, rng.choice(list(FACTS)): rng.choice(STRANGE)})
        else:
            line = mutated(rng, honest, 4).decode(errors="replace")
        facts = find_facts("\n".join(["a line", line, "{"]))
        if facts is None:
            continue
        assert 0 <= facts.resident_memory_bytes <= MAX_INT64
        for listed in (facts.execution_providers, facts.fallback_operators, facts.fallback_causes):
            assert len(listed) <= 64
            assert all(shorten(text, 64).encode() is not None for text in listed)


ALL = 256 * 1024
LOGS = {
    "the same line many times": (json.dumps(FACTS | {"loadSeconds": "x"}) + "\n") * (ALL // 200),
    "one word without end": '"started"' * (ALL // 9),
    "deep lists": '"started"' + "[" * ALL,
    "deep objects": '{"started":' * (ALL // 11),
    "a wrong list": json.dumps(FACTS | {"executionProviders": [1] * (ALL // 3)}),
    "a list of lists": json.dumps(FACTS | {"fallbackCauses": [[]] * (ALL // 4)}),
    "one key many times": '{"event":"started",' + '"executionProviders":[1],' * (ALL // 26) + '"a":1}',
    "many keys": json.dumps(FACTS | {f"k{n}": n for n in range(ALL // 16)} | {"loadSeconds": None}),
    "a number without end": json.dumps(FACTS)[:-7] + "9" * ALL + "}",
    "line ends only": '"started"\n\r\u2028' * (ALL // 12),
}


@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS)
def test_a_log_made_to_take_long_takes_room_in_proportion_to_its_bytes(log):
    tracemalloc.start()
    assert find_facts(log[:ALL]) is None
    assert tracemalloc.get_traced_memory()[1] < 40 * ALL
    tracemalloc.stop()


WARM_UPS = {
    "wrong values": {"values": {"x": [[]] * (ALL // 5)}},
    "few wrong values": {"values": {f"x{n}": ["1"] * 10 for n in range(60)}},
    "many inputs": {"shapes": {f"x{n}": [1] for n in range(ALL // 20)}},
    "sizes without end": {"shapes": {"x": [10**4000]}},
    "no numbers": {"values": {"x": [float("nan"), float("inf")]}},
    "a long name": {"texts": {"x" * ALL: [""]}},
    "deep": {"values": nested(150)},
}


@pytest.mark.parametrize("inputs", WARM_UPS.values(), ids=WARM_UPS)
def test_no_input_that_is_told_to_have_warmed_a_model_up_is_kept_unless_it_is_small_and_right(inputs):
    log = json.dumps(FACTS | {"warmUp": {"warmed": True, "inputs": inputs}})
    tracemalloc.start()
    facts = find_facts(log)
    assert tracemalloc.get_traced_memory()[1] < 40 * ALL
    tracemalloc.stop()
    assert facts is None or facts.warm_up is None or facts.warm_up.inputs is None


def test_facts_after_such_a_log_are_found():
    assert find_facts(LOGS["the same line many times"] + json.dumps(FACTS)) is not None


def test_the_longest_pod_is_cut_to_little():
    longest = "m" * 100_000
    ended = {"exitCode": 1, "reason": longest, "message": longest}
    state = {"terminated": ended, "waiting": {"reason": longest, "message": longest}, "running": {"startedAt": longest}}
    status = {"name": longest, "image": longest, "state": state, "lastState": state}
    condition = dict.fromkeys(("type", "status", "reason", "message"), longest)
    given = pod(
        reason=longest,
        message=longest,
        conditions=[condition] * 1000,
        containerStatuses=[status] * 1000,
        initContainerStatuses=[status] * 1000,
    )
    assert len(json.dumps(slim_pod(given))) < MAX_SHARE_OF_A_POD
