"""Byte ranges of a file behind a URL, as one request each, of the version with a certain ETag where that is asked."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from yarl import URL

from onnx_operator.api.sources import SourcePin
from onnx_operator.model.sources.base import BrokenStreamError, FileStat, SourceChangedError, Stream, strong_etag
from onnx_operator.model.sources.web.client import Answer, WebClient, length

_ETAG = "strong ETag"


@dataclass(frozen=True)
class WebRange:
    """Part of a file on its way."""

    answer: Answer
    size: int | None
    """Bytes of the whole file, as far as the server tells."""
    begin: int
    """Offset of the first byte: 0 where the server serves no ranges."""
    pieces: AsyncIterator[bytes]


@asynccontextmanager
async def open_range(
    client: WebClient,
    url: URL,
    what: str,
    begin: int = 0,
    end: int | None = None,
    *,
    if_match: str = "",
    remember: bool = True,
) -> AsyncIterator[WebRange | None]:
    """Ask for the bytes from ``begin`` up to ``end``; yields None where the server says that ``if_match`` does not.

    No bytes come where the file ends at ``begin``, or before. Raises :class:`SourceError`.
    """
    headers = {"If-Match": if_match} if if_match else {}
    if begin or end is not None:
        headers["Range"] = f"bytes={begin}-{'' if end is None else max(begin, end - 1)}"
    async with client.get(url, what, headers=headers, expected=(200, 206, 412, 416), remember=remember) as answer:
        if answer.status == 412:
            yield None
            return
        size = _whole_size(answer)
        pieces = answer.pieces
        if answer.status == 416:
            beyond = size is not None and size <= begin
            pieces = _nothing() if beyond else _broken("the server refuses the range")
        elif answer.status == 206:
            if _range_start(answer.headers) != begin:
                pieces = _broken("the server answered with another range than was asked for")
            elif end is not None:
                pieces = _at_most(max(0, end - begin), pieces)
        yield WebRange(answer, size, 0 if answer.status == 200 else begin, pieces)


async def stat_of(client: WebClient, url: URL, what: str) -> FileStat:
    """Ask for the first byte, and read the size and the ETag beside it. Raises :class:`SourceError`."""
    async with open_range(client, url, what, 0, 1, remember=False) as part:
        assert part is not None
        return _stat(part)


@asynccontextmanager
async def open_pinned(
    client: WebClient, url: URL, what: str, begin: int, end: int | None, pin: SourcePin | None
) -> AsyncIterator[Stream]:
    """Read a range, under ``If-Match`` where the pin is a strong ETag.

    Raises :class:`SourceChangedError` when the server has another version, :class:`SourceError` otherwise.
    """
    etag = pin.value if pin is not None and pin.kind == "Conditional" else ""
    async with open_range(client, url, what, begin, end, if_match=etag) as part:
        if part is None:
            raise SourceChangedError.of(what, _ETAG, etag, (await stat_of(client, url, what)).pin)
        stat = _stat(part)
        # Servers that know no conditions answer all the same. An answer without a body may have no ETag.
        if etag and (stat.pin is None or stat.pin.value != etag) and (part.answer.status != 416 or stat.pin):
            raise SourceChangedError.of(what, _ETAG, etag, stat.pin)
        yield Stream(stat, part.begin, part.pieces)


def _stat(part: WebRange) -> FileStat:
    return FileStat(part.size, strong_etag(part.answer.headers.get("ETag")))


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _broken(why: str) -> AsyncIterator[bytes]:
    raise BrokenStreamError(why)
    yield b""


async def _at_most(limit: int, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield piece[:limit]
        limit -= len(piece)
        if limit <= 0:
            return


def _whole_size(answer: Answer) -> int | None:
    if answer.status in (206, 416):
        text = answer.headers.get("Content-Range", "").rpartition("/")[2].strip()
        # No file is larger than what fits into 19 digits, and Python reads no endless ones.
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
    return length(answer.headers)


def _range_start(headers: Mapping[str, str]) -> int | None:
    unit, _, rest = headers.get("Content-Range", "").partition(" ")
    start = rest.partition("-")[0].strip()
    return int(start) if unit.lower() == "bytes" and start.isascii() and start.isdigit() and len(start) < 20 else None
