"""A parser bug that gives code execution in the sealed child: judging a file of a certain name runs code there.

``sitecustomize.py`` of the process that forks calls :func:`take_over`; the real judge keeps all other names.
"""

import ctypes
import json
import mmap
import os
import sys
from pathlib import Path
from typing import Any

NAME = "intruder:"
"""Of a file; what follows is Python."""
SITE = """
import sys
if "onnx_operator.model.inspection.zygote" in sys.orig_argv:
    from tests.security import intruder
    intruder.take_over()
"""
_INT80 = bytes.fromhex("b814000000 cd80 c3")
"""``mov eax, 20; int 0x80; ret``: getpid of the i386 calls."""


def site(folder: Path) -> None:
    """Make a folder that has to come first on ``sys.path`` where the parser is started."""
    (folder / "sitecustomize.py").write_text(SITE)


def call(number: int, arguments: tuple[int | str, ...]) -> str:
    """The name of a file by which one system call is tried; the verdict's message is :func:`answer`'s."""
    return f"{NAME}answer = syscall({number}, {json.dumps(list(arguments))})"


def take_over() -> None:
    import onnx_operator.model.verdict as module
    from onnx_operator.api.report import InspectionResult, Refusal

    real = module.verify
    libc = ctypes.CDLL(None, use_errno=True)
    text = ctypes.create_string_buffer(b"intruder", 4096)
    zero, one = ctypes.create_string_buffer(64), ctypes.create_string_buffer(b"\1", 64)
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(_INT80)
    target = os.fsencode(Path(sys.modules["sitecustomize"].__file__ or "").with_name("target"))
    words: dict[str, Any] = {
        **{"AF_INET": 2, "AF_UNIX": 1, "SOCK_STREAM": 1, "AT_FDCWD": -100, "PIPE": 3, "CLONE_THREAD": 0x10F00},
        **{"F_GETFL": 3, "F_SETFL": 4, "F_SETOWN": 8, "F_SETSIG": 10, "F_SETOWN_EX": 15, "F_DUPFD": 0},
        **{"F_SETLEASE": 1024, "F_NOTIFY": 1026, "FIOASYNC": 0x5452, "FIOSETOWN": 0x8901, "TIOCSTI": 0x5412},
        **{"RLIMIT_CPU": 0, "RLIMIT_NOFILE": 7, "RLIMIT_AS": 9, "PARENT": os.getpid()},
        "OTHERS_CLOCK": (~os.getpid() << 3) | 2,
        "TEXT": ctypes.addressof(text),
        "ZERO": ctypes.addressof(zero),
        "ONE": ctypes.addressof(one),
        "PAGE": ctypes.addressof(ctypes.c_char.from_buffer(page)),
        **{"PATH": target, "PATH2": target + b"2", "ROOT": b"/", "XATTR": b"user.intruder"},
    }

    def syscall(number: int, arguments: list[int | str]) -> tuple[int, int]:
        known = words | {"SELF": os.getpid()}
        given = [known[each] if isinstance(each, str) else each for each in arguments]
        # The kernel counts on no argument that is not given.
        filled = [*given, *[0] * (6 - len(given))]
        ctypes.set_errno(0)
        result = libc.syscall(
            ctypes.c_long(number), *(each if isinstance(each, bytes) else ctypes.c_long(each) for each in filled)
        )
        return result, ctypes.get_errno()

    def old_call() -> int:
        return int(ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())

    def verify(folder: object, name: str, **options: Any) -> InspectionResult:
        if not name.startswith(NAME):
            return real(folder, name, **options)  # type: ignore[arg-type]
        scope: dict[str, Any] = {
            **{"syscall": syscall, "old_call": old_call, "folder": folder, "os": os, "sys": sys, "options": options},
            **{"libc": libc, "ctypes": ctypes, "words": words},
        }
        exec(name.removeprefix(NAME), scope)
        message = json.dumps(scope.get("answer"))
        return InspectionResult(outcome="Refused", refusal=Refusal(reason="Corrupt", message=message))

    module.verify = verify
