"""Where the process stands between its start and its end, as its probes and its log tell it."""

import asyncio
import logging
import time
from collections.abc import Callable

from onnx_operator.api.contract import Phase

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_SECONDS = 10.0


class Lifecycle:
    """Ready exactly while the model serves and nobody has asked the process to stop. ``clock`` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.phase = Phase.LOADING
        self.draining = False
        self._clock = clock
        self._entered = clock()
        self._figures: dict[str, object] = {}

    def enter(self, phase: Phase) -> None:
        """Begin ``phase``."""
        self._figures = {}
        self._entered = self._clock()
        self.phase = phase

    def note(self, **figures: object) -> None:
        """Replace the figures of how far the current phase is. May come from another thread."""
        self._figures = figures

    @property
    def progress(self) -> dict[str, object]:
        """How far the current phase is, and for how many seconds it has lasted; nothing once the model serves."""
        if self.phase is Phase.SERVING:
            return {}
        return {**self._figures, "phaseSeconds": round(self._clock() - self._entered, 3)}

    @property
    def ready(self) -> bool:
        """Whether new requests should come here."""
        return self.phase is Phase.SERVING and not self.draining

    @property
    def state(self) -> str:
        """The phase in a word, ``Draining`` once the end has been asked for."""
        return "Draining" if self.draining else str(self.phase)


async def log_progress(lifecycle: Lifecycle, interval: float = PROGRESS_INTERVAL_SECONDS) -> None:
    """Log every ``interval`` seconds how far the start is, until the model serves."""
    while True:
        await asyncio.sleep(interval)
        if lifecycle.phase is Phase.SERVING or lifecycle.draining:
            return
        logger.info("starting", extra={"fields": {"phase": str(lifecycle.phase), **lifecycle.progress}})
