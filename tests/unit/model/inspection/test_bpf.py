"""Lists of allowed calls say the same as programs for the kernel, on every machine there is a table for."""

import struct
from random import Random

import pytest

from onnx_operator.model.inspection import profiles
from onnx_operator.model.inspection.bpf import Call, Condition, program

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
I386, ARM = 0x40000003, 0x40000028
ALLOW, ANSWER, TRAP, KILL = 0x7FFF0000, 0x00050000, 0x00030000, 0x80000000


def verdict(code: bytes, architecture: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel's machine returns: as much of it as seccomp filters use."""
    filled = [each & (1 << 64) - 1 for each in (*arguments, *[0] * (6 - len(arguments)))]
    data = struct.pack("=IIQ6Q", number, architecture, 0, *filled)
    at, word = 0, 0
    while True:
        kind, yes, no, value = struct.unpack_from("=HBBI", code, 8 * at)
        at += 1
        if kind == 0x20:
            (word,) = struct.unpack_from("=I", data, value)
        elif kind == 0x06:
            return int(value)
        else:
            at += yes if {0x15: word == value, 0x35: word >= value, 0x45: bool(word & value)}[kind] else no


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize(("trap", "end"), [(None, KILL), (0x4F58, TRAP | 0x4F58)])
def test_only_calls_of_the_list_are_made(machine: str, trap: int | None, end: int) -> None:
    pid = 4711
    calls = profiles.parsing(pid)
    code = program(calls, machine, trap=trap)
    numbers = {call.number(machine) for call in calls}
    for number in range(1024):
        for arguments in ((), (3,), (pid, pid, 6), (2, 4096, 3, 0x22), (0, 9), (0, 129)):
            found = verdict(code, ARCHITECTURES[machine], number, arguments)
            assert found in (ALLOW, ANSWER | 22, end)
            if number not in numbers:
                assert found == end
        assert verdict(code, ARCHITECTURES[machine], number | 0x40000000, (3,)) == end
        for other in (I386, ARM, *(set(ARCHITECTURES.values()) - {ARCHITECTURES[machine]})):
            assert verdict(code, other, number, (3,)) == KILL


@pytest.mark.parametrize(
    ("machine", "read", "write", "mmap", "tgkill", "prlimit"),
    [("x86_64", 0, 1, 9, 234, 302), ("aarch64", 63, 64, 222, 131, 261)],
)
def test_arguments_decide(machine: str, read: int, write: int, mmap: int, tgkill: int, prlimit: int) -> None:
    code = program(profiles.parsing(4711), machine)

    def made(number: int, *arguments: int) -> bool:
        return verdict(code, ARCHITECTURES[machine], number, arguments) == ALLOW

    assert [made(read, n) for n in (0, 1, 2, 3, 4, -1)] == [False, False, False, True, False, False]
    assert [made(write, n) for n in (0, 1, 2, 3, 4, -1)] == [False, True, True, True, False, False]
    assert [made(mmap, 0, 4096, prot, 0x22, -1) for prot in (0, 1, 3, 4, 5, 7)] == [True] * 3 + [False] * 3
    assert [made(mmap, 0, 4096, 3, flags, 3) for flags in (1, 2, 0x21, 0x40022)] == [False, False, True, False]
    assert [made(tgkill, *each) for each in ((4711, 1, 6), (4711, 1, 9), (1, 1, 6))] == [True, False, False]
    assert [made(prlimit, *each) for each in ((0, 9), (0, 0), (1, 9), (4711, 9))] == [True, False, False, False]


def test_conditions_mean_what_they_say_in_any_combination() -> None:
    random = Random(7)

    def condition() -> Condition:
        return Condition(
            random.randrange(6),
            is_one_of=tuple(random.sample(range(16), random.randrange(4))),
            below=random.choice([None, random.randrange(16)]),
            has=random.choice([0, 1, 2, 4]),
            has_none_of=random.choice([0, 0, 8, 3]),
        )

    def holds(each: Condition, value: int) -> bool:
        return (
            (not each.is_one_of or value in each.is_one_of)
            and (each.below is None or value < each.below)
            and (not each.has or bool(value & each.has))
            and not value & each.has_none_of
        )

    for _ in range(300):
        calls = [
            Call(number, number, tuple(condition() for _ in range(random.randrange(3))), random.choice([0, 0, 13]))
            for number in random.choices(range(5), k=random.randrange(1, 6))
        ]
        code = program(calls, "aarch64")
        for _ in range(50):
            number, arguments = random.randrange(6), tuple(random.randrange(16) for _ in range(6))
            meant = KILL
            for call in calls:
                if call.aarch64 == number and all(holds(each, arguments[each.argument]) for each in call.where):
                    meant = ANSWER | 13 if call.answer else ALLOW
                    break
            assert verdict(code, ARCHITECTURES["aarch64"], number, arguments) == meant
