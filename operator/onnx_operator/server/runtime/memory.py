"""How much memory processes hold, as the kernel counts it; proc(5)."""

import contextlib
import os
from pathlib import Path

from onnx_operator.server.runtime.malloc import release_memory

_PAGE = os.sysconf("SC_PAGESIZE")


class Resident:
    """What this process holds beyond ``base``, which is what it held when it began to serve. All in bytes."""

    def __init__(self, base: int) -> None:
        self.base = base
        # Kept open: it is read for every large request.
        self._file = os.open("/proc/self/statm", os.O_RDONLY)

    def beyond(self) -> int:
        """Bytes held beyond the base."""
        return int(os.pread(self._file, 128, 0).split()[1]) * _PAGE - self.base

    def release(self) -> None:
        """Give back what is free."""
        release_memory()


def resident_memory_bytes(pid: int | str = "self") -> int:
    """Memory of a process, by default of this one; 0 where there is none."""
    return _memory("VmRSS:", pid)


def peak_memory_bytes() -> int:
    """The most that this process has held since :func:`forget_peak`, or ever where that is not allowed."""
    return _memory("VmHWM:", "self")


def forget_peak() -> None:
    """Begin anew to look for the peak. Where that is not allowed, it is that of the process's whole life."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _memory(line_start: str, pid: int | str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(line_start):
                return int(line.split()[1]) * 1024
    return 0
