"""What the demonstration prints."""

from __future__ import annotations

import time

_STARTED = time.monotonic()


def heading(text: str) -> None:
    """The start of a chapter, with the time since the start of the program."""
    print(f"\n[{time.monotonic() - _STARTED:6.1f} s] {text}", flush=True)


def line(text: str = "") -> None:
    """A line of a chapter, indented under its heading."""
    for part in text.splitlines() or [""]:
        print(f"           {part}".rstrip(), flush=True)


def timed(text: str, since: float) -> None:
    """A line with the seconds since a `time.monotonic()`."""
    print(f"  {time.monotonic() - since:6.1f} s  {text}", flush=True)
