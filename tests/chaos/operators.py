"""Starts operators by forking one that has imported everything: a life costs milliseconds instead of seconds.

What runs in a child is the operator's own command line. Only what a test cannot have otherwise is put in its way: the
clocks are those of the process plus what a file says (nobody may set the machine's), and where the plan is in a hurry
the lease is shorter. Commands come as lines of JSON on standard input, ends of children are told on standard output.
"""

import contextlib
import ctypes
import gc
import json
import mmap
import os
import random
import selectors
import signal
import socket
import struct
import sys
import time
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

CLOCKS = struct.Struct("dd")
"""Seconds by which the wall clock, and the clock that goes on while a machine sleeps, are ahead."""
HURRIED = {"DURATION_SECONDS": 6, "RENEW_DEADLINE_SECONDS": 4.0, "PERIOD_SECONDS": 0.8}
"""In the place of 15, 10 and 2."""
_PR_SET_PDEATHSIG = 1


def _shift_clocks(file: Path) -> None:
    from onnx_operator.controller.cluster import times

    with file.open("rb") as opened:
        shared = mmap.mmap(opened.fileno(), CLOCKS.size, prot=mmap.PROT_READ)
    real_time, real_clock = time.time, time.clock_gettime

    def wall() -> float:
        return real_time() + CLOCKS.unpack_from(shared)[0]

    def clock(which: int) -> float:
        return real_clock(which) + (CLOCKS.unpack_from(shared)[1] if which == time.CLOCK_BOOTTIME else 0.0)

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(wall(), tz)

    time.time, time.clock_gettime = wall, clock
    times.datetime = Shifted  # type: ignore[misc]


def _hurry() -> None:
    from onnx_operator.controller.cluster import lease

    for name, value in HURRIED.items():
        assert hasattr(lease, name)
        setattr(lease, name, value)


def _live(command: dict[str, Any]) -> None:
    """Be an operator, until it ends."""
    from onnx_operator.controller.__main__ import main

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.update(command["environment"])
    random.seed(command["random"])
    _shift_clocks(Path(command["clocks"]))
    if command["hurried"]:
        _hurry()
    code = 70
    try:
        main(command["arguments"], standalone_mode=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        os.write(1, json.dumps({"ended": pid, "code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


def main() -> None:
    """Take commands until standard input ends."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    import onnx_operator.controller.__main__
    import onnx_operator.controller.app  # noqa: F401

    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"a process of {threads} threads cannot be forked safely"
    gc.freeze()
    here, there = socket.socketpair()
    for end in (here, there):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(here, selectors.EVENT_READ)
    rest = b""
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if here in ready:
            here.recv(4096)
            _reap()
        if 0 not in ready:
            continue
        data = os.read(0, 65536)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            command = json.loads(line)
            pid = os.fork()
            if pid == 0:
                _live(command)
            os.write(1, json.dumps({"started": command["id"], "pid": pid}).encode() + b"\n")


if __name__ == "__main__":
    main()
