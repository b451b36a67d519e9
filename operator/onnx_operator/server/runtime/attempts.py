"""Made-up inputs may not hurt: their memory and time are bounded, and one that kills the process is not tried again."""

import json
import logging
import stat
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort

from onnx_operator.server.runtime.cgroups import memory_limit
from onnx_operator.server.runtime.guessing import run_once
from onnx_operator.server.runtime.memory import resident_memory_bytes

logger = logging.getLogger(__name__)

SEARCH_SECONDS = 20.0
"""All made-up inputs together."""
GIVEN_SECONDS = 120.0
"""An input of which somebody says all sizes, or that warmed up the version before: slow models are no wrong ones."""
STATE_FILE = "onnx-warm-up.json"
MOST_KILLS = 3
"""After as many the search is given up."""
_GRACE_SECONDS = 2.0
"""A run that was told to end does so between two nodes."""
_SHARE = 2
"""Of the free memory, one part in so many may go to a guess."""
_GROWTH = 64
"""Bytes of values in between that a byte of input is taken to need."""
_LARGE = 1 << 20
"""Bytes of input: a kill by one as large was by its memory, so that larger ones are not tried either."""
_LEAP = 64
"""Times the bytes of a small input that killed: kernels that divide by a size of nothing do so below some length."""
MEASURING = "measuring"
"""Names the runs after the first one that was answered."""
_LARGEST_STATE = 64 << 10


class OutOfTimeError(Exception):
    """The search has no time left."""


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that the container's limit leaves; None without a limit."""
    limit = memory_limit(root)
    return None if limit is None else max(0, limit - resident_memory_bytes())


class Attempts:
    """The bounds of one search.

    Each attempt is noted in ``folder`` before it is run and taken off after: what is found there at the next start has
    killed the process. ``tell`` is told whether a made-up input runs. Without a ``folder`` nothing is remembered;
    without ``record`` what is there is heeded, and nothing noted: further processes of one server do the same again.
    """

    def __init__(
        self,
        folder: Path | None = None,
        tell: Callable[[bool], None] = lambda guessing: None,
        free: Callable[[], int | None] = free_memory,
        seconds: float = SEARCH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        *,
        record: bool = True,
    ) -> None:
        self._file = folder / STATE_FILE if folder else None
        self._tell, self._free, self._clock = tell, free, clock
        self._deadline = clock() + seconds
        self._record = record
        self.killed = self._read()
        """What killed earlier starts: identities of guesses, with the bytes of their inputs."""

    def _read(self) -> dict[str, int]:
        """What the file says; whatever else may lie there says nothing."""
        if self._file is None:
            return {}
        try:
            if not stat.S_ISREG(self._file.lstat().st_mode) or self._file.stat().st_size > _LARGEST_STATE:
                return {}
            found = json.loads(self._file.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        known = isinstance(found, dict) and all(type(size) is int and 0 <= size < 1 << 62 for size in found.values())
        return found if known else {}

    @property
    def given_up(self) -> bool:
        """Whether made-up inputs killed the process too often."""
        return self.kills >= MOST_KILLS

    @property
    def kills(self) -> int:
        """How many made-up inputs killed the process."""
        return len(self.killed.keys() - {MEASURING})

    def allow(self, seconds: float) -> None:
        """Take so much time from now."""
        self._deadline = self._clock() + seconds

    def forbids(self, identity: str, size: int, *, open_sizes: bool) -> bool:
        """Whether a guess must not be run: it killed the process, or is too large for the memory that is free.

        Where nothing about the sizes is guessed (not ``open_sizes``) only the first holds.
        """
        if identity in self.killed:
            return True
        for killed in (size for name, size in self.killed.items() if name != MEASURING):
            if killed >= _LARGE and size >= killed:
                return True
            if open_sizes and killed < _LARGE and size < _LEAP * killed:
                return True
        free = self._free() if open_sizes else None
        return free is not None and size > _LARGE // 16 and size * _GROWTH > free // _SHARE

    def run(self, model: Any, feed: Mapping[str, Any], identity: str, size: int) -> None:
        """Run the model on a made-up input.

        Raises :class:`OutOfTimeError` where it does not end in time, otherwise what ONNX Runtime raises.
        """
        left = self._deadline - self._clock()
        if left <= 0:
            raise OutOfTimeError
        self.note(identity, size)
        try:
            run_within(model, feed, left)
        finally:
            self.forget(identity)

    def note(self, identity: str, size: int) -> None:
        """Note what runs now."""
        self._tell(True)
        self._write({**self.killed, identity: size})

    def forget(self, identity: str) -> None:
        """It did not kill the process."""
        self._tell(False)
        self._write(self.killed)

    def _write(self, content: Mapping[str, int]) -> None:
        if self._file is None or not self._record:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            # Whole at any time, and never through a link that somebody else left there.
            written = self._file.with_suffix(".new")
            written.unlink(missing_ok=True)
            with written.open("x") as file:
                file.write(json.dumps(content))
            written.replace(self._file)
        except OSError as error:
            logger.info("the attempt cannot be noted: %s", error)
            self._file = None


def run_within(model: Any, feed: Mapping[str, Any], seconds: float) -> None:
    """Run the model, and tell it to end after so many seconds. Raises :class:`OutOfTimeError` when that was needed."""
    options = ort.RunOptions()
    # Refusals are what the search lives on, nothing to be logged.
    options.log_severity_level = 4
    failure: list[BaseException] = []
    ended = threading.Event()

    def target() -> None:
        try:
            run_once(model, feed, options)
        except BaseException as error:
            failure.append(error)
        finally:
            ended.set()

    threading.Thread(target=target, name="made-up input", daemon=True).start()
    if not ended.wait(seconds):
        options.terminate = True
        # What does not end even so is left behind: it ends with its node.
        ended.wait(_GRACE_SECONDS)
        raise OutOfTimeError
    if failure:
        raise failure[0]
