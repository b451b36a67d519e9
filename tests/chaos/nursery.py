"""The processes of operators, as the harness holds them: started, signalled, and told of when they end."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Self

from tests.chaos.operators import CLOCKS
from tests.cluster.layout import ROOT


class Life:
    """One process of an operator's."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.killed = False
        """Whether it was us who ended it."""
        self.asked = False
        """Whether it was asked to end."""
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def signal(self, number: int) -> None:
        if self.ended.done():
            return
        self.killed = self.killed or number == signal.SIGKILL
        self.asked = self.asked or number == signal.SIGTERM
        # It may have ended, which is told in a moment.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)


class Nursery:
    """Starts lives, by the process that forks them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Life]] = {}
        self._lives: dict[int, Life] = {}
        self._reader = asyncio.create_task(self._read(), name="nursery")
        self._reader.add_done_callback(_aloud)

    @classmethod
    async def start(cls) -> Self:
        pipe = asyncio.subprocess.PIPE
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"}
        command = (sys.executable, "-m", "tests.chaos.operators")
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment, cwd=ROOT))

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            told = json.loads(line)
            if "started" in told:
                life = self._lives[told["pid"]] = Life(told["pid"])
                waiting = self._waiting.pop(told["started"])
                if waiting.cancelled():
                    # Nobody wants it any more.
                    life.kill()
                else:
                    waiting.set_result(life)
            else:
                self._lives.pop(told["ended"]).ended.set_result(told["code"])
        for future in self._waiting.values():
            future.set_exception(RuntimeError("the process that forks operators has ended"))

    async def fork(self, **command: Any) -> Life:
        """A new life; see :func:`tests.chaos.operators._live` for what it is told."""
        number = next(self._numbers)
        self._waiting[number] = future = asyncio.get_running_loop().create_future()
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"id": number, **command}).encode() + b"\n")
        await self._process.stdin.drain()
        return await future

    async def stop(self) -> None:
        """End all of them."""
        for life in list(self._lives.values()):
            life.kill()
        assert self._process.stdin
        self._process.stdin.close()
        await self._process.wait()
        await asyncio.gather(self._reader, return_exceptions=True)


def _aloud(task: asyncio.Task[None]) -> None:
    """A harness that is told of no end would wait for ever."""
    if not task.cancelled() and (error := task.exception()):
        traceback.print_exception(error)
        os._exit(70)


class Clocks:
    """How far the clocks of a life are ahead."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.wall = self.boot = 0.0
        self._write()

    def _write(self) -> None:
        if not self.file.exists():
            self.file.write_bytes(bytes(CLOCKS.size))
        with self.file.open("r+b") as opened:
            opened.write(CLOCKS.pack(self.wall, self.boot))

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock."""
        self.wall += seconds
        self._write()

    def sleep(self, seconds: float) -> None:
        """The machine slept for so long, and nothing ran."""
        self.wall += seconds
        self.boot += seconds
        self._write()
