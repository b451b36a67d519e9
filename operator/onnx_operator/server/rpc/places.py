"""Who may take in a message now: a few calls at once, and no caller's address before another's turn."""

from collections import deque
from threading import Lock


class Places:
    """``count`` places, for threads. Where they are too few, the address that holds the fewest has the next.

    A caller that opens many calls and sends nothing keeps its own calls waiting, not those of others.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._held: dict[str, int] = {}
        self._waiting: dict[str, deque[Lock]] = {}
        self._lock = Lock()

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for a place."""
        return bool(self._waiting)

    def share(self, address: str) -> int:
        """How many places an address holds."""
        return self._held.get(address, 0)

    def acquire(self, address: str, timeout: float) -> bool:
        """Take a place within so many seconds; whether that was possible."""
        with self._lock:
            if self._free:
                self._free -= 1
                self._held[address] = self._held.get(address, 0) + 1
                return True
            gate = Lock()
            gate.acquire()
            self._waiting.setdefault(address, deque()).append(gate)
        if gate.acquire(timeout=timeout):
            return True
        with self._lock:
            gates = self._waiting.get(address)
            if gates is None or gate not in gates:
                # It was handed over in this moment.
                return True
            gates.remove(gate)
            if not gates:
                del self._waiting[address]
            return False

    def release(self, address: str) -> None:
        """Give a place back, to whoever is next."""
        with self._lock:
            left = self._held[address] - 1
            if left:
                self._held[address] = left
            else:
                del self._held[address]
            if not self._waiting:
                self._free += 1
                return
            held = self._held
            chosen = min(self._waiting, key=lambda each: held.get(each, 0)) if len(self._waiting) > 1 else None
            chosen = next(iter(self._waiting)) if chosen is None else chosen
            gates = self._waiting.pop(chosen)
            gate = gates.popleft()
            if gates:
                # At the end: of those that hold as many, the one that has waited longest for its turn is first.
                self._waiting[chosen] = gates
            held[chosen] = held.get(chosen, 0) + 1
            gate.release()
