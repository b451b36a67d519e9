"""How many bytes all requests of this process may take at once.

A pod has a memory limit, and whoever goes beyond it is killed with everybody whom it serves. So what a request takes
is counted before it is taken: its body while it arrives, what reading it makes of it, its answer, and what a caller
leaves unread. Beyond the budget a request is refused: 413 if it could never fit, else 503.
"""

from threading import Lock
from typing import Protocol

from onnx_operator.server.errors import RequestError

UNLIMITED = 2 << 30
"""The budget in bytes where the container has no memory limit."""
LOOKED_AT = 256 << 10
"""Bytes from which what is taken must fit beside what is really held."""
LEAST = 8 << 20
"""Bytes that are always there for requests: with less nothing could be answered."""
_SPARE_SHARE = 10
"""A tenth of the limit is nobody's: heaps have holes, and sockets and page tables count as well."""
SPARE = 12 << 20
"""Bytes that are nobody's besides: heads of requests, and the body that is just being read on the event loop."""


class Memory(Protocol):
    """What a process holds; see :class:`onnx_operator.server.runtime.memory.Resident`."""

    def beyond(self) -> int:
        """Bytes that are held beyond what was held before the first request."""

    def release(self) -> None:
        """Give back to the system what is free."""


class Budget:
    """Counts bytes. Any thread may take and give."""

    def __init__(self, total: int = UNLIMITED) -> None:
        self.total = total
        self.used = 0
        self.of_loop = 0
        """Bytes of small bodies, which the event loop alone counts, without a lock: each is read in the moment it is
        there."""
        self.memory: Memory | None = None
        """What is really held, where that is to be looked at."""
        self._lock = Lock()

    def take(self, amount: int, *, look: bool = True) -> bool:
        """Take ``amount`` bytes if they are there.

        Large amounts must also fit beside what is held without being counted, such as the holes that earlier requests
        have left in the heaps, if there is a ``look`` at that.
        """
        with self._lock:
            if self.of_loop + self.used + amount > self.total:
                return False
            if look and amount >= LOOKED_AT and self.memory is not None and not self._fits(amount, self.memory):
                self.memory.release()
                if not self._fits(amount, self.memory):
                    return False
            self.used += amount
            return True

    def _fits(self, amount: int, memory: Memory) -> bool:
        return max(self.of_loop + self.used, memory.beyond()) + amount <= self.total

    def add(self, amount: int) -> None:
        """Count bytes that are in use already, whether they were there or not; negative ones go back."""
        with self._lock:
            self.used += amount

    def give(self, amount: int) -> None:
        """Give bytes back."""
        with self._lock:
            self.used -= amount

    def refusal(self, amount: int) -> RequestError:
        """Why ``amount`` bytes cannot be taken: 413 if they never could, else 503."""
        if amount > self.total:
            return RequestError(
                f"the request is too large for this server: it takes about {amount >> 10} KiB of memory to answer, of "
                f"{self.total >> 10} KiB for requests; send it in parts, or raise the pod's memory limit",
                413,
            )
        return RequestError("the memory for requests is in use; try again shortly", 503)


class Account:
    """What one request holds of the budget while it is read away from the event loop. For one thread at a time."""

    def __init__(self, budget: Budget, held: int) -> None:
        self._budget = budget
        self.held = held

    def reserve(self, amount: int) -> None:
        """Hold at least ``amount`` bytes from now on. Raises :class:`RequestError` where there are not so many."""
        more = amount - self.held
        if more > 0:
            if not self._budget.take(more):
                raise self._budget.refusal(amount)
            self.held = amount

    def reserve_unseen(self, amount: int) -> None:
        """Hold ``amount`` bytes that may come, as counted, without a look at what is really held. Raises as above."""
        if not self._budget.take(amount, look=False):
            raise self._budget.refusal(amount)
        self.held += amount

    def become(self, amount: int) -> None:
        """Hold ``amount`` bytes instead; many of them must fit beside what is really held. Raises as above."""
        if amount >= LOOKED_AT:
            self.lower(0)
            self.reserve(amount)
        elif amount > self.held:
            self.reserve(amount)
        else:
            self.lower(amount)

    def lower(self, amount: int) -> None:
        """Give back what is beyond ``amount``."""
        if self.held > amount:
            self._budget.give(self.held - amount)
            self.held = amount

    def keep(self, amount: int) -> int:
        """Give back what is beyond ``amount`` and leave the rest to the caller, who gives it back."""
        kept = min(amount, self.held)
        self._budget.give(self.held - kept)
        self.held = 0
        return kept


def request_bytes(limit: int | None, processes: int, resident: int, run_bytes: int, runs: int) -> int:
    """The budget of one of ``processes``, all in bytes.

    ``limit`` is the container's, ``resident`` what this process holds once its model is loaded and has run,
    ``run_bytes`` what the largest batch took, of which ``runs`` may be under way at once.
    """
    if limit is None:
        return UNLIMITED
    free = (limit - limit // _SPARE_SHARE) // processes - resident - SPARE
    # One run's memory is resident already. The others' is left to them up to half of what is free: a pod that cannot
    # run its model as often as it may does not become one that reads no request.
    others = min(run_bytes * max(0, runs - 1), free // 2)
    return max(LEAST, free - max(0, others))
