"""The child that parses untrusted bytes calculates within its limits, and ends at whatever else it tries.

Every call is tried in ``tests/security/test_parsing_child.py``, against the process as it runs.
"""

import subprocess
import sys

import pytest

CHILD = """
import os, sys
from onnx_operator.model.inspection import sandbox
sandbox.enter(cpu_seconds=5, memory_bytes=64 << 20, parsers=1)
said = "done"
try:
    {attempt}
except (OSError, MemoryError) as error:
    said = type(error).__name__
os.write(1, said.encode())
os._exit(0)
"""


def attempt(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(attempt=code)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or f"ended {done.returncode} {done.stderr[-300:]}"


@pytest.mark.parametrize(
    "code",
    [
        "__import__('_socket').socket()",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getpid(), 0)",
        "os.mkdir('/tmp/sandbox-was-here')",
        "os.open('/dev/null', os.O_RDONLY)",
        "os.stat('/')",
        "os.listdir('/proc/self/fd')",
        "os.write(0, b'x')",
        "os.dup(1)",
        "os.close(0)",
    ],
)
def test_the_kernel_ends_it(code: str) -> None:
    assert attempt(code).startswith("ended -31 ")


def test_memory_has_an_end() -> None:
    assert attempt("bytearray(200 << 20)") == "MemoryError"
    assert attempt("sandbox.expand(); bytearray(200 << 20)") == "MemoryError"
    assert attempt("bytearray(1 << 20)") == "done"


@pytest.mark.parametrize("limit", ["AS", "CPU"])
def test_a_lower_limit_that_was_inherited_stays(limit: str) -> None:
    """As under ``ulimit -v``: nobody may raise a hard limit, and there is no need to."""
    below = {"AS": "1 << 30", "CPU": "3"}[limit]
    inherit = f"import resource; resource.setrlimit(resource.RLIMIT_{limit}, ({below}, {below}))"
    child = CHILD.replace("sandbox.enter(", f"{inherit}\nsandbox.enter(").replace("64 << 20", "4 << 30")
    code = "sandbox.expand(); said = str(resource.getrlimit(resource.RLIMIT_AS)[1] >> 30)"
    done = subprocess.run(
        [sys.executable, "-c", child.format(attempt=code)], capture_output=True, text=True, check=False
    )
    assert done.stdout == {"AS": "1", "CPU": "4"}[limit], done.stderr


def test_small_pieces_of_memory_have_an_end() -> None:
    """Where the heap ends, the C library looks for another place, which takes calls of its own."""
    assert attempt("[bytes(1000) for _ in range(1 << 20)]") == "MemoryError"
    assert attempt("sandbox.expand(); [bytes(1000) for _ in range(1 << 20)]") == "MemoryError"


def test_what_calculating_takes_is_there() -> None:
    for code in (
        "os.urandom(16)",
        "__import__('time').time(), __import__('time').process_time()",
        "__import__('_thread').allocate_lock().acquire(timeout=0)",
        "[[n] for n in range(100_000)], __import__('gc').collect()",
        "(lambda big: (big.extend(bytes(9 << 20)), big.extend(bytes(9 << 20))))(bytearray())",
        "os.write(2, b'x')",
    ):
        assert attempt(code) == "done", code


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


def test_what_is_gone_through_before_the_first_fork_has_no_fault() -> None:
    # Where it has one, inspections only say that the parsing process ended: here its traceback is shown.
    rehearsed = (
        "from onnx_operator.model.inspection.rehearsal import rehearse\n"
        "from onnx_operator.model.inspection.trying import RuntimeTrial\n"
        "rehearse(RuntimeTrial.prepare(''))"
    )
    done = subprocess.run([sys.executable, "-c", rehearsed], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_loop_has_an_end() -> None:
    assert attempt("exec('while True: pass')").startswith("ended -24")
