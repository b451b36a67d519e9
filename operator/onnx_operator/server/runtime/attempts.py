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

from onnx_operator.api.contract import MAX_KILLS
from onnx_operator.common.cgroups import memory_limit
from onnx_operator.server.runtime.guessing import run_once
from onnx_operator.server.runtime.memory import resident_memory_bytes

logger = logging.getLogger(__name__)

SEARCH_SECONDS = 20.0
"""All made-up inputs together."""
GIVEN_SECONDS = 120.0
"""An input of which somebody says all sizes, or that warmed up the version before: slow models are no wrong ones."""
STATE_FILE = "onnx-warm-up.json"
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
_MAX_STATE = 64 << 10
_PROVEN = 2
"""Starts that ended while an input ran: one alone may be a restart of the node, or somebody who stopped waiting."""
_MAX_TIMES = 1 << 31


class OutOfTimeError(Exception):
    """The search has no time left; ``running`` tells whether the run goes on all the same."""

    def __init__(self, *, running: bool = False) -> None:
        super().__init__()
        self.running = running


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that the container's limit leaves; None without a limit."""
    limit = memory_limit(root)
    return None if limit is None else max(0, limit - resident_memory_bytes())


class Attempts:
    """The bounds of one search.

    Each attempt is noted in ``folder`` before it is run and taken off after: what is found there at the next start was
    running when the process ended, and has killed it if that happened twice. ``tell`` is told whether a made-up input
    runs that the next start will know of. Without a ``folder`` nothing is remembered; without ``record`` what is there
    is heeded, and nothing noted: further processes of one server do the same again.
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
        self._lock = threading.Lock()
        self._running: dict[str, tuple[int, bool]] = {}
        """What runs now, with its bytes, and whether it is made up."""
        self.ended = self._read()
        """What ran when earlier starts ended: identities of guesses, with the bytes of their inputs, and how often."""

    def _read(self) -> dict[str, tuple[int, int]]:
        """What the file says; whatever else may lie there says nothing."""
        if self._file is None:
            return {}
        try:
            if not stat.S_ISREG(self._file.lstat().st_mode) or self._file.stat().st_size > _MAX_STATE:
                return {}
            found = json.loads(self._file.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        known = isinstance(found, dict) and all(map(_is_entry, found.values()))
        return {name: (size, times) for name, (size, times) in found.items()} if known else {}

    @property
    def given_up(self) -> bool:
        """Whether the process ended too often while made-up inputs ran."""
        return self.kills >= MAX_KILLS

    @property
    def kills(self) -> int:
        """How often the process ended while a made-up input ran."""
        return sum(times for name, (_, times) in self.ended.items() if name != MEASURING)

    def killed(self, identity: str) -> bool:
        """Whether this one killed the process: it ran when two starts ended, and was never answered or refused."""
        return self.ended.get(identity, (0, 0))[1] >= _PROVEN

    def allow(self, seconds: float) -> None:
        """Take so much time from now."""
        self._deadline = self._clock() + seconds

    def hurry(self, seconds: float) -> None:
        """Take no more than so much time from now."""
        self._deadline = min(self._deadline, self._clock() + seconds)

    def forbids(self, identity: str, size: int, *, open_sizes: bool) -> bool:
        """Whether a guess must not be run: it killed the process, or is too large for the memory that is free.

        Where nothing about the sizes is guessed (not ``open_sizes``) only the first holds.
        """
        if self.killed(identity):
            return True
        for killed in (size for name, (size, _) in self.ended.items() if name != MEASURING and self.killed(name)):
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
        running = False
        try:
            run_within(model, feed, left, lambda: self._drop(identity))
        except OutOfTimeError as error:
            running = error.running
            raise
        finally:
            # What runs on may still kill the process.
            if not running:
                self.forget(identity)

    def note(self, identity: str, size: int, *, made_up: bool = True) -> None:
        """Note what runs now; a kill by what is not ``made_up`` is told as any other."""
        with self._lock:
            self._running[identity] = (size, made_up)
            noted = self._write()
        # What nobody knows of at the next start would be tried again and again.
        self._tell(noted and self._guessing)

    def forget(self, identity: str) -> None:
        """It did not kill the process."""
        self._drop(identity)
        self._tell(self._file is not None and self._record and self._guessing)

    @property
    def _guessing(self) -> bool:
        with self._lock:
            return any(made_up for _, made_up in self._running.values())

    def _drop(self, identity: str) -> None:
        with self._lock:
            self._running.pop(identity, None)
            self.ended.pop(identity, None)
            self._write()

    def _write(self) -> bool:
        """Write down what runs and what ended; whether the next start will know it."""
        if self._file is None or not self._record:
            return False
        content = dict(self.ended)
        for identity, (size, _) in self._running.items():
            content[identity] = (size, self.ended.get(identity, (0, 0))[1] + 1)
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
            return False
        return True


def _is_entry(found: Any) -> bool:
    if not (isinstance(found, list) and len(found) == 2 and all(type(each) is int for each in found)):
        return False
    return bool(0 <= found[0] < 1 << 62 and 0 < found[1] < _MAX_TIMES)


def run_within(model: Any, feed: Mapping[str, Any], seconds: float, late: Callable[[], None] = lambda: None) -> None:
    """Run the model, and tell it to end after so many seconds. Raises :class:`OutOfTimeError` when that was needed.

    ``late`` is called, in a thread, when a run ends that went on even so.
    """
    options = ort.RunOptions()
    # Refusals are what the search lives on, nothing to be logged.
    options.log_severity_level = 4
    failure: list[BaseException] = []
    ended, left_behind = threading.Event(), threading.Event()

    def target() -> None:
        try:
            run_once(model, feed, options)
        except BaseException as error:
            failure.append(error)
        finally:
            ended.set()
            if left_behind.is_set():
                late()

    threading.Thread(target=target, name="made-up input", daemon=True).start()
    if not ended.wait(seconds):
        options.terminate = True
        # What does not end even so is left behind: it ends with its node.
        if not ended.wait(_GRACE_SECONDS):
            left_behind.set()
            raise OutOfTimeError(running=not ended.is_set())
        raise OutOfTimeError
    if failure:
        raise failure[0]
