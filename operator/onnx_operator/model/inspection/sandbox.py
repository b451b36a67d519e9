"""What a parsing child takes upon itself before it sees an untrusted byte: limits, and no way out.

The kernel lets it make the calls of a short list and no other one: see :mod:`profiles`. Landlock keeps it from files,
ports and other processes besides, where the kernel has it. Neither needs a privilege; both hold in any container.
"""

import ctypes
import os
import platform
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from onnx_operator.common.cgroups import memory_limit
from onnx_operator.model.inspection import bpf, landlock, profiles
from onnx_operator.model.inspection.epitaph import MARK, Epitaph

_OTHERS_BYTES = 512 << 20
"""Memory that is left for the processes that parse nothing: a child over the container's limit would end them too."""
_READING_BYTES = 128 << 20
"""Address space for reading a structure, before it is a child's turn to check it; many read at the same time."""
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_CAPABILITIES_VERSION = 0x20080522
_SPACE: dict[str, int] = {}
"""Limits of this process's address space, once it is limited: without mapped files, and with them."""
_LIBC = ctypes.CDLL(None, use_errno=True)


def seal() -> None:
    """Keep other processes of this user out of this one: its memory, environment and files.

    For processes that hold credentials, or fork those that parse: children inherit it.
    """
    if _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise _error("the process cannot be sealed")


def enter(
    *,
    cpu_seconds: int,
    memory_bytes: int,
    parsers: int,
    epitaph: Epitaph | None = None,
    profile: Callable[[int], profiles.Profile] = profiles.parsing,
    readable: Path | None = None,
    mapped_bytes: int = 0,
) -> None:
    """Limit this process for good.

    Memory is the address space beyond what it has now, at most this child's share of the container; until
    :func:`expand` it is a small part of that. A limit is met as MemoryError or by death of SIGXCPU. A call that
    ``profile`` does not allow ends the process by SIGSYS, or as ``epitaph`` says. Raises OSError where the kernel has
    no seccomp: nothing is parsed unguarded.

    ``readable`` is a file that may be opened, where ``profile`` allows it and :func:`can_open_one_file`; of it,
    ``mapped_bytes`` may be mapped, in address space that :func:`mapping` opens. These limits hold nothing but files'
    pages only as long as somebody watches what the process really takes.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    now = pages * resource.getpagesize()
    space = share(memory_bytes, parsers)
    hard = _set_limit(resource.RLIMIT_AS, now + min(space, _READING_BYTES), now + space + mapped_bytes)
    _SPACE.update(full=min(now + space, hard), hard=hard)
    # Between the two the child dies of SIGXCPU, which tells why.
    _set_limit(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 5)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # With a handler of Python's, the kernel would return by a call of its own.
    for each in (signal.SIGXFSZ, signal.SIGCHLD):
        signal.signal(each, signal.SIG_DFL)
    if epitaph is not None:
        epitaph.engrave()
    program = bpf.program(profile(os.getpid()), platform.machine(), trap=MARK if epitaph is not None else None)
    # Who runs as root could raise the limits again.
    if _LIBC.capset((ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0), (ctypes.c_uint32 * 6)()):
        raise _error("capabilities cannot be given up")
    if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _error("new privileges cannot be given up")
    landlock.restrict(readable)
    _allow_only(program)


def share(memory_bytes: int, parsers: int) -> int:
    """Memory that a child may take: so many bytes at most, and no more than one of so many children has."""
    return min(memory_bytes, max(0, ((memory_limit() or sys.maxsize) - _OTHERS_BYTES) // parsers))


def _set_limit(kind: int, soft: int, hard: int) -> int:
    """Set a limit, or keep a lower one that this process inherited; returns the hard one."""
    _, inherited = resource.getrlimit(kind)
    if inherited != resource.RLIM_INFINITY:
        hard = min(hard, inherited)
    resource.setrlimit(kind, (min(soft, hard), hard))
    return hard


def can_open_one_file() -> bool:
    """Whether the kernel can tell one file from another: the filter of system calls cannot."""
    return landlock.version() > 0


def expand() -> None:
    """Use the whole memory, from now on: only so many children may at the same time."""
    resource.setrlimit(resource.RLIMIT_AS, (_SPACE["full"], _SPACE["hard"]))


@contextmanager
def mapping(size: int) -> Iterator[bool]:
    """Have address space for so many bytes of the readable file beside the memory; False where there is less."""
    full, hard = _SPACE.get("full", 0), _SPACE.get("hard", 0)
    if not full or full + size > hard:
        # Outside of a limited process there is no limit.
        yield not full
        return
    resource.setrlimit(resource.RLIMIT_AS, (full + size, hard))
    try:
        yield True
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (full, hard))


def anonymous_bytes(pid: int) -> int:
    """Memory that a process really takes, pages of files left out; 0 for one that is gone."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * resource.getpagesize()


def _allow_only(program: bytes) -> None:
    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    loaded = Program(len(program) // 8, program)
    if _LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0):
        raise _error("the kernel takes no seccomp filter")


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what} ({os.strerror(number)})")
