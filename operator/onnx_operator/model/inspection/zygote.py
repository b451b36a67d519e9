"""The process whose forks parse untrusted models: everything imported, no credentials, nothing else to lose.

It is started with an empty environment, before any credential reaches the process that starts it. Over the
inherited control socket it gets a connection per job. It forks; the child takes limits upon itself, reads the job
from the connection, asks over it for the bytes it wants to see, answers one line of JSON and exits; then the line
with its wait status follows from here. A connection that the other side closes kills its child. The end of the
control socket ends everything.

An interpreter of its own rather than ``multiprocessing``: that would run the main module of the caller again in
each child.
"""

import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from typing import Any, BinaryIO, cast

from onnx_operator.api.report import Capabilities
from onnx_operator.api.signatures import SignatureSettings
from onnx_operator.model.archive import ArchiveLimits
from onnx_operator.model.inspection import sandbox
from onnx_operator.model.judge import judge
from onnx_operator.model.signatures.signing import SignatureError, preload, verify_signature

_HUNG_UP = select.POLLRDHUP | select.POLLHUP | select.POLLERR


def main() -> None:
    """Serve the control socket whose descriptor is the first argument; a second one, "signatures", preloads these."""
    control = socket.socket(fileno=int(sys.argv[1]))
    sandbox.seal()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wakeup, poke = os.pipe()
    for end in (wakeup, poke):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(poke, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    if "signatures" in sys.argv[2:]:
        preload()
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
                _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
                if len(descriptors) != 1:
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
                    _child(connection)
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


def _child(connection: socket.socket) -> None:
    code = 1
    try:
        with connection.makefile("rwb") as stream:
            pipe = cast("BinaryIO", stream)
            try:
                job = json.loads(pipe.readline())
                sandbox.enter(cpu_seconds=job["cpuSeconds"], memory_bytes=job["memoryBytes"], parsers=job["parsers"])
                answer = _verify(job, pipe) if "signature" in job else _judge(job, pipe)
            except MemoryError:
                answer = '{"memory": true}'
            except Exception:
                answer = json.dumps({"error": traceback.format_exc()})
            pipe.write(answer.encode() + b"\n")
        code = 0
    finally:
        os._exit(code)


def _judge(job: dict[str, Any], pipe: BinaryIO) -> str:
    folder = _RemoteFolder(pipe)
    result = judge(
        folder,
        job["judge"],
        capabilities=Capabilities.model_validate(job["capabilities"]),
        archives=ArchiveLimits(**job["archives"]),
        before_checks=folder.wait_for_turn,
    )
    return result.model_dump_json(by_alias=True)


def _verify(job: dict[str, Any], pipe: BinaryIO) -> str:
    signature = pipe.read(job["signature"])
    sandbox.expand()
    try:
        manifest = verify_signature(signature, SignatureSettings.model_validate(job["settings"]))
    except SignatureError as error:
        return json.dumps({"invalid": str(error)})
    return json.dumps({"manifest": manifest.model_dump(mode="json", by_alias=True)})


class _RemoteFolder:
    """Files whose bytes the other end of the pipe gives. A closed pipe ends this process."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._has_turn = False

    def size(self, name: str) -> int | None:
        answer = self._ask({"size": name})
        return cast("int | None", answer["size"])

    def read_at(self, name: str, begin: int, end: int) -> bytes:
        if begin >= end:
            return b""
        length = self._ask({"read": [name, begin, end]})["bytes"]
        data = self._pipe.read(length)
        if len(data) != end - begin:
            # Only a process that is being given up sends less.
            os._exit(1)
        return data

    def expect(self, name: str, begin: int, end: int) -> None:
        """Nothing is answered: the bytes come when they are asked for."""
        self._pipe.write(json.dumps({"expect": [name, begin, end]}).encode() + b"\n")

    def wait_for_turn(self) -> None:
        """Only so many children may use the memory that checks take at the same time."""
        if not self._has_turn:
            self._ask({"turn": True})
            self._has_turn = True
            sandbox.expand()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self._pipe.write(json.dumps(question).encode() + b"\n")
        self._pipe.flush()
        line = self._pipe.readline()
        if not line:
            os._exit(1)
        return cast("dict[str, Any]", json.loads(line))


if __name__ == "__main__":
    main()
