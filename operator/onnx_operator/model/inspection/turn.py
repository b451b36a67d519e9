"""A child's place among the few that use much memory and processor time, or of those that read much."""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from onnx_operator.api.conditions import Reason
from onnx_operator.model.inspection.fair import FairPlaces
from onnx_operator.model.inspection.stopwatch import Stopwatch
from onnx_operator.model.sources.base import SourceError

_LIGHT_BYTES = 1 << 20
"""A child that was given no more than this takes little memory: it needs no place, and may have others in its own."""
_MAX_WAIT_SECONDS = 120.0
"""For a store, all in all, in a place that others need."""
_T = TypeVar("_T")


class Turn:
    """One child's places: of those that check, and of those that read much."""

    def __init__(self, places: FairPlaces, readers: FairPlaces, tenant: str, stopwatch: Stopwatch) -> None:
        self._places = places
        self._readers = readers
        self._tenant = tenant
        self._stopwatch = stopwatch
        self._place: int | None = None
        self._reader: int | None = None
        self._waited = 0.0
        self._given = 0
        """Bytes that the child was given."""

    async def take(self) -> None:
        """Wait for a place, where the child has none."""
        if self._place is None:
            with self._stopwatch.paused():
                self._place = await self._places.acquire(self._tenant)
            self._stop_reading()

    async def make_room(self, size: int) -> None:
        """Wait until the child may be given so much more: one that holds much is one of few."""
        self._given += size
        if self._place is None and self._reader is None and self._given > _LIGHT_BYTES:
            with self._stopwatch.paused():
                self._reader = await self._readers.acquire(self._tenant)

    def give_back(self) -> None:
        """Let others in."""
        self._stop_checking()
        self._stop_reading()

    def _stop_checking(self) -> None:
        if self._place is not None:
            self._places.release(self._place)
            self._place = None

    def _stop_reading(self) -> None:
        if self._reader is not None:
            self._readers.release(self._reader)
            self._reader = None

    async def waiting(self, answer: Awaitable[_T]) -> _T:
        """Wait for a store, and let others in meanwhile where little memory is held.

        Raises :class:`SourceError` (``SourceUnreachable``) where a place is held for too long by this.
        """
        if self._place is None:
            return await self._reading(answer)
        light = self._given <= _LIGHT_BYTES
        if light:
            self._stop_checking()
        started = time.monotonic()
        try:
            async with asyncio.timeout(None if light else max(0.0, _MAX_WAIT_SECONDS - self._waited)):
                found = await answer
        except TimeoutError:
            raise _too_slow() from None
        self._waited += time.monotonic() - started
        if light:
            await self.take()
        return found

    async def _reading(self, answer: Awaitable[_T]) -> _T:
        """Wait for a store as long as it takes, but for those who keep more than their share from others."""
        if self._reader is None:
            return await answer
        task = asyncio.ensure_future(answer)
        try:
            while not task.done():
                crowding = self._readers.crowds(self._tenant)
                started = time.monotonic()
                await asyncio.wait({task}, timeout=1.0)
                if crowding:
                    self._waited += time.monotonic() - started
                if self._waited > _MAX_WAIT_SECONDS:
                    raise _too_slow()
            return task.result()
        finally:
            task.cancel()


def _too_slow() -> SourceError:
    return SourceError(
        Reason.SOURCE_UNREACHABLE,
        f"The store kept the check of the model waiting for more than {_MAX_WAIT_SECONDS:g} s in all.",
        retriable=True,
    )
