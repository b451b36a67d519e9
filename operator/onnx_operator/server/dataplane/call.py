"""One inference in progress, and how to give it up from another thread."""

from collections.abc import Callable
from threading import Lock


class Cancelled(Exception):  # noqa: N818 - an outcome that was asked for, not a fault
    """The call was given up before it had an answer."""


class Call:
    """Handed to a worker with its work; ``cancel`` may come from any thread, before or during the run."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._cancelled = False
        self._stop: Callable[[], None] | None = None

    def begin(self, stop: Callable[[], None]) -> None:
        """Announce how the run that starts now can be stopped.

        Raises :class:`Cancelled` if nobody waits for it any more.
        """
        with self._lock:
            if self._cancelled:
                raise Cancelled
            self._stop = stop

    def cancel(self) -> None:
        """Stop the run at its next operator, or before it starts."""
        with self._lock:
            self._cancelled = True
            if self._stop is not None:
                self._stop()

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._cancelled
