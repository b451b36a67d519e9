"""Seeded fuzzing: a number of cases in ``make test``, minutes of them in ``make test-soak``."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
"""How long each fuzzer goes on; 0 for the number of cases that its test names."""
SEED = int(os.environ.get("FUZZ_SEED", "0"))
"""The first case's seed. Every case has its own, so that one that failed is run again with ``FUZZ_SEED`` alone."""


@dataclass
class Fuzz:
    """The cases of one fuzzer.

    ``for rng in fuzz(500): ...`` makes every choice of a case with ``rng``, and raises where a promise is broken.
    """

    cases: int = 0
    seed: int = SEED
    started: float = field(default_factory=time.monotonic)

    def __call__(self, count: int) -> Iterator[random.Random]:
        """A random source a case: ``count`` of them, or as many as fit into ``FUZZ_SECONDS``."""
        while time.monotonic() - self.started < SECONDS if SECONDS else self.cases < count:
            self.seed = SEED + self.cases
            yield random.Random(self.seed)
            self.cases += 1


def mutated(rng: random.Random, data: bytes, most: int = 8) -> bytes:
    """``data`` with up to ``most`` bytes changed, removed, repeated or put in, of the kind that parsers trip over."""
    out = bytearray(data)
    for _ in range(rng.randint(1, most)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(6):
            case 0 if out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            case 1 if out:
                out[at % len(out)] = rng.choice(b"\x00\x7f\x80\xff\r\n\t \"'{}[]():,;%/\\.-0")
            case 2:
                del out[at : at + rng.randint(1, 16)]
            case 3:
                out[at:at] = out[at : at + rng.randint(1, 64)]
            case 4:
                out[at:at] = rng.randbytes(rng.randint(1, 16))
            case _:
                del out[at:]
    return bytes(out)


def pieces(rng: random.Random, data: bytes, most: int = 6) -> list[bytes]:
    """``data`` cut at up to ``most`` places."""
    cuts = sorted({0, len(data), *(rng.randrange(len(data) + 1) for _ in range(rng.randint(0, most)))})
    return [data[a:b] for a, b in itertools.pairwise(cuts)]
