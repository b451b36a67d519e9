"""How long to wait between tries: longer after each failure in a row, and not all at the same moment. Pure."""

import math
import random
from dataclasses import dataclass

_MAX_DOUBLINGS = 20
"""Of what a float can hold there are many more, but no wait is as long."""


@dataclass(frozen=True)
class Backoff:
    """Waits in seconds, from ``first`` to ``longest``, each ``factor`` times the one before."""

    first: float
    longest: float = math.inf
    factor: float = 2.0
    spread: float = 0.25
    """By what part a wait may be shorter or longer: those that failed together must not come back together."""

    def after(self, failures: int) -> float:
        """The wait after so many failures in a row, from 1 on."""
        delay = min(self.longest, self.first * self.factor ** min(failures - 1, _MAX_DOUBLINGS))
        return delay * random.uniform(1 - self.spread, 1 + self.spread)  # noqa: S311
