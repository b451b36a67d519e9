"""Processes named by id and start time, so that a reused id is never mistaken for ours."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(on: bool = True) -> None:
    """Ask the kernel to kill this process when its parent dies (or no longer to)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if on else 0, 0, 0, 0)


def start_time(pid: int) -> str | None:
    """When a process started, in the kernel's clock ticks; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def is_alive(pid: int, started: str) -> bool:
    """Whether the process with this id is still the one that started then."""
    return start_time(pid) == started


def first_child(pid: int) -> int | None:
    """A child of the process, if it has one."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid and fields[0] not in "ZX":
            return int(stat.parent.name)
    return None


def kill(pid: int, started: str, timeout: float = 10) -> bool:
    """Kill one process by its id, if it is the one meant, and wait until it is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # Checked while the descriptor holds the process: the id cannot change hands any more.
        if not is_alive(pid, started):
            return True
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not is_alive(pid, started):
            return True
        time.sleep(0.02)
    return False
