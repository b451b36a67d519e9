"""Judging untrusted models in children that can crash, hang or swell without harm."""

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from pydantic import ValidationError

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import Capabilities, InspectionResult, Refusal
from onnx_operator.api.signatures import SignatureSettings, SignedManifest
from onnx_operator.model.inspection import landlock, sandbox, zeros
from onnx_operator.model.inspection.conversation import Conversation, ConversationError, End, Question, read_message
from onnx_operator.model.inspection.fair import FairPlaces
from onnx_operator.model.inspection.stopwatch import Stopwatch
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.sources.base import SourceError

_LOG = logging.getLogger(__name__)
_LINE_LIMIT = 4 << 20
"""Of a line that a child says; an answer has about 200 bytes for each file of the model."""
_UNPACKED_PER_CPU_SECOND = 50 << 20
"""Archives are unpacked at least this fast."""
_LIGHT_BYTES = 1 << 20
"""A child that was given no more than this takes little memory: it needs no place, and may have others in its own."""
_PIECE_BYTES = 2 << 20
"""Of what is read for a child, no more lies here at a time."""
_LONGEST_WAIT_SECONDS = 120.0
"""For a store, all in all, in a place that others need."""
_PATIENCES = 4
"""How often the longest thought may be thought, all in all."""
_LONGEST_MESSAGE = 2000
_START_SECONDS = 60
"""For the process to start on a busy machine, until its child says its first word."""
_LONGEST_GUESS_BYTES = 4 << 20
"""Of a range that a child expects to read."""
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
"""Of the runtime's. SIGBUS is none: where memory is short, a page of the file of zeros cannot be had."""
_NEARLY = 0.9
"""Of the memory that a child may take: an abort beyond it is of one that cannot tell that it got no more."""
_T = TypeVar("_T")


class ParserError(Exception):
    """The parsing process has a fault of its own: nothing is known about the model."""


class ForbiddenCallError(ParserError):
    """The parsing child made a system call that its filter does not allow; ``number`` is that call's, where known.

    A library needs a call that nobody foresaw, or what was parsed took over the child. The call was not made.
    """

    def __init__(self, number: int | None) -> None:
        self.number = number
        which = f"the system call {number}" if number is not None else "a system call"
        super().__init__(
            f"the parsing child made {which} ({os.uname().machine}) that it may not make, and was ended. Nothing is"
            " known about the model. Please report it with the model: the list of calls may lack one, or the file is"
            " an attack."
        )


class SignatureRefusedError(Exception):
    """The signature does not hold; the text says why."""


class Feed(Protocol):
    """Gives a child what it asks for. Names come from the child: they are to be checked."""

    async def size(self, name: str) -> int | None:
        """Bytes of a file; None when it is not there."""

    async def read(self, name: str, begin: int, end: int) -> bytes:
        """Exactly these bytes."""

    def expect(self, name: str, begin: int, end: int) -> None:
        """These bytes will probably be asked for soon."""


class Parser:
    """Judges models, each in a child of a process that was started for this. Use it as ``async with``.

    ``signatures`` says that signatures will be verified: what this takes is then imported once, not by each child.
    """

    def __init__(self, limits: InspectionLimits, *, signatures: bool = False) -> None:
        self._limits = limits
        self._signatures = signatures
        # A tenant whose models are heavy leaves others a place that they get at once.
        self.places = FairPlaces(limits.parsers, max(1, limits.parsers - 1))
        """For children that check."""
        self.readers = FairPlaces(limits.readers, max(1, limits.readers // 2))
        """For children that were given much, and check nothing yet."""
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.forbidden_calls = 0
        """Children that were ended because of a system call, so far."""
        self.exceeded_limits = 0
        """Children that were ended because the runtime took more than they may, so far."""
        self._zeros: Path | None = None

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def start(self) -> None:
        """Start the process ahead of the first model; it imports what it needs for about a second."""
        if self._process is not None and self._process.poll() is None:
            return
        _tell_what_guards()
        self._close_control()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - a fixed command of our own
                [
                    sys.executable,
                    "-m",
                    "onnx_operator.model.inspection.zygote",
                    str(theirs.fileno()),
                    self._folder_of_zeros(),
                    *(["signatures"] if self._signatures else []),
                ],
                pass_fds=[theirs.fileno()],
                env={
                    "PATH": "/usr/bin:/bin",
                    "LANG": "C.UTF-8",
                    "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                    # The runtime and numpy would start threads: the first to report its use, the others to calculate.
                    "ORT_DISABLE_TELEMETRY": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                    "OMP_NUM_THREADS": "1",
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
        if self._zeros is not None:
            shutil.rmtree(self._zeros, ignore_errors=True)
            self._zeros = None

    def _folder_of_zeros(self) -> str:
        if self._zeros is None:
            self._zeros = zeros.make(self._limits.max_model_bytes)
        return "" if self._zeros is None else str(self._zeros)

    async def judge(
        self,
        feed: Feed,
        name: str,
        *,
        size: int | None,
        capabilities: Capabilities,
        tenant: str = "",
        stopwatch: Stopwatch | None = None,
    ) -> InspectionResult:
        """Judge the model in the file ``name``; a cancelled call kills its child.

        Args:
            feed: what the child reads from.
            name: the model's file.
            size: its bytes, where known.
            capabilities: of the runtime that will serve it.
            tenant: whose it is: places are shared among tenants.
            stopwatch: stands still while others have the places.

        Raises:
            ParserError: a fault of ours, or of a child that does what no child of ours does.
            SourceError: and whatever else ``feed`` raises.
        """
        job = {
            "judge": name,
            "capabilities": capabilities.model_dump(mode="json", by_alias=True),
            "archives": {"unpacked_bytes": self._limits.max_model_bytes},
            "maxNodes": self._limits.max_nodes,
        }
        extra_seconds = 4 * (size or 0) // _UNPACKED_PER_CPU_SECOND
        turn = _Turn(self.places, self.readers, tenant, stopwatch or Stopwatch())
        answer = await self._run(job, b"", feed, turn, extra_seconds, size)
        if "outcome" in answer:
            try:
                return InspectionResult.model_validate(answer)
            except ValidationError as error:
                raise ParserError(f"the parsing child answered what is no result: {_first(error)}") from None
        if isinstance(refusal := answer.get("refusal"), Refusal):
            return InspectionResult(outcome="Refused", refusal=refusal)
        raise ParserError(f"the parsing child answered {answer!r:.200}")

    async def verify_signature(
        self,
        signature: bytes,
        settings: SignatureSettings,
        *,
        tenant: str = "",
        stopwatch: Stopwatch | None = None,
    ) -> SignedManifest:
        """Verify a signature file in a child of its own, which sees no byte of the model.

        Raises :class:`SignatureRefusedError`, :class:`ParserError`.
        """
        job = {"signature": len(signature), "settings": settings.model_dump(mode="json", by_alias=True)}
        turn = _Turn(self.places, self.readers, tenant, stopwatch or Stopwatch())
        answer = await self._run(job, signature, None, turn, 0, len(signature))
        if "manifest" in answer:
            try:
                return SignedManifest.model_validate(answer["manifest"])
            except ValidationError as error:
                raise ParserError(f"the parsing child answered what is no manifest: {_first(error)}") from None
        if isinstance(refusal := answer.get("refusal"), Refusal):
            raise SignatureRefusedError(refusal.message)
        if isinstance(why := answer.get("invalid"), str):
            raise SignatureRefusedError(why[:_LONGEST_MESSAGE])
        raise ParserError(f"the parsing child answered {answer!r:.200}")

    async def _run(
        self,
        job: dict[str, Any],
        content: bytes,
        feed: Feed | None,
        turn: "_Turn",
        extra_seconds: int,
        size: int | None,
    ) -> dict[str, Any]:
        limits = self._limits
        job |= {
            "cpuSeconds": limits.cpu_seconds + limits.load_seconds + extra_seconds,
            "memoryBytes": limits.memory_bytes,
            "parsers": limits.parsers,
        }
        try:
            if feed is None:
                # Such a child asks nothing, and takes its memory at once.
                await turn.take()
            with _Connection(self._submit()) as child:
                first, status = await self._converse(child, job, content, feed, turn, extra_seconds, size)
        finally:
            turn.give_back()
        if child.trying and not first and status is not None:
            return self._interpret_trial(status, child.taken)
        return self._interpret(first, status)

    async def _converse(
        self,
        child: "_Connection",
        job: dict[str, Any],
        content: bytes,
        feed: Feed | None,
        turn: "_Turn",
        extra_seconds: int,
        size: int | None,
    ) -> tuple[dict[str, Any], int | None]:
        """Give the child its job and answer its questions; its word and its wait status, each where there is one.

        ``child`` is told the memory that it took.
        """
        said: dict[str, Any] = {}
        patience = self._limits.answer_seconds + extra_seconds
        talk = Conversation(size, patience_seconds=_START_SECONDS + _PATIENCES * patience)
        longest = float(_START_SECONDS + patience)
        try:
            async with asyncio.timeout(longest):
                await child.send(json.dumps(job).encode() + b"\n" + content)
            while True:
                started = time.monotonic()
                async with asyncio.timeout(min(longest, talk.patience_seconds)):
                    line = await child.receive_line()
                talk.listened(time.monotonic() - started)
                longest = float(patience)
                if not line:
                    return said, None
                message = read_message(line)
                if isinstance(message, End):
                    if message.forbidden:
                        raise self._forbidden(message.call)
                    child.taken = message.taken
                    return said, message.status
                talk.heard()
                if not isinstance(message, Question):
                    said = said or message
                elif message.asks == "trying":
                    child.trying = bool(message.begin)
                elif message.asks == "turn":
                    await turn.take()
                    await self._send(child, b"{}\n", patience)
                elif feed is not None:
                    await self._answer(child, message, feed, turn, talk, patience)
        except TimeoutError:
            return said, int(signal.SIGALRM)
        except ConversationError as error:
            raise ParserError(str(error)) from None

    async def _answer(
        self, child: "_Connection", asked: Question, feed: Feed, turn: "_Turn", talk: Conversation, patience: int
    ) -> None:
        """Answer a question about a file. Raises :class:`ParserError`, TimeoutError, and whatever ``feed`` raises."""
        if asked.asks == "size":
            talk.names(asked.name)
            size = await turn.waiting(feed.size(asked.name))
            talk.sized(asked.name, size)
            await self._send(child, json.dumps({"size": size}).encode() + b"\n", patience)
        elif asked.asks == "expect":
            if asked.begin < asked.end <= asked.begin + _LONGEST_GUESS_BYTES:
                feed.expect(asked.name, asked.begin, asked.end)
        else:
            talk.names(asked.name)
            talk.gives(asked.end - asked.begin)
            await turn.make_room(asked.end - asked.begin)
            head = b'{"bytes": %d}\n' % (asked.end - asked.begin)
            for begin in range(asked.begin, asked.end, _PIECE_BYTES):
                end = min(begin + _PIECE_BYTES, asked.end)
                data = await turn.waiting(feed.read(asked.name, begin, end))
                await self._send(child, head + data, patience)
                head = b""

    @staticmethod
    async def _send(child: "_Connection", data: bytes, patience: int) -> None:
        """Send what a child asked for; one that does not take it is not waited for for ever."""
        async with asyncio.timeout(patience):
            await child.send(data)

    def _submit(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            for last in (False, True):
                self.start()
                assert self._control is not None
                try:
                    socket.send_fds(self._control, [b"j"], [theirs.fileno()])
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

    def _forbidden(self, number: int | None) -> ForbiddenCallError:
        self.forbidden_calls += 1
        error = ForbiddenCallError(number)
        _LOG.error("%s", error, extra={"event": "forbiddenCall", "call": number, "count": self.forbidden_calls})
        return error

    def _interpret_trial(self, status: int, taken: int) -> dict[str, Any]:
        """How a child ended in which the runtime was loading: a crash is the model's doing, a limit is ours."""
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        memory = sandbox.share(self._limits.memory_bytes, self._limits.parsers)
        full = number == signal.SIGABRT and taken >= _NEARLY * memory
        if number in _CRASHES and not full:
            name = signal.Signals(number).name
            return _refused(
                Reason.INVALID_GRAPH,
                f"ONNX Runtime itself crashes ({name}) when it loads the model, as it would in every pod. Export it"
                " anew, with other versions or options of the exporter, and report it to ONNX Runtime.",
            )
        self.exceeded_limits += 1
        limit = f"{self._limits.cpu_seconds + self._limits.load_seconds} s of processor time"
        if number in (signal.SIGKILL, signal.SIGBUS) or full:
            limit = f"{memory >> 20} MiB of memory"
        message = (
            f"ONNX Runtime took more than {limit} (a limit of the inspection) to load the structure of the model, or"
            f" was ended (status {status}). Nothing is known about the model."
        )
        _LOG.error("%s", message, extra={"event": "exceededLimit", "count": self.exceeded_limits})
        raise ParserError(message)

    def _interpret(self, first: dict[str, Any], status: int | None) -> dict[str, Any]:
        if "memory" in first:
            return _refused(
                Reason.TOO_LARGE,
                f"Reading the model's structure takes more than {self._limits.memory_bytes >> 20} MiB of memory.",
            )
        if "error" in first:
            raise ParserError(str(first["error"])[-_LONGEST_MESSAGE:])
        if first:
            return first
        if status is None:
            raise ParserError("the parsing process ended in the middle of a job")
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if number in (signal.SIGALRM, signal.SIGXCPU):
            return _refused(
                Reason.TOO_LARGE,
                f"Reading the model's structure takes more than {self._limits.cpu_seconds} s of processor time or"
                f" {self._limits.answer_seconds} s in all.",
            )
        if number == signal.SIGKILL:
            return _refused(Reason.TOO_LARGE, "Reading the model's structure takes more memory than the inspector has.")
        if not number:
            raise ParserError(f"the parsing child ended with the status {status} and without a word")
        name = signal.Signals(number).name
        return _refused(Reason.CORRUPT, f"The parser crashed on the file ({name}). Upload it again, or export it anew.")

    def _close_control(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None


class _Turn:
    """A child's place among the few that use much memory and processor time, or of those that read much."""

    def __init__(self, places: FairPlaces, readers: FairPlaces, tenant: str, stopwatch: Stopwatch) -> None:
        self._places = places
        self._readers = readers
        self._tenant = tenant
        self._stopwatch = stopwatch
        self._place: int | None = None
        self._reader: int | None = None
        self._waited = 0.0
        self._given = 0
        """Bytes that the child was given."""

    async def take(self) -> None:
        """Wait for a place, where the child has none."""
        if self._place is None:
            with self._stopwatch.paused():
                self._place = await self._places.acquire(self._tenant)
            self._stop_reading()

    async def make_room(self, size: int) -> None:
        """Wait until the child may be given so much more: one that holds much is one of few."""
        self._given += size
        if self._place is None and self._reader is None and self._given > _LIGHT_BYTES:
            with self._stopwatch.paused():
                self._reader = await self._readers.acquire(self._tenant)

    def give_back(self) -> None:
        """Let others in."""
        self._stop_checking()
        self._stop_reading()

    def _stop_checking(self) -> None:
        if self._place is not None:
            self._places.release(self._place)
            self._place = None

    def _stop_reading(self) -> None:
        if self._reader is not None:
            self._readers.release(self._reader)
            self._reader = None

    async def waiting(self, answer: Awaitable[_T]) -> _T:
        """Wait for a store, and let others in meanwhile where little memory is held.

        Raises :class:`SourceError` (``SourceUnreachable``) where a place is held for too long by this.
        """
        if self._place is None:
            return await self._reading(answer)
        light = self._given <= _LIGHT_BYTES
        if light:
            self._stop_checking()
        started = time.monotonic()
        try:
            async with asyncio.timeout(None if light else max(0.0, _LONGEST_WAIT_SECONDS - self._waited)):
                found = await answer
        except TimeoutError:
            raise _too_slow() from None
        self._waited += time.monotonic() - started
        if light:
            await self.take()
        return found

    async def _reading(self, answer: Awaitable[_T]) -> _T:
        """Wait for a store as long as it takes, but for those who keep more than their share from others."""
        if self._reader is None:
            return await answer
        task = asyncio.ensure_future(answer)
        try:
            while not task.done():
                crowding = self._readers.crowds(self._tenant)
                started = time.monotonic()
                await asyncio.wait({task}, timeout=1.0)
                if crowding:
                    self._waited += time.monotonic() - started
                if self._waited > _LONGEST_WAIT_SECONDS:
                    raise _too_slow()
            return task.result()
        finally:
            task.cancel()


def _too_slow() -> SourceError:
    return SourceError(
        Reason.SOURCE_UNREACHABLE,
        f"The store lets wait for more than {_LONGEST_WAIT_SECONDS:g} s in all while the model is checked. It"
        " is tried again.",
        retriable=True,
    )


class _Connection:
    """The socket to a child. A stream of asyncio's would drop what the child's end left to be read."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._received = bytearray()
        self.trying = False
        """Whether the runtime is loading the model in the child."""
        self.taken = 0
        """Bytes of memory that the child took at most, once it has ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    async def send(self, data: bytes) -> None:
        """Send all; to a child that is gone nothing, since the process that reaps it says why."""
        with suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def receive_line(self) -> bytes:
        """One line; empty at the end. Raises :class:`ParserError` for one without end."""
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > _LINE_LIMIT:
                raise ParserError("the parsing child does not stop talking")
            try:
                data = await asyncio.get_running_loop().sock_recv(self._socket, 1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                return b""
            self._received += data
        line = bytes(self._received[: end + 1])
        del self._received[: end + 1]
        return line


def _first(error: ValidationError) -> str:
    """What is wrong first, without what was said: it may be of any length."""
    found = error.errors(include_input=False, include_url=False, include_context=False)[0]
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"[:_LONGEST_MESSAGE]


def _refused(reason: Reason, message: str) -> dict[str, Any]:
    return {"refusal": Refusal(reason=reason, message=message)}


@cache
def _tell_what_guards() -> None:
    """Once a process."""
    if known := landlock.version():
        _LOG.info("the parsing children are held by seccomp and by Landlock (version %d)", known)
    else:
        _LOG.info("this kernel or container has no Landlock: the parsing children are held by seccomp alone")
