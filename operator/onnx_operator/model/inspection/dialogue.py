"""The talk with one parsing child: its job, its questions and their answers, its word, its end."""

import asyncio
import json
import signal
import time
from typing import Any, Protocol

from onnx_operator.model.inspection.channel import Channel
from onnx_operator.model.inspection.conversation import Conversation
from onnx_operator.model.inspection.endings import Ending
from onnx_operator.model.inspection.faults import ForbiddenCallError, ParserError
from onnx_operator.model.inspection.messages import ConversationError, End, Question, read_message
from onnx_operator.model.inspection.turn import Turn

_PIECE_BYTES = 2 << 20
"""Of what is read for a child, no more lies here at a time."""
_PATIENCES = 4
"""How often the longest thought may be thought, all in all."""
_START_SECONDS = 60
"""For the process to start on a busy machine, until its child says its first word."""
_MAX_GUESS_BYTES = 4 << 20
"""Of a range that a child expects to read."""


class Feed(Protocol):
    """Gives a child what it asks for. Names come from the child: they are to be checked."""

    async def size(self, name: str) -> int | None:
        """Bytes of a file; None when it is not there."""

    async def read(self, name: str, begin: int, end: int) -> bytes:
        """Exactly these bytes."""

    def expect(self, name: str, begin: int, end: int) -> None:
        """These bytes will probably be asked for soon."""


class Dialogue:
    """One talk.

    Args:
        child: the socket to it.
        feed: what the child reads from; None for one that asks nothing.
        turn: its place among others.
        size: bytes of the model's file, where known.
        patience: seconds for which the child may think without asking for a byte.
    """

    def __init__(self, child: Channel, feed: Feed | None, turn: Turn, size: int | None, patience: int) -> None:
        self._child = child
        self._feed = feed
        self._turn = turn
        self._patience = patience
        self._budget = Conversation(size, patience_seconds=_START_SECONDS + _PATIENCES * patience)

    async def hold(self, job: dict[str, Any], content: bytes) -> Ending:
        """Give the child its job and answer its questions until it ends.

        Raises :class:`ParserError`, and whatever the feed raises.
        """
        ending = Ending()
        try:
            await self._hold(json.dumps(job).encode() + b"\n" + content, ending)
        except TimeoutError:
            ending.status = int(signal.SIGALRM)
        except ConversationError as error:
            raise ParserError(str(error)) from None
        return ending

    async def _hold(self, job: bytes, ending: Ending) -> None:
        longest = float(_START_SECONDS + self._patience)
        async with asyncio.timeout(longest):
            await self._child.send(job)
        while True:
            started = time.monotonic()
            async with asyncio.timeout(min(longest, self._budget.patience_seconds)):
                line = await self._child.receive_line()
            self._budget.listened(time.monotonic() - started)
            longest = float(self._patience)
            if not line:
                return
            message = read_message(line)
            if isinstance(message, End):
                if message.forbidden:
                    raise ForbiddenCallError(message.call)
                ending.taken, ending.status = message.taken, message.status
                return
            self._budget.count_question()
            if not isinstance(message, Question):
                ending.said = ending.said or message
            elif message.asks == "trying":
                ending.trying = bool(message.begin)
            elif message.asks == "turn":
                await self._turn.take()
                await self._send(b"{}\n")
            elif self._feed is not None:
                await self._answer(message, self._feed)

    async def _answer(self, asked: Question, feed: Feed) -> None:
        """Answer a question about a file. Raises :class:`ParserError`, TimeoutError, and whatever ``feed`` raises."""
        if asked.asks == "size":
            self._budget.names(asked.name)
            size = await self._turn.waiting(feed.size(asked.name))
            self._budget.sized(asked.name, size)
            await self._send(json.dumps({"size": size}).encode() + b"\n")
        elif asked.asks == "expect":
            if asked.begin < asked.end <= asked.begin + _MAX_GUESS_BYTES:
                feed.expect(asked.name, asked.begin, asked.end)
        else:
            self._budget.names(asked.name)
            self._budget.gives(asked.end - asked.begin)
            await self._turn.make_room(asked.end - asked.begin)
            head = b'{"bytes": %d}\n' % (asked.end - asked.begin)
            for begin in range(asked.begin, asked.end, _PIECE_BYTES):
                end = min(begin + _PIECE_BYTES, asked.end)
                data = await self._turn.waiting(feed.read(asked.name, begin, end))
                await self._send(head + data)
                head = b""

    async def _send(self, data: bytes) -> None:
        """Send what a child asked for; one that does not take it is not waited for for ever."""
        async with asyncio.timeout(self._patience):
            await self._child.send(data)
