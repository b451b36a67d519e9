"""Several processes behind one port.

A model that answers within a turn of the event loop is bounded by one interpreter, so a pod with several CPUs runs
more of them: the first process starts the others once it knows that the model is that fast and how much memory it
takes. All listen on the same port (SO_REUSEPORT), and the kernel deals connections out.
"""

import asyncio
import contextlib
import ctypes
import logging
import mmap
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from onnx_operator.common.cgroups import memory_limit
from onnx_operator.server.metrics import Metrics, memory_size

logger = logging.getLogger(__name__)

MAX_PROCESSES = 64
ENV_NUMBER = "ONNX_SERVER_PROCESS"
"""Number of a further process, 1 and up, how many there are with the first, the descriptor of the shared figures, the
ports, and the first process."""
_PR_SET_PDEATHSIG = 1
_RESTART_SECONDS = 5.0


class Shared:
    """The figures that the processes of one server share, and which of them this one is."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        if ENV_NUMBER in environment:
            numbers = map(int, environment[ENV_NUMBER].split(":"))
            self.number, self.count, self.descriptor, self.port, self.grpc_port, self.parent = numbers
        else:
            self.number, self.count, self.port, self.grpc_port, self.parent = 0, 1, 0, 0, 0
            self.descriptor = os.memfd_create("figures", 0)
            os.ftruncate(self.descriptor, memory_size(MAX_PROCESSES))
        self.metrics = Metrics(mmap.mmap(self.descriptor, memory_size(MAX_PROCESSES)), self.number)

    @property
    def first(self) -> bool:
        """Whether this process was started by nobody of ours."""
        return self.number == 0


class Siblings:
    """The further processes, as the first one starts, restarts and ends them."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._tasks: list[asyncio.Task[None]] = []
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    def start(self, count: int) -> None:
        """Start ``count`` of them; each is started anew when it ends by itself."""
        for number in range(1, count + 1):
            self._tasks.append(asyncio.create_task(self._keep(number)))

    async def stop(self, grace: float) -> None:
        """Ask all to end, and end those that have not after ``grace`` seconds."""
        for task in self._tasks:
            task.cancel()
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        try:
            async with asyncio.timeout(grace):
                for process in list(self._processes.values()):
                    await process.wait()
        except TimeoutError:
            for process in self._processes.values():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

    async def _keep(self, number: int) -> None:
        descriptor = self._shared.descriptor
        ports = f"{self._shared.port}:{self._shared.grpc_port}"
        environment = {**os.environ, ENV_NUMBER: f"{number}:{self._shared.count}:{descriptor}:{ports}:{os.getpid()}"}
        while True:
            # Not the termination log, nor standard output: causes and facts are told once.
            process = await asyncio.create_subprocess_exec(
                *command_line(sys.orig_argv),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(descriptor,),
            )
            self._processes[number] = process
            code = await process.wait()
            self._shared.metrics.forget(number)
            logger.warning("a further process ended; another takes its place", extra={"fields": {"code": code}})
            await asyncio.sleep(_RESTART_SECONDS)


def command_line(arguments: Sequence[str]) -> list[str]:
    """How this process was started, with the interpreter's whole path."""
    return [sys.executable, *arguments[1:]]


def end_with_parent(parent: int) -> None:
    """Ask the kernel to end this process when the one that started it has ended. Ends at once if that is so already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(0)


def further_processes(cpus: int, resident_bytes: int, root: Path = Path("/")) -> int:
    """How many processes fit beside this one: one for each other CPU, as far as the container's memory goes."""
    wanted = min(cpus, MAX_PROCESSES) - 1
    limit = memory_limit(root)
    if limit is None:
        return wanted
    # Half of what is free stays so, for the requests.
    return max(0, min(wanted, (limit - resident_bytes) // 2 // max(1, resident_bytes)))
