"""Inspections: at most one a model, never again without a reason, again where that can help."""

import asyncio

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import InspectionResult, Refusal
from onnx_operator.api.sources import SourcePin
from onnx_operator.controller.cluster.answers import ApiError, failure
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.inspection.inspections import MAX_CHANGES, Inspections
from tests.unit.controller.samples import report

MODEL = ("default", "resnet50")
ACCEPTED = InspectionResult(outcome="Accepted", source=report().source, report=report(), interface="face")


def refused(reason: Reason, retriable: bool = False) -> InspectionResult:
    return InspectionResult(outcome="Refused", refusal=Refusal(reason=reason, message="m", retriable=retriable))


class Desk:
    """An Inspections whose sources answer when the test says so."""

    def __init__(self):
        self.queue = KeyedQueue()
        self.inspections = Inspections(self.queue)
        self.runs = 0
        self.answer = ACCEPTED
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self):
        self.runs += 1
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def look(self, key="key", uid="uid", persisted=None, changed=None, asked=""):
        return self.inspections.poll(uid, MODEL, key, self.run, persisted, changed, asked)

    async def settle(self):
        for _ in range(5):
            await asyncio.sleep(0)


async def test_a_new_model_is_inspected_once_and_put_on_the_queue_when_that_is_done():
    desk = Desk()
    assert desk.look().inspecting
    assert desk.look().inspecting
    await desk.settle()

    assert await desk.queue.get() == MODEL
    assert desk.look().result == ACCEPTED
    assert not desk.look().inspecting
    await desk.settle()
    assert desk.runs == 1


async def test_what_an_earlier_life_of_the_operator_concluded_is_not_looked_at_again():
    desk = Desk()
    assert desk.look(persisted=ACCEPTED).result == ACCEPTED
    await desk.settle()
    assert desk.runs == 0
    assert len(desk.queue) == 0


async def test_another_key_is_another_inspection():
    desk = Desk()
    desk.look(persisted=ACCEPTED)
    assert desk.look("other").inspecting
    await desk.settle()
    assert desk.runs == 1


async def test_an_inspection_that_nobody_wants_any_more_is_stopped_and_its_answer_dropped():
    desk = Desk()
    desk.gate.clear()
    desk.look("old")
    await desk.settle()
    desk.look("new")
    await desk.settle()
    desk.gate.set()
    await desk.settle()
    assert desk.runs == 2
    assert desk.look("new").result == ACCEPTED


@pytest.mark.parametrize("reason", [Reason.CORRUPT, Reason.DIGEST_MISMATCH, Reason.UNKNOWN_OPERATOR])
async def test_a_verdict_on_the_bytes_is_final(reason):
    desk = Desk()
    desk.answer = refused(reason)
    desk.look()
    await desk.settle()
    desk.inspections._entries["uid"].not_before = 0
    assert desk.look().result.refusal.reason is reason
    await desk.settle()
    assert desk.runs == 1


@pytest.mark.parametrize(
    "answer",
    [
        refused(Reason.SOURCE_UNREACHABLE),
        refused(Reason.SOURCE_NOT_FOUND),
        refused(Reason.SOURCE_UNAUTHORIZED),
        refused(Reason.CREDENTIALS_NOT_FOUND),
        refused(Reason.SOURCE_REFUSED, retriable=True),
    ],
    ids=lambda r: r.refusal.reason,
)
async def test_what_may_end_by_itself_is_tried_again_and_the_last_verdict_stands_meanwhile(answer):
    desk = Desk()
    desk.answer = answer
    desk.look()
    await desk.settle()
    assert desk.look().result == answer
    await desk.settle()
    assert desk.runs == 1, "not at once"

    desk.inspections._entries["uid"].not_before = 0
    desk.answer = ACCEPTED
    looked = desk.look()
    assert (looked.result, looked.inspecting) == (answer, False)
    await desk.settle()
    assert desk.look().result == ACCEPTED


async def test_a_fault_of_the_operator_is_no_verdict_and_is_tried_again_later(caplog):
    desk = Desk()
    desk.answer = RuntimeError("ours")
    desk.look()
    await desk.settle()
    assert desk.look().inspecting
    await desk.settle()
    assert desk.runs == 1, "not at once"

    desk.inspections._entries["uid"].not_before = 0
    desk.answer = ACCEPTED
    desk.look()
    await desk.settle()
    assert desk.look().result == ACCEPTED


async def test_after_a_restart_a_retried_refusal_is_not_asked_for_at_once():
    desk = Desk()
    unreachable = refused(Reason.SOURCE_UNREACHABLE)
    assert desk.look(persisted=unreachable).result == unreachable
    await desk.settle()
    assert desk.runs == 0


async def test_what_a_pod_found_instead_is_inspected_once():
    desk = Desk()
    other = SourcePin(kind="Conditional", value='"etag-2"')
    desk.look(persisted=ACCEPTED)
    looked = desk.look(changed=other)
    assert looked.inspecting
    assert looked.source_changed
    desk.answer = ACCEPTED.model_copy(update={"source": other})
    await desk.settle()
    assert desk.look(changed=other).result.source == other
    assert not desk.look(changed=other).inspecting
    await desk.settle()
    assert desk.runs == 1


async def test_a_pod_that_found_what_was_inspected_changes_nothing():
    desk = Desk()
    desk.look(persisted=ACCEPTED)
    assert not desk.look(changed=ACCEPTED.source).inspecting
    await desk.settle()
    assert desk.runs == 0


async def test_pods_that_claim_ever_new_changes_have_the_source_looked_at_no_more_often(monkeypatch):
    """Anybody who makes pods that look like the model's may claim anything."""
    desk = Desk()
    now = 0.0
    monkeypatch.setattr(Inspections, "_now", staticmethod(lambda: now))
    desk.look(persisted=ACCEPTED)
    for number in range(2000):
        now += 10
        desk.look(changed=SourcePin(kind="Conditional", value=f"claim-{number}"))
        await desk.settle()
    # 20000 seconds: twice as long from one to the next, up to ten minutes.
    assert desk.runs < 60
    assert len(desk.inspections._entries["uid"].changes_seen) <= MAX_CHANGES


async def test_one_models_slow_source_holds_up_no_other():
    desk = Desk()
    desk.gate.clear()
    desk.look(uid="slow")
    await desk.settle()
    desk.gate.set()
    desk.look(uid="fast")
    await desk.settle()
    assert desk.look(uid="fast").result == ACCEPTED


async def test_nothing_goes_on_for_a_model_that_is_gone():
    desk = Desk()
    desk.gate.clear()
    desk.look()
    await desk.settle()
    task = desk.inspections._entries["uid"].task
    desk.inspections.forget("uid")
    await desk.settle()
    assert task.cancelled() or task.done()
    assert desk.look().inspecting
    desk.inspections.forget("uid")
    await desk.settle()


async def test_a_refusal_of_an_earlier_life_is_checked_once_and_stands_meanwhile():
    """Whoever fixes a setting restarts the operator: the verdict that named the setting must not outlive it."""
    desk = Desk()
    old = refused(Reason.SOURCE_REFUSED)
    assert desk.look(persisted=old).result == old
    desk.inspections._entries["uid"].not_before = 0
    assert not desk.look(persisted=old).inspecting
    await desk.settle()
    assert desk.look().result == ACCEPTED
    await desk.settle()
    assert desk.runs == 1


async def test_a_source_that_goes_back_and_forth_is_looked_at_each_time():
    desk = Desk()
    versions = {v: SourcePin(kind="Conditional", value=f'"{v}"') for v in "ab"}

    def holding(version):
        return ACCEPTED.model_copy(update={"source": versions[version]})

    desk.answer = holding("a")
    desk.look()
    await desk.settle()
    for number, version in enumerate("baba", start=2):
        desk.answer = holding(version)
        desk.inspections._entries["uid"].not_before = 0
        assert desk.look(changed=versions[version]).inspecting
        await desk.settle()
        assert desk.look().result.source == versions[version]
        assert desk.runs == number


# --- where the source was not even asked ------------------------------------------------------------------------------

BUSY = ApiError(429, "TooManyRequests", "slow down")


@pytest.mark.parametrize("error", [BUSY, ApiError(500, "", "etcd"), TimeoutError(), ConnectionError("gone")])
async def test_a_failing_api_server_is_told_and_says_nothing_of_the_model(error):
    desk = Desk()
    desk.answer = error
    desk.look()
    await desk.settle()
    looked = desk.look()
    assert looked.inspecting
    assert looked.trouble == failure(error)

    desk.inspections._entries["uid"].not_before = 0
    desk.answer = ACCEPTED
    desk.look()
    await desk.settle()
    assert (desk.look().result, desk.look().trouble) == (ACCEPTED, "")


async def test_an_earlier_verdict_stands_while_the_api_server_fails():
    desk = Desk()
    missing = refused(Reason.SOURCE_NOT_FOUND)
    desk.look(persisted=missing)
    desk.inspections._entries["uid"].not_before = 0
    desk.answer = BUSY
    desk.look()
    await desk.settle()
    assert desk.look().result == missing
    assert not desk.look().inspecting


async def looks(desk, monkeypatch, seconds, count=1, step=1.0):
    """How often each of so many models is looked at in that time, and the longest wait between two looks."""
    now = 0.0
    monkeypatch.setattr(Inspections, "_now", staticmethod(lambda: now))
    last, longest = 0.0, 0.0
    while now < seconds:
        runs = desk.runs
        for number in range(count):
            desk.look(uid=f"uid-{number}")
        await desk.settle()
        if desk.runs > runs:
            longest, last = max(longest, now - last), now
        now += step
    return desk.runs / count, longest


@pytest.mark.parametrize("answer", [refused(Reason.CREDENTIALS_NOT_FOUND), BUSY], ids=["no Secret", "API server"])
async def test_what_nobody_tells_of_is_looked_for_at_least_every_half_minute(monkeypatch, answer):
    desk = Desk()
    desk.answer = answer
    runs, longest = await looks(desk, monkeypatch, 3600)
    assert longest <= 25
    assert runs < 200, "and not all the time"


async def test_very_many_models_that_lack_a_secret_ask_no_more_often_together(monkeypatch):
    desk = Desk()
    desk.answer = refused(Reason.CREDENTIALS_NOT_FOUND)
    each, _ = await looks(desk, monkeypatch, 300, count=400, step=5.0)
    assert each * 400 / 300 < 15, "looks in a second"


async def test_other_troubles_are_tried_ever_later(monkeypatch):
    desk = Desk()
    desk.answer = refused(Reason.SOURCE_NOT_FOUND)
    runs, longest = await looks(desk, monkeypatch, 3600)
    assert runs < 20
    assert longest > 300


async def test_a_model_that_is_gone_is_counted_no_longer():
    desk = Desk()
    desk.answer = refused(Reason.CREDENTIALS_NOT_FOUND)
    desk.look()
    await desk.settle()
    assert desk.inspections._held_up == {"uid"}
    desk.inspections.forget("uid")
    assert not desk.inspections._held_up


async def test_a_changed_spec_is_tried_at_once_where_it_may_cure_what_was_in_the_way():
    desk = Desk()
    desk.answer = refused(Reason.QUOTA_EXCEEDED, retriable=True)
    desk.look()
    await desk.settle()
    desk.look()
    await desk.settle()
    assert desk.runs == 1, "the same is not tried at once, however often the model is scaled"
    desk.answer = ACCEPTED
    desk.look(asked="memory")
    await desk.settle()
    assert desk.runs == 2
    assert desk.look(asked="memory").result == ACCEPTED
    desk.look(asked="more memory")
    await desk.settle()
    assert desk.runs == 2, "what was concluded is not looked at again"
