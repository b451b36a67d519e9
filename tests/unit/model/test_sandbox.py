"""The child that parses untrusted bytes can neither reach the network nor start, change or kill anything."""

import subprocess
import sys

import pytest

CHILD = """
import os, socket, sys
from onnx_operator.model.inspection import sandbox
sandbox.enter(cpu_seconds=5, memory_bytes=64 << 20, parsers=1)
try:
    {attempt}
except (OSError, MemoryError) as error:
    print(type(error).__name__, getattr(error, "errno", ""))
else:
    print("done")
"""


def attempt(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(attempt=code)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or f"ended {done.returncode} {done.stderr[-300:]}"


@pytest.mark.parametrize(
    "code",
    [
        "socket.socket()",
        "socket.socket(socket.AF_UNIX)",
        "socket.socketpair()",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.kill(os.getppid(), 0)",
        "os.unlink('/tmp/nothing')",
        "os.mkdir('/tmp/sandbox-was-here')",
    ],
)
def test_the_kernel_refuses(code: str) -> None:
    assert attempt(code) == "PermissionError 1"


def test_memory_has_an_end() -> None:
    assert attempt("bytearray(200 << 20)").startswith("MemoryError")
    assert attempt("bytearray(1 << 20)") == "done"


def test_nothing_can_be_written() -> None:
    assert attempt("os.write(os.open('/tmp/sandbox-file', os.O_CREAT | os.O_WRONLY), b'x')") != "done"


def test_a_loop_has_an_end() -> None:
    assert attempt("exec('while True: pass')").startswith("ended -24")
