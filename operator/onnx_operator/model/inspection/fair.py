"""Who is next: places that are few, shared among tenants of whom each may want all of them."""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass
class _Tenant(Generic[Key]):
    used: float = 0.0
    """Place-seconds that it had, on the clock of the queue."""
    held: int = 0
    waiting: OrderedDict[Key, int] = field(default_factory=OrderedDict)
    """In the order in which they came, with their number in it."""

    @property
    def active(self) -> bool:
        return bool(self.held or self.waiting)


class FairQueue(Generic[Key]):
    """Weighs tenants by the time for which they hold places, as fair queueing does. Pure: the caller tells the time.

    Of the tenants that wait, the one that had least so far is next; within a tenant, who came first. A tenant that
    had nothing to do does not save up for later: it comes back level with the others, whose clock goes on with what
    is given out. So nobody is passed for ever, however many others come, and each of T tenants that always wait gets
    1/T of the places over time.

    Args:
        places: how many there are.
        most: places that one tenant may hold; the rest are free for others at once, however long its work takes.
        cost: place-seconds that each grant counts at least, so that work of no length counts too.
    """

    def __init__(self, places: int, most: int | None = None, *, cost: float = 0.01) -> None:
        self._places = places
        self._most = places if most is None else most
        self._cost = cost
        self._tenants: dict[str, _Tenant[Key]] = {}
        self._of: dict[Key, str] = {}
        self._numbers = itertools.count()
        self._held = 0
        self._clock = 0.0
        self._now = 0.0

    @property
    def held(self) -> int:
        """Places that are taken."""
        return self._held

    @property
    def waiting(self) -> int:
        """Keys that wait."""
        return len(self._of) - self._held

    @property
    def known(self) -> int:
        """Tenants that are remembered."""
        return len(self._tenants)

    def held_by(self, tenant: str) -> int:
        """Places that a tenant holds."""
        found = self._tenants.get(tenant)
        return found.held if found else 0

    def crowds(self, tenant: str) -> bool:
        """Tell whether a tenant holds more than its share while another one waits that holds less."""
        active = [name for name, each in self._tenants.items() if each.active]
        share = max(1, self._places // max(1, len(active)))
        if self.held_by(tenant) <= share:
            return False
        return any(
            name != tenant and self._tenants[name].waiting and self._tenants[name].held < share for name in active
        )

    def ask(self, key: Key, tenant: str, now: float) -> None:
        """Queue for a place; :meth:`grant` tells when it is there."""
        self._account(now)
        found = self._tenants.setdefault(tenant, _Tenant())
        if not found.active:
            found.used = max(found.used, self._clock)
        found.waiting[key] = next(self._numbers)
        self._of[key] = tenant

    def leave(self, key: Key, now: float) -> None:
        """Give a place back, or stop waiting for one."""
        self._account(now)
        name = self._of.pop(key, None)
        if name is None:
            return
        tenant = self._tenants[name]
        if tenant.waiting.pop(key, None) is None:
            tenant.held -= 1
            self._held -= 1
        self._forget(name)

    def grant(self, now: float) -> list[Key]:
        """Those who have a place from now on, in their order."""
        self._account(now)
        granted: list[Key] = []
        while self._held < self._places:
            able = [each for each in self._tenants.values() if each.waiting and each.held < self._most]
            if not able:
                break
            tenant = min(able, key=lambda each: (each.used, next(iter(each.waiting.values()))))
            key, _ = tenant.waiting.popitem(last=False)
            tenant.held += 1
            self._held += 1
            tenant.used += self._cost
            self._clock += self._cost / self._active()
            granted.append(key)
        return granted

    def _active(self) -> int:
        return max(1, sum(each.active for each in self._tenants.values()))

    def _account(self, now: float) -> None:
        """Count what was held since the last call."""
        passed = max(0.0, now - self._now)
        self._now = max(self._now, now)
        if not passed or not self._held:
            return
        self._clock += passed * self._held / self._active()
        for tenant in self._tenants.values():
            tenant.used += passed * tenant.held

    def _forget(self, name: str) -> None:
        """Drop who is no longer ahead of the clock, and everybody where there is nothing to share any more."""
        if not self._of:
            self._tenants.clear()
            self._clock = 0.0
            return
        if not self._tenants[name].active and self._tenants[name].used <= self._clock:
            del self._tenants[name]
        if len(self._tenants) > 2 * self._active() + 64:
            for each in [n for n, t in self._tenants.items() if not t.active and t.used <= self._clock]:
                del self._tenants[each]


class FairPlaces:
    """Places to wait for, given out by a :class:`FairQueue`. For one event loop."""

    def __init__(self, places: int, most: int | None = None) -> None:
        self._queue: FairQueue[int] = FairQueue(places, most)
        self._tickets = itertools.count()
        self._waiting: dict[int, asyncio.Future[None]] = {}

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._queue.waiting

    @property
    def held(self) -> int:
        """How many places are taken."""
        return self._queue.held

    def crowds(self, tenant: str) -> bool:
        """Tell whether a tenant holds more than its share while another one waits that holds less."""
        return self._queue.crowds(tenant)

    async def acquire(self, tenant: str) -> int:
        """Wait for a place; returns the ticket that gives it back."""
        ticket = next(self._tickets)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = place
        self._queue.ask(ticket, tenant, self._now())
        self._wake()
        try:
            await place
        except asyncio.CancelledError:
            # Whether it waits still, or was given the place in this very moment.
            self.release(ticket)
            raise
        return ticket

    def release(self, ticket: int) -> None:
        """Give a place back."""
        self._waiting.pop(ticket, None)
        self._queue.leave(ticket, self._now())
        self._wake()

    @asynccontextmanager
    async def hold(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a place, and hold it."""
        ticket = await self.acquire(tenant)
        try:
            yield
        finally:
            self.release(ticket)

    def _wake(self) -> None:
        for ticket in self._queue.grant(self._now()):
            place = self._waiting.pop(ticket)
            if not place.done():
                place.set_result(None)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
