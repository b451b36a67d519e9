"""No file, no port and nobody outside may be reached: Landlock, beside the filter of system calls.

See https://docs.kernel.org/userspace-api/landlock.html. It takes no privilege. Each process that restricts itself is
a domain of its own, so that those which are forked side by side cannot trace or signal each other either.
"""

import ctypes
import os
import struct
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""The same on all architectures."""
_ASK_VERSION = 1
_BENEATH, _READ_FILE = 1, 1 << 2
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many rights over files there are, by the first version of the interface that has so many."""
_NETWORK_RIGHTS = {4: 2}
_SCOPES = {6: 2}
"""Abstract Unix sockets, signals."""
_LIBC = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Version of the kernel's interface; 0 where there is none, it is off, or the container forbids it."""
    return max(0, int(_LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION))))


def restrict(readable: Path | None = None) -> bool:
    """Give up, for good, all rights that the kernel's version knows; False where it knows none.

    One file, ``readable``, may still be opened to be read.

    The process must have given up new privileges before. Raises OSError where the kernel refuses.
    """
    known = version()
    if not known:
        return False
    # Fields that an older kernel does not know are 0, which it takes.
    attributes = struct.pack("=QQQ", *(_bits(table, known) for table in (_FILE_RIGHTS, _NETWORK_RIGHTS, _SCOPES)))
    ruleset = _LIBC.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    if ruleset < 0:
        raise _error("makes no Landlock rules")
    try:
        if readable is not None:
            _let_read(ruleset, readable)
        if _LIBC.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)):
            raise _error("takes no Landlock rules")
    finally:
        os.close(ruleset)
    return True


def _let_read(ruleset: int, path: Path) -> None:
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        rule = struct.pack("=Qi", _READ_FILE, opened)
        if _LIBC.syscall(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_BENEATH), rule, ctypes.c_uint32(0)):
            raise _error("takes no Landlock rule for a file")
    finally:
        os.close(opened)


def _bits(table: dict[int, int], known: int) -> int:
    return int((1 << max((count for first, count in table.items() if first <= known), default=0)) - 1)


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"the kernel {what} ({os.strerror(number)})")
