"""Whose turn it is: things wait in the order they came, but each party has only one turn a round. Pure."""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class Turns(Generic[Item]):
    """Round-robin over parties, first come first served within one; nothing is left of a party that has nothing here.

    However much one party brings, another's first item waits for at most one item of each other party.
    """

    def __init__(self, party: Callable[[Item], Hashable], most: int | None = None) -> None:
        """Begin with nothing waiting.

        Args:
            party: to whom an item belongs.
            most: items of one party that may be taken at the same time; None for any number.
        """
        self._party = party
        self._most = most
        self._waiting: OrderedDict[Hashable, deque[Item]] = OrderedDict()
        self._full: dict[Hashable, deque[Item]] = {}
        self._taken: Counter[Hashable] = Counter()

    def add(self, item: Item) -> None:
        """Have the item wait behind those of its party; the party behind those that wait already."""
        party = self._party(item)
        where = self._full if self._is_full(party) else self._waiting
        where.setdefault(party, deque()).append(item)

    def take(self) -> Item | None:
        """The item whose turn it is, until :meth:`give_back`; None where none may be taken."""
        if not self._waiting:
            return None
        party, items = self._waiting.popitem(last=False)
        item = items.popleft()
        self._taken[party] += 1
        if items:
            where = self._full if self._is_full(party) else self._waiting
            where[party] = items
        return item

    def give_back(self, item: Item) -> None:
        """An item that was taken is done with."""
        party = self._party(item)
        self._taken[party] -= 1
        if not self._taken[party]:
            del self._taken[party]
        if party in self._full:
            self._waiting[party] = self._full.pop(party)

    def _is_full(self, party: Hashable) -> bool:
        return self._most is not None and self._taken[party] >= self._most

    def __len__(self) -> int:
        """Items that wait."""
        return sum(len(items) for items in (*self._waiting.values(), *self._full.values()))

    @property
    def parties(self) -> int:
        """Parties that anything is remembered of."""
        return len({*self._waiting, *self._full, *self._taken})
