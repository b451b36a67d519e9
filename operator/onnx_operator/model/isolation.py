"""Judging untrusted files in children that can crash, hang or swell without harm."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import Capabilities, InspectionResult, Refusal
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.limits import InspectionLimits

_GRACE_SECONDS = 10.0
"""A child that ignores its alarm gets this much longer."""
_LINE_LIMIT = 16 << 20


class ParserError(Exception):
    """The parsing process has a fault of its own: nothing is known about the model."""


class Parser:
    """Judges files, each in a child of a process that was started for this. Use it as ``async with``."""

    def __init__(self, limits: InspectionLimits) -> None:
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.parsers)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def start(self) -> None:
        """Start the process ahead of the first file; it imports what it needs for about a second."""
        if self._process is not None and self._process.poll() is None:
            return
        self._close_control()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - a fixed command of our own
                [sys.executable, "-m", "onnx_operator.model.zygote", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={
                    "PATH": "/usr/bin:/bin",
                    "LANG": "C.UTF-8",
                    "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._control = ours

    async def aclose(self) -> None:
        """End the process and all its children."""
        self._close_control()
        process, self._process = self._process, None
        if process is not None:
            try:
                await asyncio.to_thread(process.wait, 5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    async def judge(
        self, path: Path, *, source: SourcePin, sha256: str, capabilities: Capabilities
    ) -> InspectionResult:
        """Judge a file. A cancelled call kills its child.

        Raises :class:`ParserError` for a fault of ours, OSError when the file cannot be opened.
        """
        job = {
            "source": source.model_dump_json(),
            "sha256": sha256,
            "capabilities": capabilities.model_dump_json(),
            "cpuSeconds": self._limits.cpu_seconds,
            "wallSeconds": self._limits.wall_seconds,
            "memoryBytes": self._limits.memory_bytes,
            "parsers": self._limits.parsers,
        }
        async with self._slots:
            answer = await self._exchange(path, json.dumps(job).encode() + b"\n")
        return self._interpret(answer, source)

    async def _exchange(self, path: Path, job: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(sock=self._submit(path), limit=_LINE_LIMIT)
        try:
            writer.write(job)
            async with asyncio.timeout(self._limits.wall_seconds + _GRACE_SECONDS):
                return await reader.read()
        except TimeoutError:
            return b'{"status": %d}\n' % signal.SIGALRM
        except ConnectionError:
            return b""
        finally:
            writer.close()

    def _submit(self, path: Path) -> socket.socket:
        ours, theirs = socket.socketpair()
        with path.open("rb") as file, theirs:
            for last in (False, True):
                self.start()
                assert self._control is not None
                try:
                    socket.send_fds(self._control, [b"j"], [theirs.fileno(), file.fileno()])
                    break
                except OSError:
                    if last:
                        ours.close()
                        raise ParserError("the parsing process does not take jobs") from None
                    assert self._process is not None
                    self._process.kill()
                    self._process.wait()
        ours.setblocking(False)
        return ours

    def _interpret(self, answer: bytes, source: SourcePin) -> InspectionResult:
        lines = [json.loads(line) for line in answer.splitlines() if line.endswith(b"}")]
        status = next((line["status"] for line in lines if "status" in line), None)
        first = lines[0] if lines else {}
        if "outcome" in first:
            return InspectionResult.model_validate(first)
        if "error" in first:
            raise ParserError(first["error"])
        if status is None:
            raise ParserError("the parsing process ended in the middle of a job")
        if "memory" in first:
            return _refused(
                source,
                Reason.TOO_LARGE,
                f"Reading the model's structure takes more than {self._limits.memory_bytes >> 20} MiB of memory.",
            )
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if number in (signal.SIGALRM, signal.SIGXCPU):
            return _refused(
                source,
                Reason.TOO_LARGE,
                f"Reading the model's structure takes more than {self._limits.cpu_seconds} s of processor time or"
                f" {self._limits.wall_seconds} s in all.",
            )
        if number == signal.SIGKILL:
            return _refused(
                source,
                Reason.TOO_LARGE,
                "Reading the model's structure takes more memory than the inspector has.",
            )
        name = signal.Signals(number).name if number else f"status {status}"
        return _refused(
            source, Reason.CORRUPT, f"The parser crashed on the file ({name}). Upload it again, or export it anew."
        )

    def _close_control(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None


def _refused(source: SourcePin, reason: Reason, message: str) -> InspectionResult:
    return InspectionResult(outcome="Refused", source=source, refusal=Refusal(reason=reason, message=message))
