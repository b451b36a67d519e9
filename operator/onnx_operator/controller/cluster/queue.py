"""A keyed queue: what happened does not matter, only which object to look at again.

A key that is added many times before it is taken is handed out once; a key is never handed to two workers at a time;
one that is added while it is worked on comes again afterwards. The same contract as client-go's workqueue, in asyncio,
but that the workers are shared out: see :class:`onnx_operator.controller.cluster.turns.Turns`.
"""

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from onnx_operator.common.backoff import Backoff
from onnx_operator.controller.cluster.turns import Turns

Key = TypeVar("Key", bound=Hashable)

FIRST_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 300.0
_BACKOFF = Backoff(FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)

HEAVY_SECONDS = 1.0
"""What takes a worker longer than this is looked at less often for mere hints."""
REST_FACTOR = 4.0
MAX_REST_SECONDS = 10.0


class KeyedQueue(Generic[Key]):
    """Coalescing queue with delayed additions and per-key exponential backoff. For one event loop."""

    def __init__(self, party: Callable[[Key], Hashable] = lambda key: None, most: int | None = None) -> None:
        """Begin empty.

        Args:
            party: to whom a key belongs: ready keys are handed out party by party, so that nobody waits for all that
                another has brought. By default all are of one.
            most: keys of one party that are worked on at the same time.
        """
        self._ready = Turns(party, most)
        self._waiting: set[Key] = set()
        self._working: dict[Key, float] = {}
        self._rests: dict[Key, asyncio.TimerHandle] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._hinted: dict[Key, float] = {}
        self._wakeup = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def remembered(self) -> int:
        """Keys, and parties, that anything is kept of."""
        keys = {*self._waiting, *self._working, *self._rests, *self._timers, *self._failures, *self._hinted}
        return len(keys) + self._ready.parties

    def add(self, key: Key) -> None:
        """Have the key looked at as soon as a worker is free."""
        if key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._working:
            self._ready.add(key)
            self._wakeup.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Have the key looked at after a while; of several such times the earliest counts."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._timer_due, key)

    def hint(self, key: Key, seconds: float) -> None:
        """Have the key looked at after a while, because of something that anybody can bring about at will.

        A key that kept a worker for long first rests for some multiple of that: a flood of hints never takes more than
        a fraction of a worker. While a key fails, a first hint counts as any, since it may tell of the cure; those that
        follow come ever later, as its retries do: what each try brings about itself is no reason for the next one.
        """
        now = asyncio.get_running_loop().time()
        rest = self._rests.get(key)
        wait = rest.when() - now if rest else 0.0
        if failures := self._failures.get(key):
            if key in self._hinted:
                wait = max(wait, self._hinted[key] + min(MAX_REST_SECONDS, _BACKOFF.after(failures)) - now)
            if wait <= seconds:
                self._hinted[key] = now
        self.add_after(key, max(seconds, wait))

    def _timer_due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def retry(self, key: Key) -> float:
        """Have a failed key looked at again, later with each failure in a row; returns the delay in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = _BACKOFF.after(failures)
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: Key) -> None:
        """Forget the failures of a key."""
        self._failures.pop(key, None)
        self._hinted.pop(key, None)

    def forget(self, key: Key) -> None:
        """Drop all that is remembered of a key whose object is gone."""
        self.succeeded(key)
        for timers in (self._timers, self._rests):
            timer = timers.pop(key, None)
            if timer is not None:
                timer.cancel()

    async def get(self) -> Key:
        """The next key; the caller must call :meth:`done` with it."""
        while (key := self._ready.take()) is None:
            self._wakeup.clear()
            await self._wakeup.wait()
        self._waiting.discard(key)
        self._working[key] = asyncio.get_running_loop().time()
        return key

    def done(self, key: Key) -> None:
        """The key has been worked on."""
        loop = asyncio.get_running_loop()
        took = loop.time() - self._working.pop(key)
        self._ready.give_back(key)
        if rest := self._rests.pop(key, None):
            rest.cancel()
        if took > HEAVY_SECONDS:
            rested = loop.time() + min(MAX_REST_SECONDS, REST_FACTOR * took)
            self._rests[key] = loop.call_at(rested, self._rests.pop, key, None)
        if key in self._waiting:
            self._ready.add(key)
        # Its party may have waited for the place.
        self._wakeup.set()
