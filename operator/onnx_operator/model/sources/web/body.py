"""Bodies of answers: read with patience for slow links and none for silence, then let go of."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

import aiohttp

from onnx_operator.model.sources.base import BrokenStreamError
from onnx_operator.model.sources.web.errors import cause

SLOW_WINDOW_SECONDS = 20.0
"""Time that a stream was waited for, in which it must bring more than a trickle."""
SLOW_BYTES_PER_SECOND = 1024
_DRAINED_BYTES = 64 << 10
"""What is left of a body up to this size is read to keep the connection; of a larger one the connection is closed."""
_DRAIN_SECONDS = 0.5


async def body_pieces(response: aiohttp.ClientResponse, silence: float, ca_setting: str) -> AsyncIterator[bytes]:
    """Yield the body as it comes. Raises BrokenStreamError after ``silence`` seconds without a byte, or a trickle."""
    waited, received = 0.0, 0
    while True:
        before = time.monotonic()
        try:
            async with asyncio.timeout(silence):
                piece = await response.content.readany()
        except TimeoutError:
            raise BrokenStreamError(f"the stream stalled: nothing came for {silence:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenStreamError(f"the stream broke in the middle: {cause(error, ca_setting)}") from None
        if not piece:
            return
        # Only waiting counts: a reader that takes its time is not the server's fault.
        waited += time.monotonic() - before
        received += len(piece)
        if waited >= SLOW_WINDOW_SECONDS:
            if received < SLOW_BYTES_PER_SECOND * waited:
                raise BrokenStreamError(f"the stream is too slow: only {received} bytes came in {waited:.0f} s")
            waited, received = 0.0, 0
        yield piece


@contextmanager
def closed_on_error(response: aiohttp.ClientResponse) -> Iterator[None]:
    """Close the connection of an answer that whoever held it gives up, for whatever reason."""
    try:
        yield
    except BaseException:
        response.close()
        raise


async def let_go(response: aiohttp.ClientResponse, silence: float) -> None:
    """Keep the connection for the next request where little is left of the body; close it otherwise."""
    body = response.content
    length = response.content_length
    try:
        if not body.at_eof() and (length is None or length - body.total_bytes <= _DRAINED_BYTES):
            with suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(min(_DRAIN_SECONDS, silence)):
                    taken = 0
                    while taken <= _DRAINED_BYTES and (piece := await body.readany()):
                        taken += len(piece)
    finally:
        # Closes the connection, unless the body was read to its end.
        response.close()
