"""The system calls that a sealed process may make: whatever is not here ends it.

The list was made by tracing children that judged the models, archives and signatures of the tests, whole, damaged and
made to harm. ``python -m pytest -p tests.tools.sealed tests/unit/model`` tells whether it has all that they take; a
call that it lacks is named in the error. Calls that did not show in the traces are marked with why they are here.

Another kind of work takes another profile: a function like :func:`parsing`, which may begin with its calls.
"""

import errno
import mmap
import os
import resource
import signal

from onnx_operator.model.inspection.bpf import Call, Condition

Profile = tuple[Call, ...]

PIPE = 3
"""The one descriptor that a sealed process talks over; 0 to 2 are /dev/null."""
_STDOUT, _STDERR = 1, 2
_MAP_LOCKED, _MAP_HUGETLB, _MREMAP_MAYMOVE = 0x2000, 0x40000, 1
_ADVICE = (mmap.MADV_DONTNEED, mmap.MADV_FREE, mmap.MADV_HUGEPAGE, mmap.MADV_NOHUGEPAGE)
_FUTEX_COMMANDS = (128, 129, 137, 393)
"""Waiting and waking within the process (private), with and without a time limit; no robust, PI or requeue kind."""
_CLOCKS = 12
"""Clocks of the system and of this process; larger numbers are devices, negative ones other processes."""
_PR_SET_VMA = 0x53564D41
_ITSELF = 0
_READ = os.O_RDONLY | os.O_CLOEXEC
_OPENED = (4, 5)
"""Descriptors of the file that is opened: it is closed before the next one."""


def parsing(pid: int) -> Profile:
    """For the process ``pid``, which parses: it answers over :data:`PIPE`, calculates, and takes or returns memory."""
    return (
        Call(0, 63, (Condition(0, is_one_of=(PIPE,)),)),  # read
        Call(1, 64, (Condition(0, is_one_of=(PIPE, _STDERR, _STDOUT)),)),  # write
        # Memory without code, and without files.
        Call(
            *(9, 222),  # mmap
            (
                Condition(2, has_none_of=mmap.PROT_EXEC),
                Condition(3, has=mmap.MAP_ANONYMOUS, has_none_of=_MAP_HUGETLB | _MAP_LOCKED),
            ),
        ),
        Call(10, 226, (Condition(2, has_none_of=mmap.PROT_EXEC),)),  # mprotect: malloc's second heap, where brk ends
        Call(11, 215),  # munmap
        Call(12, 214),  # brk
        Call(25, 216, (Condition(3, is_one_of=(0, _MREMAP_MAYMOVE)),)),  # mremap
        Call(28, 233, (Condition(2, is_one_of=_ADVICE),)),  # madvise
        # Its own limit of memory, below the hard one.
        Call(
            302, 261, (Condition(0, is_one_of=(_ITSELF,)), Condition(1, is_one_of=(resource.RLIMIT_AS,)))
        ),  # prlimit64
        Call(202, 98, (Condition(1, is_one_of=_FUTEX_COMMANDS),)),  # futex
        Call(318, 278),  # getrandom
        Call(228, 113, (Condition(0, below=_CLOCKS),)),  # clock_gettime: where the vDSO has no clock
        Call(96, 169),  # gettimeofday: likewise
        Call(204, 123, (Condition(0, is_one_of=(_ITSELF,)),)),  # sched_getaffinity: malloc counts the processors
        Call(219, 128),  # restart_syscall: the kernel's own way back from a stopped or frozen container
        Call(231, 94),  # exit_group
        # How abort() ends a process: a crash must tell itself from a call that is not allowed.
        Call(14, 135),  # rt_sigprocmask
        Call(39, 172),  # getpid
        Call(186, 178),  # gettid
        Call(234, 131, (Condition(0, is_one_of=(pid,)), Condition(2, is_one_of=(int(signal.SIGABRT),)))),  # tgkill
        # Newer C libraries and interpreters give their memory names, and live without.
        Call(157, 167, (Condition(0, is_one_of=(_PR_SET_VMA,)),), answer=errno.EINVAL),  # prctl
    )


def judging(pid: int) -> Profile:
    """For a parsing process that also asks the runtime, which maps the one file that Landlock lets it open."""
    return (
        *parsing(pid),
        Call(257, 56, (Condition(2, is_one_of=(os.O_RDONLY, _READ, _READ | os.O_NONBLOCK)),)),  # openat
        Call(0, 63, (Condition(0, is_one_of=_OPENED),)),  # read: what is sparse is not mapped
        Call(3, 57, (Condition(0, is_one_of=_OPENED),)),  # close
        Call(5, 80, (Condition(0, is_one_of=_OPENED),)),  # fstat
        Call(
            *(9, 222),  # mmap, of a copy of its own
            (
                Condition(2, has_none_of=mmap.PROT_EXEC),
                Condition(3, is_one_of=(mmap.MAP_PRIVATE,)),
                Condition(4, is_one_of=_OPENED),
            ),
        ),
        # The runtime looks at each part of the file's path, to tell that it leads nowhere else.
        Call(4, 79),  # stat; newfstatat on aarch64
        Call(6, 79),  # lstat; where a branch that is always taken comes in the place of its If
        Call(89, 78),  # readlink; readlinkat on aarch64
    )
