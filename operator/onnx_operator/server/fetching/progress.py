"""How far a container is with something long, for whoever reads its log."""

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_SECONDS = 2.0


class Progress:
    """Logs how much of ``expected`` bytes is done, at most every two seconds. ``clock`` counts seconds."""

    def __init__(self, what: str, expected: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._expected = expected
        self._clock = clock
        self._logged_at = clock()
        self._logged_bytes: int | None = None
        self._before = 0

    def advance(self, size: int) -> None:
        """Count a part of ``size`` bytes as done; what is told from now on comes on top."""
        self._before += size

    def __call__(self, received: int, total: int | None = None) -> None:
        """Take note of the bytes so far of the current part."""
        now, done = self._clock(), self._before + received
        if self._logged_bytes is None:
            self._logged_bytes = done
        elapsed = now - self._logged_at
        if elapsed < PROGRESS_INTERVAL_SECONDS and done != self._expected:
            return
        rate = max(0, done - self._logged_bytes) / elapsed / 1e6 if elapsed > 0 else 0.0
        self._logged_at, self._logged_bytes = now, done
        logger.info(
            self._what,
            extra={
                "fields": {
                    "bytes": done,
                    "percent": round(100 * done / self._expected, 1) if self._expected else 100.0,
                    "megabytesPerSecond": round(rate, 1),
                }
            },
        )
