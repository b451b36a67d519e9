"""What a parsing child takes upon itself before it sees an untrusted byte: limits, and no way out.

A seccomp filter makes the kernel refuse sockets, programs, processes, signals, tracing and writing to it
(https://docs.kernel.org/userspace-api/seccomp_filter.html). It needs no privilege and holds in any container.
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path

_OTHERS_BYTES = 512 << 20
"""Memory that is left for the processes that parse nothing: a child over the container's limit would end them too."""
_READING_BYTES = 128 << 20
"""Address space for reading a structure, before it is a child's turn to check it; many read at the same time."""
# Numbers of the kernel's system calls that the child has no use for, by architecture.
_FORBIDDEN: dict[str, dict[str, int]] = {
    "x86_64": {
        "socket": 41,
        "connect": 42,
        "accept": 43,
        "bind": 49,
        "listen": 50,
        "socketpair": 53,
        "clone": 56,
        "fork": 57,
        "vfork": 58,
        "execve": 59,
        "kill": 62,
        "truncate": 76,
        "rename": 82,
        "mkdir": 83,
        "rmdir": 84,
        "creat": 85,
        "link": 86,
        "unlink": 87,
        "symlink": 88,
        "chmod": 90,
        "chown": 92,
        "ptrace": 101,
        "mount": 165,
        "unlinkat": 263,
        "renameat": 264,
        "accept4": 288,
        "rt_sigqueueinfo": 129,
        "mknod": 133,
        "tkill": 200,
        "tgkill": 234,
        "mkdirat": 258,
        "mknodat": 259,
        "linkat": 265,
        "symlinkat": 266,
        "unshare": 272,
        "rt_tgsigqueueinfo": 297,
        "perf_event_open": 298,
        "setns": 308,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "renameat2": 316,
        "bpf": 321,
        "execveat": 322,
        "userfaultfd": 323,
        "pidfd_send_signal": 424,
        "io_uring_setup": 425,
        "pidfd_open": 434,
        "clone3": 435,
        "openat2": 437,
        "pidfd_getfd": 438,
    },
    "aarch64": {
        "mknodat": 33,
        "mkdirat": 34,
        "unlinkat": 35,
        "symlinkat": 36,
        "linkat": 37,
        "renameat": 38,
        "mount": 40,
        "truncate": 45,
        "fchmodat": 53,
        "ptrace": 117,
        "kill": 129,
        "socket": 198,
        "socketpair": 199,
        "bind": 200,
        "listen": 201,
        "accept": 202,
        "connect": 203,
        "clone": 220,
        "execve": 221,
        "accept4": 242,
        "unshare": 97,
        "tkill": 130,
        "tgkill": 131,
        "rt_sigqueueinfo": 138,
        "rt_tgsigqueueinfo": 240,
        "perf_event_open": 241,
        "setns": 268,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "renameat2": 276,
        "bpf": 280,
        "execveat": 281,
        "userfaultfd": 282,
        "pidfd_send_signal": 424,
        "io_uring_setup": 425,
        "pidfd_open": 434,
        "clone3": 435,
        "openat2": 437,
        "pidfd_getfd": 438,
    },
}
# Calls that are refused where an argument has one of these bits: number, argument, bits. Opening is for reading alone,
# and limits are for this process alone.
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_FORBIDDEN_BITS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "x86_64": ((2, 1, _WRITING), (257, 2, _WRITING), (302, 0, 0xFFFFFFFF)),
    "aarch64": ((56, 2, _WRITING), (261, 0, 0xFFFFFFFF)),
}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LOAD_WORD, _JUMP_IF_EQUAL, _JUMP_IF_GREATER_OR_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06
_JUMP_IF_ANY_BIT = 0x45
_ARGUMENTS_AT = 16
"""Offset of the first argument in the kernel's ``struct seccomp_data``; each takes eight bytes."""
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
_X32_CALLS = 0x40000000


def seal() -> None:
    """Keep other processes of this user out of this one: its memory, environment and files.

    For processes that hold credentials, or fork those that parse: children inherit it.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"the process cannot be sealed ({os.strerror(number)})")


def enter(*, cpu_seconds: int, memory_bytes: int, parsers: int) -> None:
    """Limit this process for good.

    Memory is the address space beyond what it has now, at most this child's share of the container; until
    :func:`expand` it is a small part of that. A limit is met as MemoryError or by death of SIGXCPU. Raises OSError
    where the kernel has no seccomp: nothing is parsed unguarded.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    share = max(0, (_container_limit() - _OTHERS_BYTES) // parsers)
    now = pages * resource.getpagesize()
    space = min(memory_bytes, share)
    resource.setrlimit(resource.RLIMIT_AS, (now + min(space, _READING_BYTES), now + space))
    # Between the two the child dies of SIGXCPU, which tells why.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    _forbid_calls()


def expand() -> None:
    """Use the whole memory, from now on: only so many children may at the same time."""
    _, space = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (space, space))


def _container_limit() -> int:
    """Memory limit of this container in bytes, by cgroup v2 or v1; very large where there is none."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            return int(Path(path).read_text())
    return sys.maxsize


def _forbid_calls() -> None:
    program = _filter(platform.machine())

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    libc = ctypes.CDLL(None, use_errno=True)
    loaded = Program(len(program) // 8, program)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0
    ):
        number = ctypes.get_errno()
        raise OSError(number, f"the kernel takes no seccomp filter ({os.strerror(number)})")


def _filter(machine: str) -> bytes:
    """A BPF program: forbidden calls answer EPERM, another architecture's calls end the process."""
    if machine not in _FORBIDDEN:
        raise OSError(errno.ENOSYS, f"no seccomp filter for the architecture {machine}")

    def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    refuse = instruction(_RETURN, _REFUSE | errno.EPERM)
    load_number = instruction(_LOAD_WORD, 0)
    steps = [
        instruction(_LOAD_WORD, 4),
        instruction(_JUMP_IF_EQUAL, _AUDIT_ARCH[machine], 1, 0),
        instruction(_RETURN, _KILL),
        load_number,
        # The x32 variants of all calls have numbers of their own.
        instruction(_JUMP_IF_GREATER_OR_EQUAL, _X32_CALLS, 0, 1),
        refuse,
    ]
    for number in sorted(_FORBIDDEN[machine].values()):
        steps += [instruction(_JUMP_IF_EQUAL, number, 0, 1), refuse]
    for number, argument, bits in _FORBIDDEN_BITS[machine]:
        steps += [
            instruction(_JUMP_IF_EQUAL, number, 0, 4),
            instruction(_LOAD_WORD, _ARGUMENTS_AT + 8 * argument),
            instruction(_JUMP_IF_ANY_BIT, bits, 0, 1),
            refuse,
            load_number,
        ]
    return b"".join([*steps, instruction(_RETURN, _ALLOW)])
