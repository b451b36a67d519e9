"""The process whose forks parse untrusted models: everything imported, no credentials, nothing else to lose.

It is started with an empty environment, before any credential reaches the process that starts it. Over the
inherited control socket it gets, per job, a connection and an open model file. It forks; the child takes limits
upon itself, reads the job from the connection, answers one line of JSON and exits; then the line with its wait
status follows from here. A connection that the other side closes kills its child. The end of the control socket
ends everything.

An interpreter of its own rather than ``multiprocessing``: that would run the main module of the caller again in
each child.
"""

import gc
import json
import mmap
import os
import resource
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from onnx_operator.api.report import Capabilities
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.judge import judge

_OTHERS_BYTES = 512 << 20
"""Memory that is left for the processes that parse nothing: a child over the container's limit would end them too."""
_HUNG_UP = select.POLLRDHUP | select.POLLHUP | select.POLLERR


def main() -> None:
    """Serve the control socket whose descriptor is the first argument."""
    control = socket.socket(fileno=int(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wakeup, poke = os.pipe()
    for end in (wakeup, poke):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(poke, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # What is imported by now is shared by all children: keep the collector from touching, and so copying, it.
    gc.freeze()
    _serve(control, wakeup)


def _serve(control: socket.socket, wakeup: int) -> None:
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wakeup, select.POLLIN)
    jobs: dict[int, socket.socket] = {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == wakeup:
                os.read(wakeup, 4096)
                _reap(jobs, poll)
            elif descriptor == control.fileno():
                _, descriptors, _, _ = socket.recv_fds(control, 1, 2)
                if len(descriptors) != 2:
                    for pid in jobs:
                        os.kill(pid, signal.SIGKILL)
                    return
                connection = socket.socket(fileno=descriptors[0])
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    control.close()
                    for other in jobs.values():
                        other.close()
                    _child(connection, descriptors[1])
                os.close(descriptors[1])
                jobs[pid] = connection
                poll.register(connection, _HUNG_UP)
            else:
                for pid, connection in jobs.items():
                    if connection.fileno() == descriptor:
                        poll.unregister(connection)
                        os.kill(pid, signal.SIGKILL)


def _reap(jobs: dict[int, socket.socket], poll: select.poll) -> None:
    while jobs:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        connection = jobs.pop(pid)
        with suppress(KeyError):
            poll.unregister(connection)
        with connection, suppress(OSError):
            connection.send(json.dumps({"status": status}).encode() + b"\n", socket.MSG_DONTWAIT)


def _child(connection: socket.socket, file: int) -> None:
    code = 1
    try:
        with connection.makefile("rwb") as stream:
            try:
                job = json.loads(stream.readline())
                size = os.fstat(file).st_size
                _limit(job, size)
                answer = _run(job, file, size)
            except MemoryError:
                answer = '{"memory": true}'
            except Exception:
                answer = json.dumps({"error": traceback.format_exc()})
            stream.write(answer.encode() + b"\n")
        code = 0
    finally:
        os._exit(code)


def _limit(job: dict[str, int], size: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    # The file itself is mapped, not held: its pages can be dropped and are no danger to the container's limit.
    share = max(0, (_container_limit() - _OTHERS_BYTES) // job["parsers"])
    space = pages * resource.getpagesize() + size + min(job["memoryBytes"] + 3 * size, share)
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    # Between the two the child dies of SIGXCPU, which tells why.
    resource.setrlimit(resource.RLIMIT_CPU, (job["cpuSeconds"], job["cpuSeconds"] + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(job["wallSeconds"])


def _container_limit() -> int:
    """Memory limit of this container in bytes, by cgroup v2 or v1; very large where there is none."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            return int(Path(path).read_text())
    return sys.maxsize


def _run(job: dict[str, str], file: int, size: int) -> str:
    data = memoryview(mmap.mmap(file, size, prot=mmap.PROT_READ)) if size else memoryview(b"")
    result = judge(
        data,
        source=SourcePin.model_validate_json(job["source"]),
        sha256=job["sha256"],
        capabilities=Capabilities.model_validate_json(job["capabilities"]),
    )
    return result.model_dump_json(by_alias=True)


if __name__ == "__main__":
    main()
