"""Work in pieces: between two of them others of the process have their turn.

A call into C, such as parsing a body of megabytes, making an array of a million objects or freeing them, holds the
interpreter's lock until it returns, in whatever thread it runs: meanwhile no probe is answered. So what is large is
read, turned into arrays and freed in pieces of some milliseconds, with a pause in between that is long enough for
somebody else to take the lock. The same goes for answers. Outside of :func:`working` nobody pauses: what is read or
written on the event loop is small.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, local
from time import monotonic, sleep
from typing import Any, TypeAlias

PIECE = 32 * 1024
"""Bytes of a text, or elements of a list, that one call works on: 2 to 7 ms."""
_PAUSE = 50e-6
"""Seconds. Without it, whoever lets go of the lock takes it again before another thread wakes up."""
_STINT = 1e-3
"""Seconds of work between two pauses at least: what is in many small parts would take longer by them than by itself."""
_NEVER = 1 << 30
_ALWAYS = (10_000, 4, _NEVER)
"""How often garbage is looked for meanwhile: never among all objects, which takes a third of a second for a million
lists, and among new ones before they are many."""

Large: TypeAlias = list[Any] | dict[Any, Any]


@dataclass(frozen=True)
class _Kept:
    items: Large
    step: int
    runs: Sequence[int]

    def empty(self) -> None:
        items = self.items
        if isinstance(items, list) and self.runs:
            del items[sum(self.runs) :]
            for count in reversed(self.runs):
                del items[len(items) - count :]
                give_way()
        while items:
            if isinstance(items, list):
                del items[-self.step :]
            else:
                for _ in range(min(self.step, len(items))):
                    items.popitem()
            give_way()


class _Reading(local):
    kept: list[_Kept] | None = None
    since = 0.0


class _Collecting:
    """Holds back full collections while anybody reads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._readers = 0
        self._usual = gc.get_threshold()

    def begin(self) -> None:
        with self._lock:
            self._readers += 1
            if self._readers == 1:
                self._usual = gc.get_threshold()
                gc.set_threshold(*_ALWAYS)

    def end(self) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                gc.set_threshold(*self._usual)


_reading = _Reading()
_collecting = _Collecting()


def give_way() -> None:
    """Let others have a turn, if something large is worked on in this thread."""
    if _reading.kept is not None and monotonic() - _reading.since >= _STINT:
        sleep(_PAUSE)
        _reading.since = monotonic()


def pieces(length: int, step: int = PIECE) -> Iterator[slice]:
    """The parts of a sequence, one after the other; others have a turn in between."""
    for at in range(0, length, step):
        if at:
            give_way()
        yield slice(at, at + step)


def keep(items: Large, size: int = 1, runs: Sequence[int] = ()) -> None:
    """Leave a list or dictionary, which may be large and which nobody needs once the work is done, to be emptied.

    Each item is freed with about ``size`` others, or ``runs`` says, once a list is full, how many of its items make a
    piece.
    """
    if _reading.kept is not None:
        _reading.kept.append(_Kept(items, max(1, PIECE // max(1, size)), runs))


@contextmanager
def working() -> Iterator[None]:
    """While this is entered, a large body or answer is worked on in this thread; at its end, what was kept is freed."""
    _collecting.begin()
    kept: list[_Kept] = []
    before, _reading.kept = _reading.kept, kept
    try:
        yield
    finally:
        for each in kept:
            each.empty()
        _reading.kept = before
        _collecting.end()
