"""A keyed queue: what happened does not matter, only which object to look at again.

A key that is added many times before it is taken is handed out once; a key is never handed to two workers at a time;
one that is added while it is worked on comes again afterwards. The same contract as client-go's workqueue, in asyncio.
"""

import asyncio
import random
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 300.0


class KeyedQueue(Generic[Key]):
    """Coalescing queue with delayed additions and per-key exponential backoff. For one event loop."""

    def __init__(self) -> None:
        self._ready: deque[Key] = deque()
        self._waiting: set[Key] = set()
        self._working: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._wakeup = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: Key) -> None:
        """Have the key looked at as soon as a worker is free."""
        if key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._working:
            self._ready.append(key)
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

    def _timer_due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def retry(self, key: Key) -> float:
        """Have a failed key looked at again, later with each failure in a row; returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(failures, 20))
        # Jitter keeps keys that failed together from coming back together.
        delay *= 0.75 + random.random() / 2  # noqa: S311
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: Key) -> None:
        """Forget the failures of a key."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """Drop all that is remembered of a key whose object is gone."""
        self._failures.pop(key, None)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def get(self) -> Key:
        """The next key; the caller must call :meth:`done` with it."""
        while not self._ready:
            self._wakeup.clear()
            await self._wakeup.wait()
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: Key) -> None:
        """The key has been worked on."""
        self._working.discard(key)
        if key in self._waiting:
            self._ready.append(key)
            self._wakeup.set()
