"""Places that tenants share: nobody is passed for ever, nothing lies idle, nothing is lost."""

import asyncio
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from onnx_operator.model.inspection.fair import FairPlaces, FairQueue

TENANTS = ["a", "b", "c", "d"]


class AnyUse(RuleBasedStateMachine):
    """Whatever tenants do, and in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.most = 3, 2
        self.queue: FairQueue[int] = FairQueue(self.places, self.most)
        self.now = 0.0
        self.number = 0
        self.waiting: dict[int, str] = {}
        self.held: dict[int, str] = {}

    def _grant(self) -> None:
        for key in self.queue.grant(self.now):
            tenant = self.waiting.pop(key)
            first = min(each for each, name in [*self.waiting.items(), (key, tenant)] if name == tenant)
            assert key == first, "within a tenant, who came first"
            self.held[key] = tenant

    @rule(tenant=st.sampled_from(TENANTS))
    def ask(self, tenant: str) -> None:
        self.number += 1
        self.waiting[self.number] = tenant
        self.queue.ask(self.number, tenant, self.now)
        self._grant()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[key]
        self.queue.leave(key, self.now)
        self._grant()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def stop_waiting(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[key]
        self.queue.leave(key, self.now)
        self._grant()

    @rule()
    def leave_twice(self) -> None:
        self.queue.leave(self.number + 1000, self.now)

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def what_is_held_is_within_bounds(self) -> None:
        counts = Counter(self.held.values())
        assert self.queue.held == len(self.held) <= self.places
        assert self.queue.waiting == len(self.waiting)
        assert all(count <= self.most for count in counts.values())
        assert all(self.queue.held_by(tenant) == counts[tenant] for tenant in TENANTS)

    @invariant()
    def no_place_is_free_for_which_somebody_may_wait(self) -> None:
        counts = Counter(self.held.values())
        if len(self.held) < self.places:
            assert all(counts[tenant] >= self.most for tenant in self.waiting.values())

    @invariant()
    def nothing_is_remembered_for_nothing(self) -> None:
        assert self.queue.known <= (len(TENANTS) if self.held or self.waiting else 0)


TestAnyUse = AnyUse.TestCase
TestAnyUse.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def busy(
    queue: FairQueue[int], lengths: dict[str, float], until: float, newcomer: tuple[str, float] | None = None
) -> tuple[Counter[str], Counter[str], float | None]:
    """Tenants that always wait with work of a length each; their place-seconds, their grants, and who came when in."""
    now, number, held = 0.0, 0, {}
    seconds: Counter[str] = Counter()
    grants: Counter[str] = Counter()
    entered = None
    owners: dict[int, str] = {}

    def ask(tenant: str) -> None:
        nonlocal number
        number += 1
        owners[number] = tenant
        queue.ask(number, tenant, now)

    for tenant in lengths:
        for _ in range(5):
            ask(tenant)
    came = False
    while now < until:
        if newcomer and not came and now >= newcomer[1]:
            came = True
            ask(newcomer[0])
        for key in queue.grant(now):
            tenant = owners[key]
            if newcomer and tenant == newcomer[0]:
                entered = now
                held[key] = now + 0.01
                continue
            grants[tenant] += 1
            seconds[tenant] += lengths[tenant]
            held[key] = now + lengths[tenant]
            ask(tenant)
        key = min(held, key=held.__getitem__)
        now = max(now, held.pop(key))
        queue.leave(key, now)
    return seconds, grants, entered


@given(st.dictionaries(st.sampled_from(TENANTS), st.floats(1, 20), min_size=2), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_tenants_that_always_wait_get_equal_parts_whatever_their_work(lengths: dict[str, float], places: int) -> None:
    longest = max(lengths.values())
    seconds, _, _ = busy(FairQueue(places), lengths, 25 * longest)
    if places <= len(lengths):
        fair = sum(seconds.values()) / len(lengths)
        assert all(abs(had - fair) <= 3 * longest + 0.15 * fair for had in seconds.values()), seconds


@given(
    st.dictionaries(st.sampled_from(TENANTS), st.floats(1, 20), min_size=1),
    st.integers(2, 4),
    st.floats(0, 200),
)
@settings(max_examples=25, deadline=None)
def test_who_comes_is_let_in_by_the_time_that_one_place_becomes_free(
    lengths: dict[str, float], places: int, at: float
) -> None:
    longest = max(lengths.values())
    _, _, entered = busy(FairQueue(places, places - 1), lengths, at + 4 * longest + 1, ("new", at))
    assert entered is not None
    # It came at or just after the event at which the places were looked at.
    assert entered <= at + 2 * longest + 0.01
    if len(lengths) == 1:
        assert entered <= at + longest + 0.01


def test_one_tenant_never_keeps_the_last_place() -> None:
    queue: FairQueue[int] = FairQueue(3, 2)
    for key in range(100):
        queue.ask(key, "heavy", 0)
    assert queue.grant(0) == [0, 1]
    queue.ask(1000, "other", 1)
    assert queue.grant(1) == [1000]


def test_a_tenant_is_not_passed_for_ever_by_others_that_come_anew_each_time() -> None:
    queue: FairQueue[object] = FairQueue(1)
    queue.ask("long", "t", 0)
    assert queue.grant(0) == ["long"]
    queue.ask("next", "t", 0)
    queue.ask(("other", 0), "other-0", 0)
    now, passed = 100.0, 0
    queue.leave("long", now)
    for number in range(1, 1_000_000):
        (key,) = queue.grant(now)
        if key == "next":
            break
        passed += 1
        queue.ask(("other", number), f"other-{number}", now)
        now += 1
        queue.leave(key, now)
    # It had had 100 seconds while another waited: that much goes to others first, and no more.
    assert 1 <= passed <= 210
    assert queue.known < 100


def test_work_of_no_length_counts_too() -> None:
    queue: FairQueue[int] = FairQueue(1)
    _, grants, _ = busy(queue, {"a": 0.0, "b": 1.0}, 60)
    assert grants["b"] >= 20


def test_who_crowds_is_who_has_more_than_a_share_while_another_waits() -> None:
    queue: FairQueue[int] = FairQueue(4)
    for key in range(4):
        queue.ask(key, "a", 0)
    queue.grant(0)
    assert not queue.crowds("a"), "nobody else waits"
    queue.ask(10, "b", 0)
    assert queue.crowds("a")
    assert not queue.crowds("b")
    queue.leave(0, 1)
    assert queue.grant(1) == [10]
    assert not queue.crowds("a")
    queue.ask(11, "b", 1)
    assert queue.crowds("a"), "three of four, and b waits with one"
    queue.leave(1, 2)
    queue.grant(2)
    queue.ask(12, "b", 2)
    assert not queue.crowds("a"), "two each"


@pytest.mark.parametrize("seed", range(5))
async def test_no_wake_up_is_lost_when_waiters_are_cancelled(seed: int) -> None:
    rng = random.Random(seed)
    places = FairPlaces(2, 1)
    running: Counter[str] = Counter()

    async def work(tenant: str) -> None:
        async with places.hold(tenant):
            running[tenant] += 1
            assert running[tenant] <= 1
            assert running.total() <= 2
            try:
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(0)
            finally:
                running[tenant] -= 1

    tasks = [asyncio.create_task(work(rng.choice(TENANTS))) for _ in range(200)]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        for task in rng.sample(tasks, 3):
            if rng.random() < 0.3:
                task.cancel()
        # However many are cancelled, somebody goes on: the loop would not end otherwise.
    assert places.held == places.waiting == 0
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(30), places.hold("a"), places.hold("b"):
        assert places.held == 2


async def test_a_waiter_that_is_cancelled_in_the_moment_of_its_turn_passes_the_place_on() -> None:
    places = FairPlaces(1)
    first = await places.acquire("a")
    second = asyncio.create_task(places.acquire("b"))
    third = asyncio.create_task(places.acquire("c"))
    await asyncio.sleep(0)
    places.release(first)
    second.cancel()
    async with asyncio.timeout(30):
        await third
    assert places.held == 1
