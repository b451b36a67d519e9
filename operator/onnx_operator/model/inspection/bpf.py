"""Lists of allowed system calls, translated for the kernel's seccomp.

See https://docs.kernel.org/userspace-api/seccomp_filter.html. The machine jumps forwards only, by at most 255 steps;
a list of calls is a row of blocks, each of which either decides or is passed over.
"""

import errno
import struct
from collections.abc import Iterable
from dataclasses import dataclass

_LOAD_WORD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _JUMP_IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
"""Offsets in the kernel's ``struct seccomp_data``; an argument takes eight bytes, the low four first."""
_ALLOW, _ANSWER, _TRAP, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x00030000, 0x80000000
_AUDIT_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_FAIL = -1
"""A jump to wherever the next alternative begins."""
_Step = tuple[int, int, int, int]
"""Code, value, steps to pass over where the test holds, and where it does not."""


@dataclass(frozen=True)
class Condition:
    """What an argument must be, all of these that are set. Its low 32 bits count: the kernel reads no more of them."""

    argument: int
    is_one_of: tuple[int, ...] = ()
    below: int | None = None
    has: int = 0
    """A bit."""
    has_none_of: int = 0
    """Bits."""

    def steps(self) -> list[_Step]:
        """Go on behind the last step where the condition holds."""
        steps: list[_Step] = [(_LOAD_WORD, _ARGUMENTS_AT + 8 * self.argument, 0, 0)]
        for left, value in zip(range(len(self.is_one_of) - 1, -1, -1), self.is_one_of, strict=True):
            steps.append((_JUMP_IF_EQUAL, value, left, 0 if left else _FAIL))
        if self.below is not None:
            steps.append((_JUMP_IF_AT_LEAST, self.below, _FAIL, 0))
        if self.has:
            steps.append((_JUMP_IF_ANY_BIT, self.has, 0, _FAIL))
        if self.has_none_of:
            steps.append((_JUMP_IF_ANY_BIT, self.has_none_of, _FAIL, 0))
        return steps


@dataclass(frozen=True)
class Call:
    """A call that may be made where all conditions hold."""

    x86_64: int
    aarch64: int
    where: tuple[Condition, ...] = ()
    answer: int = 0
    """An error number: the call is not made, and answers this."""

    def number(self, machine: str) -> int:
        """The number of this call on a machine."""
        return self.x86_64 if machine == "x86_64" else self.aarch64


def program(calls: Iterable[Call], machine: str, *, trap: int | None = None) -> bytes:
    """Instructions for the kernel: what ``calls`` does not allow never runs.

    It ends the process by SIGSYS, which nothing in the process can prevent. With ``trap`` it raises SIGSYS in the
    process with this number (at most 16 bits) as ``si_errno``: then a handler can tell which call it was. A call of
    another architecture always ends the process. Raises OSError for a machine without a table.
    """
    if machine not in _AUDIT_ARCHITECTURE:
        raise OSError(errno.ENOSYS, f"no table of system calls for the architecture {machine}")
    otherwise: _Step = (_RETURN, _KILL_PROCESS if trap is None else _TRAP | trap, 0, 0)
    steps: list[_Step] = [
        (_LOAD_WORD, _ARCHITECTURE_AT, 0, 0),
        (_JUMP_IF_EQUAL, _AUDIT_ARCHITECTURE[machine], 1, 0),
        (_RETURN, _KILL_PROCESS, 0, 0),
        # The x32 variants of all calls have numbers of their own, which are on no list.
        (_LOAD_WORD, _NUMBER_AT, 0, 0),
    ]
    alternatives: dict[int, list[Call]] = {}
    for call in calls:
        alternatives.setdefault(call.number(machine), []).append(call)
    for number, several in alternatives.items():
        block = [step for call in several for step in _block(call)]
        steps += [(_JUMP_IF_EQUAL, number, 0, len(block) + 1), *block, otherwise]
    return b"".join(struct.pack("=HBBI", code, yes, no, value) for code, value, yes, no in [*steps, otherwise])


def _block(call: Call) -> list[_Step]:
    verdict = _ANSWER | call.answer if call.answer else _ALLOW
    steps = [*(step for condition in call.where for step in condition.steps()), (_RETURN, verdict, 0, 0)]

    def forwards(at: int, jump: int) -> int:
        return len(steps) - at - 1 if jump == _FAIL else jump

    return [(code, value, forwards(at, yes), forwards(at, no)) for at, (code, value, yes, no) in enumerate(steps)]
