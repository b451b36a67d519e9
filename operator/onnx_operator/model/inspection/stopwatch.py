"""Time that an inspection really had: what it spends in queues is not its own."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """Runs from its making on, and stands still while it is paused."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._paused = 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """What it shows."""
        until = self._clock() if self._since is None else self._since
        return until - self._started - self._paused

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stand still."""
        if self._since is not None:
            yield
            return
        self._since = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - self._since
            self._since = None
