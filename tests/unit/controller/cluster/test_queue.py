"""The queue: what happened how often does not matter, and no model has two workers."""

import asyncio
import heapq

import pytest

from onnx_operator.controller.cluster.queue import MAX_RETRY_SECONDS, KeyedQueue


class Clock:
    """An event loop's time that a test moves by hand: timers fire in order, nobody waits."""

    def __init__(self, loop):
        self._loop = loop
        self._now = loop.time()
        self._timers = []
        self._count = 0

    def time(self):
        return self._now

    def call_at(self, when, callback, *args):
        handle = asyncio.TimerHandle(when, callback, args, self._loop)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def advance(self, seconds):
        self._now += seconds
        while self._timers and self._timers[0][0] <= self._now:
            _, _, handle = heapq.heappop(self._timers)
            if not handle.cancelled():
                handle._run()

    @property
    def waiting(self):
        return sum(not handle.cancelled() for _, _, handle in self._timers)


@pytest.fixture
async def clock(monkeypatch):
    loop = asyncio.get_running_loop()
    fake = Clock(loop)
    monkeypatch.setattr("onnx_operator.controller.cluster.queue.asyncio.get_running_loop", lambda: fake)
    # TimerHandle tells its loop when it is cancelled; ours are not the loop's.
    monkeypatch.setattr(loop, "_timer_handle_cancelled", lambda handle: None)
    return fake


async def take(queue):
    """The keys that are due now, in order, each worked on at once."""
    taken = []
    while True:
        getter = asyncio.ensure_future(queue.get())
        for _ in range(3):
            await asyncio.sleep(0)
        if not getter.done():
            getter.cancel()
            await asyncio.gather(getter, return_exceptions=True)
            return taken
        taken.append(getter.result())
        queue.done(taken[-1])


async def test_a_key_that_was_added_many_times_is_handed_out_once():
    queue = KeyedQueue()
    for _ in range(100):
        queue.add("a")
    assert len(queue) == 1
    assert await take(queue) == ["a"]
    assert len(queue) == 0


async def test_keys_come_in_the_order_they_were_added():
    queue = KeyedQueue()
    for key in "abcab":
        queue.add(key)
    assert await take(queue) == ["a", "b", "c"]


async def test_a_key_is_never_with_two_workers():
    queue = KeyedQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert await take(queue) == ["b"], "a is still worked on"

    queue.done("a")
    assert await take(queue) == ["a"], "and comes again once"


async def test_a_key_that_was_not_added_again_does_not_come_again():
    queue = KeyedQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert await take(queue) == []


async def test_many_workers_share_the_keys_and_none_waits_in_vain():
    queue = KeyedQueue()
    working, seen = set(), []

    async def worker():
        while True:
            key = await queue.get()
            assert key not in working
            working.add(key)
            await asyncio.sleep(0)
            seen.append(key)
            working.discard(key)
            queue.done(key)

    workers = [asyncio.create_task(worker()) for _ in range(4)]
    for round_ in range(5):
        for key in range(20):
            queue.add(key)
        while len(queue) or working:
            await asyncio.sleep(0)
        assert sorted(seen) == sorted(list(range(20)) * (round_ + 1))
    assert not any(w.done() for w in workers)
    for task in workers:
        task.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


async def test_a_worker_that_waits_gets_what_is_added_later():
    queue = KeyedQueue()
    getter = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await getter == "a"


async def test_a_worker_that_is_stopped_while_it_waits_takes_nothing_with_it():
    queue = KeyedQueue()
    getter = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    getter.cancel()
    await asyncio.gather(getter, return_exceptions=True)
    queue.add("a")
    assert await take(queue) == ["a"]


async def test_a_delayed_key_comes_when_its_time_has_come(clock):
    queue = KeyedQueue()
    queue.add_after("a", 10)
    clock.advance(9)
    assert await take(queue) == []
    clock.advance(1)
    assert await take(queue) == ["a"]


@pytest.mark.parametrize("delays", [(10, 3, 20), (3, 20, 10), (20, 10, 3)])
async def test_of_several_delays_the_earliest_counts(clock, delays):
    queue = KeyedQueue()
    for delay in delays:
        queue.add_after("a", delay)
    clock.advance(3)
    assert await take(queue) == ["a"]
    clock.advance(100)
    assert await take(queue) == [], "one wake-up for all"


async def test_failures_in_a_row_wait_longer_and_longer_up_to_a_bound(clock):
    queue = KeyedQueue()
    delays = []
    for _ in range(40):
        delays.append(queue.retry("a"))
        clock.advance(delays[-1])
        assert await take(queue) == ["a"]
    assert all(later > sooner for sooner, later in zip(delays[:6], delays[2:8], strict=True))
    assert max(delays) <= MAX_RETRY_SECONDS * 1.25
    assert min(delays[12:]) >= MAX_RETRY_SECONDS * 0.75


async def test_after_a_success_the_waiting_begins_anew(clock):
    queue = KeyedQueue()
    for _ in range(10):
        long = queue.retry("a")
    queue.succeeded("a")
    assert queue.retry("a") < long / 10


async def test_one_models_failures_do_not_delay_another(clock):
    queue = KeyedQueue()
    for _ in range(10):
        long = queue.retry("a")
    assert queue.retry("b") < long / 10


async def test_a_key_that_waits_for_its_retry_comes_at_once_when_something_happens(clock):
    queue = KeyedQueue()
    queue.retry("a")
    queue.add("a")
    assert await take(queue) == ["a"]


async def test_nothing_is_left_of_a_model_that_is_gone(clock):
    queue = KeyedQueue()
    for _ in range(10):
        long = queue.retry("a")
    queue.forget("a")
    assert clock.waiting == 0
    clock.advance(10_000)
    assert await take(queue) == []
    assert queue.retry("a") < long / 10


async def test_a_namespace_with_thousands_of_keys_holds_up_no_other():
    queue = KeyedQueue(party=lambda key: key[0])
    for number in range(5000):
        queue.add(("greedy", number))
    queue.add(("modest", 0))
    taken = [await queue.get() for _ in range(2)]
    assert ("modest", 0) in taken


async def test_workers_are_left_for_others_when_one_namespace_takes_long():
    queue = KeyedQueue(party=lambda key: key[0], most=2)
    for number in range(5):
        queue.add(("slow", number))
    assert [await queue.get() for _ in range(2)] == [("slow", 0), ("slow", 1)]
    free = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not free.done()
    queue.add(("other", 0))
    assert await free == ("other", 0)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.done(("slow", 0))
    assert await waiting == ("slow", 2), "a place that is given back is taken at once"


async def test_a_key_that_took_long_rests_before_hints_count_again(clock):
    queue = KeyedQueue()
    queue.add("a")
    await queue.get()
    clock.advance(2)
    queue.done("a")
    for _ in range(100):
        queue.hint("a", 0.1)
    clock.advance(7)
    assert await take(queue) == [], "two seconds of work, eight of rest"
    clock.advance(1.5)
    assert await take(queue) == ["a"]
    queue.hint("a", 0.1)
    clock.advance(0.1)
    assert await take(queue) == ["a"], "what took no time needs no rest"


async def test_what_is_no_mere_hint_comes_at_once_even_while_its_key_rests(clock):
    queue = KeyedQueue()
    queue.add("a")
    await queue.get()
    clock.advance(10)
    queue.done("a")
    queue.hint("a", 0.1)
    queue.add("a")
    assert await take(queue) == ["a"]
    queue.forget("a")
    assert queue.remembered == 0
    assert clock.waiting == 0


async def test_what_each_try_brings_about_itself_is_no_reason_for_the_next(clock):
    """As when a webhook changes what is applied: every try changes a child, and fails."""
    queue = KeyedQueue()
    tries = []
    queue.retry("a")
    for tick in range(600):
        queue.hint("a", 0.1)
        clock.advance(0.1)
        if await take(queue):
            tries.append(tick)
            queue.retry("a")
    assert len(tries) <= 14, "a minute of hints"
    assert tries[0] <= 2, "the first may tell of a cure"


async def test_a_cure_that_is_hinted_at_is_noticed_soon_however_long_the_retry_would_take(clock):
    queue = KeyedQueue()
    for _ in range(20):
        queue.retry("a")
    queue.hint("a", 0.1)
    clock.advance(0.11)
    assert await take(queue) == ["a"]
    queue.succeeded("a")
    queue.hint("a", 0.1)
    clock.advance(0.11)
    assert await take(queue) == ["a"], "nothing is held against what works"
    queue.forget("a")
    assert queue.remembered == 0
