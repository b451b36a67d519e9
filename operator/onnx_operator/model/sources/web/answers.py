"""What a server may send around the body of an answer: bounded where its bytes arrive, before they are parsed."""

import functools
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import BadHttpMessage

MAX_HEAD_BYTES = 64 << 10
"""Of an answer's status line and headers, all interim answers (1xx) before it included."""
_STEP_BYTES = 8 << 10
_ENVELOPE_BYTES = 256 << 10
_ENVELOPE_RATIO = 16
"""Chunks' sizes, extensions and trailers take this much more than the body that they bring. A chunk of one byte takes
six."""


class BoundedAnswers(ResponseHandler):
    """aiohttp's end of a connection, closed where a server sends an endless head, endless framing, or unasked.

    aiohttp bounds one line and the number of headers of one message; not how many interim messages there are, nor
    their bytes together, nor what comes between the bytes of a body.
    """

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        self._heading = True
        self._received = 0

    def set_response_params(self, **parameters: Any) -> None:
        """A request begins."""
        self._heading = True
        self._received = 0
        super().set_response_params(**parameters)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take a message whose head is complete."""
        code = data[0].code
        if code >= 200 or code == 101:
            self._heading = False
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, as long as they may come."""
        at = 0
        while at < len(data) and self.transport is not None and not self.transport.is_closing():
            # In steps, since one read may bring both a head and what comes behind it.
            step = data[at : at + _STEP_BYTES] if self._heading else data[at:]
            at += len(step)
            if not self._heading and (self._payload is None or self._payload.is_eof()):
                return self.transport.abort()
            self._received += len(step)
            super().data_received(step)
            self._check()
        if not data:
            super().data_received(data)
        return None

    def _check(self) -> None:
        payload = self._payload
        if self._heading:
            if self._received > MAX_HEAD_BYTES:
                self._end(BadHttpMessage(f"a head of more than {MAX_HEAD_BYTES} bytes"))
        elif payload is None or payload.is_eof():
            return
        elif self._received > MAX_HEAD_BYTES + _ENVELOPE_BYTES + _ENVELOPE_RATIO * payload.total_bytes:
            self._end(BadHttpMessage("more around the body than in it"))

    def _end(self, why: Exception) -> None:
        self.set_exception(why)
        if self.transport is not None:
            self.transport.abort()


class BoundedConnector(aiohttp.TCPConnector):
    """Makes connections whose answers are bounded."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # No public argument leads here; a test notices where a version of aiohttp does not ask it.
        self._factory: Any = functools.partial(BoundedAnswers, loop=self._loop)
