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
        "os.open('/tmp/sandbox-file', os.O_CREAT | os.O_WRONLY)",
        "os.open('/dev/null', os.O_RDWR)",
        "os.pidfd_open(os.getppid())",
        "__import__('signal').pthread_kill(__import__('threading').get_ident(), 0)",
        "__import__('resource').prlimit(os.getppid(), __import__('resource').RLIMIT_CPU)",
    ],
)
def test_the_kernel_refuses(code: str) -> None:
    assert attempt(code) == "PermissionError 1"


def test_memory_has_an_end() -> None:
    assert attempt("bytearray(200 << 20)").startswith("MemoryError")
    assert attempt("sandbox.expand(); bytearray(200 << 20)").startswith("MemoryError")
    assert attempt("bytearray(1 << 20)") == "done"


def test_files_can_be_read_alone() -> None:
    assert attempt("os.open('/dev/null', os.O_RDONLY)") == "done"


SEALED = """
import os, sys
from onnx_operator.model.inspection import sandbox
if os.geteuid() == 0:
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
if sys.argv[1] == "sealed":
    sandbox.seal()
else:
    import ctypes
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
if os.fork():
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
try:
    open(f"/proc/{os.getppid()}/environ", "rb").read()
    open(f"/proc/{os.getppid()}/mem", "rb")
except PermissionError:
    os._exit(3)
os._exit(0)
"""


@pytest.mark.parametrize(("how", "code"), [("sealed", 3), ("open", 0)])
def test_a_child_cannot_look_into_the_process_that_holds_credentials(how: str, code: int) -> None:
    assert subprocess.run([sys.executable, "-c", SEALED, how], check=False).returncode == code


def test_a_loop_has_an_end() -> None:
    assert attempt("exec('while True: pass')").startswith("ended -24")
