"""What can go wrong, in two kinds: something broke, or this machine cannot run a cluster at all."""

from __future__ import annotations

from pathlib import Path


class ClusterError(Exception):
    """A step failed; the message says which one and why."""


class ClusterUnavailableError(ClusterError):
    """This machine lacks something that a cluster needs; the message lists what and why."""


def tail(path: Path, lines: int = 25) -> str:
    """The last lines of a log file, indented for a message; says so when there are none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65536))
            text = file.read().decode(errors="replace")
    except OSError:
        return f"    (no log at {path})"
    last = text.splitlines()[-lines:]
    return "\n".join(f"    {line[:400]}" for line in last) or f"    (the log {path} is empty)"
