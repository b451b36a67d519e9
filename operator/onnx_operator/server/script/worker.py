"""One process that holds the script: started, asked, watched, killed."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import DEVNULL, PIPE, Process
from typing import Any

from onnx_operator.server.script import frames
from onnx_operator.server.script.settings import (
    EntryScript,
    ScriptError,
    ScriptSettings,
    child_environment,
    packages_folder,
)

logger = logging.getLogger(__name__)
output = logging.getLogger("score")

_MAX_LINE_LENGTH = 16384
_LAST_WORDS_SECONDS = 1.0
_FAREWELL_SECONDS = 3.0


class WorkerGoneError(Exception):
    """The process ended, or had to be ended; the message says how."""


class WorkerTimeoutError(Exception):
    """The process did not answer in time."""


class Worker:
    """A running process. ``facts`` is what it told when it was ready."""

    def __init__(self, process: Process, reader: StreamReader, writer: StreamWriter, longest: int) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._longest = longest
        self._output = [
            asyncio.create_task(_log_lines(stream, name))
            for stream, name in ((process.stdout, "stdout"), (process.stderr, "stderr"))
            if stream is not None
        ]
        self.facts: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @classmethod
    async def start(cls, settings: ScriptSettings, script: EntryScript) -> "Worker":
        """Start a process and wait until ``init()`` has returned. Raises :class:`ScriptError`."""
        ours, theirs = socket.socketpair()
        told = {
            "channel": theirs.fileno(),
            "parent": os.getpid(),
            "script": str(script.path),
            "root": str(script.root),
            "imports": [str(folder) for folder in script.import_folders],
            "requirements": str(packages_folder(settings.requirements.absolute())) if settings.requirements else None,
            "name": settings.name,
            "version": settings.version,
            "maxOutputBytes": settings.max_output_bytes,
            "memoryBytes": settings.memory_bytes,
        }
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    # Without the working folder on the path: a json.py beside the script is the script's alone.
                    "-P",
                    "-m",
                    "onnx_operator.server.script.child",
                    json.dumps(told),
                    stdin=DEVNULL,
                    stdout=PIPE,
                    stderr=PIPE,
                    pass_fds=(theirs.fileno(),),
                    # A group of its own: what the script starts ends with it.
                    start_new_session=True,
                    cwd="/",
                    env=child_environment(settings, script, os.environ),
                )
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours)
        worker = cls(process, reader, writer, settings.max_output_bytes)
        try:
            await worker._initialise(settings, script)
        except BaseException:
            await worker.kill()
            raise
        return worker

    async def _initialise(self, settings: ScriptSettings, script: EntryScript) -> None:
        try:
            async with asyncio.timeout(settings.init_timeout):
                header, _ = await self._receive()
        except TimeoutError:
            raise ScriptError(f"{script.name}: init() did not return in {settings.init_timeout:g} s") from None
        except WorkerGoneError as gone:
            raise ScriptError(f"{script.name}: {gone} while it was loaded or init() ran") from None
        if header.get("kind") != "ready":
            place = f" ({header['line']})" if header.get("line") else ""
            raise ScriptError(f"{script.name}: {header.get('message')}{place}", str(header.get("traceback", "")))
        self.facts = header

    async def ask(self, header: dict[str, Any], body: bytes, seconds: float) -> tuple[dict[str, Any], bytes]:
        """Send a request and wait for its answer.

        Raises :class:`WorkerGoneError` and :class:`WorkerTimeoutError`; the process is of no more use then.
        """
        try:
            async with asyncio.timeout(seconds):
                try:
                    self._writer.writelines(frames.encode(header, body))
                    await self._writer.drain()
                except OSError:
                    # It may have ended, or closed the channel: reading tells which.
                    pass
                return await self._receive()
        except TimeoutError:
            raise WorkerTimeoutError from None

    async def _receive(self) -> tuple[dict[str, Any], bytes]:
        try:
            lengths = await self._reader.readexactly(frames.LENGTHS.size)
            header_length, body_length = frames.check(lengths, self._longest)
            header = frames.parse(await self._reader.readexactly(header_length))
            return header, await self._reader.readexactly(body_length)
        except frames.FrameError as error:
            raise WorkerGoneError(f"the script wrote into the server's channel: {error}") from None
        except (asyncio.IncompleteReadError, OSError):
            raise WorkerGoneError(await self._how_it_ended()) from None

    async def _how_it_ended(self) -> str:
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            return "the script closed the server's channel"
        if code < 0:
            return f"the script's process was ended by {_signal_name(-code)}"
        return f"the script ended its process with exit code {code}"

    async def ended(self) -> str:
        """Wait until the process ends, and say how."""
        await self._process.wait()
        return await self._how_it_ended()

    async def stop(self) -> None:
        """Let the process end by itself, for a moment; then kill it."""
        self._writer.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End the process and all that it started, and take what it printed to the log."""
        # Also when the process itself has ended: what it started may still run.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        self._writer.close()
        # Whoever left the group may hold the pipes open for ever.
        _, unfinished = await asyncio.wait(self._output, timeout=_LAST_WORDS_SECONDS)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*self._output, return_exceptions=True)


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name} (killed, as happens when memory is short)" if number == signal.SIGKILL else name


async def _log_lines(stream: StreamReader, name: str) -> None:
    """Each line that the script prints becomes a line of the log, cut where it is very long."""
    held = b""
    while piece := await stream.read(1 << 16):
        *lines, held = (held + piece).split(b"\n")
        if len(held) > _MAX_LINE_LENGTH:
            lines.append(held)
            held = b""
        for line in lines:
            _log(line, name)
    if held:
        _log(held, name)


def _log(line: bytes, name: str) -> None:
    text = line[:_MAX_LINE_LENGTH].decode("utf-8", "replace").rstrip()
    if text:
        output.info("%s", text, extra={"fields": {"stream": name}})
