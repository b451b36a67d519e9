"""The process whose forks parse untrusted models: everything imported, no credentials, nothing else to lose.

It is started with an empty environment, before any credential reaches the process that starts it. Over the
inherited control socket it gets a connection per job. It forks; the child takes limits upon itself, reads the job
from the connection, asks over it for the bytes it wants to see, answers one line of JSON and exits; then the line
with its wait status follows from here. A connection that the other side closes kills its child. The end of the
control socket ends everything.

A child can open nothing once it is sealed: whatever is read late, such as modules, tables and lines of source, is read
here before the first fork.

An interpreter of its own rather than ``multiprocessing``: that would run the main module of the caller again in
each child.
"""

import gc
import io
import json
import os
import resource
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, NoReturn, cast

from google.protobuf.message import EncodeError

from onnx_operator.api.report import Capabilities
from onnx_operator.api.signatures import SignatureSettings
from onnx_operator.model.archive import ArchiveLimits
from onnx_operator.model.inspection import profiles, sandbox
from onnx_operator.model.inspection.epitaph import EXIT_CODE, Epitaph
from onnx_operator.model.inspection.profiles import PIPE
from onnx_operator.model.inspection.rehearsal import rehearse
from onnx_operator.model.inspection.trying import RuntimeTrial
from onnx_operator.model.signatures.signing import SignatureError, preload, verify_signature
from onnx_operator.model.verdict import verify

_HUNG_UP = select.POLLRDHUP | select.POLLHUP | select.POLLERR
_MAX_ERROR_LENGTH = 16 << 10
"""Characters."""
_MAX_TAKEN_BYTES = (1 << 30) + (256 << 20)
"""Of memory by a child: its limit of address space, which shared pages that were written to do not count in."""
_WATCH_MILLISECONDS = 50
_TRIALS: list[RuntimeTrial] = []
"""The one that is loaded once, for all children."""


@dataclass
class _Job:
    connection: socket.socket
    epitaph: Epitaph = field(default_factory=Epitaph)
    anonymous: int = 0
    """Bytes that the child shared with this process when it began."""
    most: int = 0
    """Bytes beyond them that it may take."""


def main() -> None:
    """Serve the control socket whose descriptor is the first argument.

    The second one is the folder of the file of zeros, empty where there is none; a third, "signatures", preloads these.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    sandbox.seal()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wakeup, poke = os.pipe()
    for end in (wakeup, poke):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(poke, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    if "signatures" in sys.argv[3:]:
        preload()
    _TRIALS.append(RuntimeTrial.prepare(sys.argv[2]))
    rehearse(_TRIALS[0])
    # What is imported by now is shared by all children: keep the collector from touching, and so copying, it.
    gc.freeze()
    _serve(control, wakeup)


def _serve(control: socket.socket, wakeup: int) -> None:
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wakeup, select.POLLIN)
    jobs: dict[int, _Job] = {}
    while True:
        for descriptor, _ in poll.poll(_WATCH_MILLISECONDS if jobs else None):
            if descriptor == wakeup:
                os.read(wakeup, 4096)
                _reap(jobs, poll)
            elif descriptor == control.fileno():
                _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
                if len(descriptors) != 1:
                    for pid in jobs:
                        os.kill(pid, signal.SIGKILL)
                    return
                job = _Job(socket.socket(fileno=descriptors[0]))
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    _child(job, [control, *(other.connection for other in jobs.values())])
                job.epitaph.keep()
                job.anonymous, job.most = sandbox.anonymous_bytes(os.getpid()), _MAX_TAKEN_BYTES
                jobs[pid] = job
                poll.register(job.connection, _HUNG_UP)
            else:
                for pid, job in jobs.items():
                    if job.connection.fileno() == descriptor:
                        poll.unregister(job.connection)
                        os.kill(pid, signal.SIGKILL)
        for pid, job in jobs.items():
            # Address space that maps files is no limit to what else a child does with it.
            if sandbox.anonymous_bytes(pid) > job.anonymous + job.most:
                os.kill(pid, signal.SIGKILL)


def _reap(jobs: dict[int, _Job], poll: select.poll) -> None:
    while jobs:
        pid, status, used = os.wait4(-1, os.WNOHANG)
        if pid == 0:
            return
        job = jobs.pop(pid)
        with suppress(KeyError):
            poll.unregister(job.connection)
        end: dict[str, Any] = {"status": status, "taken": max(0, (used.ru_maxrss << 10) - job.anonymous)}
        if abs(os.waitstatus_to_exitcode(status)) == EXIT_CODE:
            end["forbidden"] = job.epitaph.read()
        job.epitaph.close()
        with job.connection, suppress(OSError):
            job.connection.send(json.dumps(end).encode() + b"\n", socket.MSG_DONTWAIT)


def _child(job: _Job, others: Sequence[socket.socket]) -> NoReturn:
    code = 1
    try:
        pipe = _only_pipe(job.connection, others)
        try:
            answer = _answer(pipe, job.epitaph)
        except (MemoryError, EncodeError):
            # Also where there was not even enough to tell of another error; protobuf tells the lack of room so.
            answer = b'{"memory": true}'
        pipe.write(answer)
        pipe.write(b"\n")
        pipe.flush()
        code = 0
    finally:
        os._exit(code)


def _only_pipe(connection: socket.socket, others: Sequence[socket.socket]) -> BinaryIO:
    """Close whatever else was inherited, and read and write without the calls that only sockets have."""
    for other in others:
        # An object that went away later would close a descriptor that is none of its own.
        other.detach()
    os.dup2(connection.detach(), PIPE)
    for each in list(Path("/proc/self/fd").iterdir()):
        if (number := int(each.name)) > PIPE:
            with suppress(OSError):
                os.close(number)
    reader, writer = io.FileIO(PIPE, "r", closefd=False), io.FileIO(PIPE, "w", closefd=False)
    return cast("BinaryIO", io.BufferedRWPair(reader, writer))


def _answer(pipe: BinaryIO, epitaph: Epitaph) -> bytes:
    try:
        return _work(pipe, epitaph).encode()
    except (MemoryError, EncodeError):
        raise
    except Exception:
        return json.dumps({"error": traceback.format_exc()[-_MAX_ERROR_LENGTH:]}).encode()


def _work(pipe: BinaryIO, epitaph: Epitaph) -> str:
    job = json.loads(pipe.readline())
    if "signature" in job:
        # Nothing where it was done before the fork.
        preload()
    sys.meta_path.insert(0, _NothingLate())
    trial = _TRIALS[0]
    asks = "judge" in job and trial.runtime is not None
    sandbox.enter(
        cpu_seconds=job["cpuSeconds"],
        memory_bytes=job["memoryBytes"],
        parsers=job["parsers"],
        epitaph=epitaph,
        profile=profiles.judging if asks else profiles.parsing,
        readable=trial.zeros if asks else None,
        mapped_bytes=trial.mapped_bytes if asks else 0,
    )
    return _verify_signature(job, pipe) if "signature" in job else _verify_model(job, pipe)


class _NothingLate:
    """Tells the module that the rehearsal missed, which is more than the system call would that opens its file."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> None:
        raise RuntimeError(f"the module {name} would be imported in a child that can open no file: rehearse it")


def _verify_model(job: dict[str, Any], pipe: BinaryIO) -> str:
    folder = _RemoteFolder(pipe)
    capabilities = Capabilities.model_validate(job["capabilities"])
    result = verify(
        folder,
        job["judge"],
        capabilities=capabilities,
        archives=ArchiveLimits(**job["archives"]),
        max_nodes=job["maxNodes"],
        before_checks=folder.wait_for_turn,
        trial=_TRIALS[0].bound_to(folder.trying, capabilities),
    )
    return result.model_dump_json(by_alias=True)


def _verify_signature(job: dict[str, Any], pipe: BinaryIO) -> str:
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

    def trying(self, begins: bool) -> None:
        """Tell that the runtime begins, or ends, to load the model: how this process ends then is its doing."""
        self._pipe.write(json.dumps({"trying": begins}).encode() + b"\n")
        self._pipe.flush()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self._pipe.write(json.dumps(question).encode() + b"\n")
        self._pipe.flush()
        line = self._pipe.readline()
        if not line:
            os._exit(1)
        return cast("dict[str, Any]", json.loads(line))


if __name__ == "__main__":
    main()
