"""A budget of bytes that concurrent inspections share, so that together they never overfill the work folder."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ByteBudget:
    """Hands out bytes, and lets takers wait while there are too few. 0 is no limit."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def take(self, count: int) -> AsyncIterator[None]:
        """Hold ``count`` bytes; one taker alone may hold more than there is, else it would wait forever."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._total or not self._used or self._used + count <= self._total)
            self._used += count
        try:
            yield
        finally:
            self._used -= count
            async with self._changed:
                self._changed.notify_all()
