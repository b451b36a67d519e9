"""Which call ended a child: read from what the kernel itself writes down when it raises the signal.

The signal's stack is a page that the child shares with its parent, and its handler is libc's ``_exit``: no code of ours
runs in a process whose state nobody knows. What is read here may be a forgery; it is a number for the log, no more.
"""

import ctypes
import mmap
import os
import signal
import struct

MARK = 0x4F58
"""Tells the filter's signal from others: it comes back as ``si_errno``."""
EXIT_CODE = int(signal.SIGSYS)
"""Of a child that the handler ended: the handler's first argument is the signal."""
_BYTES = 64 << 10
"""Larger than any machine's registers."""
_SI_CODE_SECCOMP = 1
_SA_SIGINFO, _SA_ONSTACK = 0x00000004, 0x08000000
_BEGIN = struct.pack("=iii", int(signal.SIGSYS), MARK, _SI_CODE_SECCOMP)
_NUMBER_AT = 24
"""Offset in the kernel's ``siginfo_t``, on machines of 64 bits."""
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Stack(ctypes.Structure):
    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


class _Action(ctypes.Structure):
    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class Epitaph:
    """Made before the fork; the child calls :meth:`engrave`, the parent :meth:`keep` and, in the end, :meth:`read`."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _BYTES)

    def keep(self) -> None:
        """Keep it from children that are forked from now on: it is nobody's but that one's."""
        self._page.madvise(mmap.MADV_DONTFORK)

    def engrave(self) -> None:
        """Have this process end with :data:`EXIT_CODE` at SIGSYS, and the kernel write why. Raises OSError."""
        begin = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        handler = ctypes.cast(_LIBC._exit, ctypes.c_void_p)
        action = _Action(handler, flags=_SA_SIGINFO | _SA_ONSTACK)
        if _LIBC.sigaltstack(ctypes.byref(_Stack(begin, 0, _BYTES)), None) or _LIBC.sigaction(
            int(signal.SIGSYS), ctypes.byref(action), None
        ):
            number = ctypes.get_errno()
            raise OSError(number, f"SIGSYS cannot be handled ({os.strerror(number)})")

    def read(self) -> int | None:
        """The number of the call, where one was written."""
        at = self._page.find(_BEGIN)
        if at < 0 or at + _NUMBER_AT + 4 > _BYTES:
            return None
        return int(struct.unpack_from("=i", self._page, at + _NUMBER_AT)[0])

    def close(self) -> None:
        """Give the page back."""
        self._page.close()
