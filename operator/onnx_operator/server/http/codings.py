"""Content codings: bodies that come compressed, and answers that callers take so. RFC 9110, sections 8.4 and 12.5.3.

What comes is unpacked piece by piece, so that no more is ever made of it than may be: a few bytes can stand for
gigabytes. Pure functions.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final, Protocol

from onnx_operator.server.errors import RequestError, quote

GZIP, DEFLATE, ZSTD, IDENTITY = "gzip", "deflate", "zstd", ""
ACCEPTED: Final = "gzip, deflate, zstd"
"""The codings of bodies that are understood, as a header's value."""
PIECE = 256 * 1024
"""Bytes that are unpacked at once, and ..."""
SLICE = 64 * 1024
"""... bytes of the body that are looked at for that: zlib copies what it has not come to yet."""
MAX_MEMBERS = 100
"""Members or frames of one body, each of which may be empty; making the decoder of a frame takes 16 µs."""
ZSTD_WINDOW_LOG = 23
"""8 MiB, the largest window that zstd may need in HTTP (RFC 9659)."""
WORTHWHILE = 1024
"""Bytes from which an answer is compressed: less fits into one packet anyway."""
_MAX_ACCEPT_LENGTH = 256
_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")
_ALIASES = {"": IDENTITY, "identity": IDENTITY, "x-gzip": GZIP, GZIP: GZIP, DEFLATE: DEFLATE, ZSTD: ZSTD}
_OFFERED = (ZSTD, GZIP, DEFLATE)
"""For answers, the cheapest first: a megabyte of numbers takes zstd 4 ms, the others 12."""


class UnsupportedCodingError(RequestError):
    """A body in a coding that is not understood; the answer tells those that are."""

    def __init__(self, given: str) -> None:
        super().__init__(
            f"the body's Content-Encoding is {quote(given)}; expected one of {ACCEPTED}, or the body as it is", 415
        )


class TooLongError(RequestError):
    """A body that is longer than it may be once it is unpacked."""

    def __init__(self, coding: str, most: int) -> None:
        super().__init__(f"the body is larger than {most} bytes once it is unpacked (Content-Encoding: {coding})", 413)


def coding_of(value: bytes) -> str:
    """The coding that a ``Content-Encoding`` header names; empty for none.

    Raises :class:`UnsupportedCodingError`, also for several of them.
    """
    given = value.decode("latin-1").strip()
    coding = _ALIASES.get(given.lower())
    if coding is None:
        raise UnsupportedCodingError(given)
    return coding


class _Decompressor(Protocol):
    """What the libraries of all codings have."""

    @property
    def eof(self) -> bool:
        """Whether the member has ended."""

    @property
    def unused_data(self) -> bytes:
        """What came after its end."""

    def decompress(self, data: bytes, most: int, /) -> bytes:
        """Up to so many bytes."""


class _Decoder:
    """Unpacks one member of a body."""

    def __init__(self, decompressor: _Decompressor) -> None:
        self.member = decompressor

    def more(self, data: bytes) -> bytes:
        """Up to :data:`PIECE` bytes, from ``data`` and what was left over before; none: it takes more data."""
        # zlib gives back what it has not come to, zstd keeps it.
        return self.member.decompress(getattr(self.member, "unconsumed_tail", b"") + data, PIECE)


def _decoder(coding: str, start: bytes) -> _Decoder:
    if coding == ZSTD:
        from backports.zstd import DecompressionParameter, ZstdDecompressor

        return _Decoder(ZstdDecompressor(options={DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}))
    if coding == GZIP:
        return _Decoder(zlib.decompressobj(zlib.MAX_WBITS | 16))
    # "deflate" is a zlib stream; some senders leave its two bytes of header out.
    header = start[0] & 0x0F == 8 and len(start) > 1 and int.from_bytes(start[:2]) % 31 == 0
    return _Decoder(zlib.decompressobj(zlib.MAX_WBITS if header else -zlib.MAX_WBITS))


def unpack(coding: str, body: bytes, most: int, reserve: Callable[[int], None] = lambda _: None) -> bytes:
    """What ``body`` (not empty) is without its coding, at most ``most`` bytes.

    Before each piece ``reserve`` is told how many bytes there will be with it; it may raise. Raises
    :class:`TooLongError`, and :class:`RequestError` (400) where the body is not what its coding says.
    """
    pieces: list[bytes] = []
    size = 0
    for piece in _pieces(coding, body, reserve):
        size += len(piece)
        if size > most:
            raise TooLongError(coding, most)
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _pieces(coding: str, body: bytes, reserve: Callable[[int], None]) -> Iterator[bytes]:
    decoder, members, size = _decoder(coding, body), 1, 0
    for at in range(0, len(body), SLICE):
        data = body[at : at + SLICE]
        while True:
            reserve(size + PIECE)
            try:
                piece = decoder.more(data)
            except Exception as error:
                # zlib.error, or that of a module which is imported only where a body needs it.
                raise RequestError(f"the body is not valid {coding} (Content-Encoding): {error}") from None
            data = b""
            if piece:
                size += len(piece)
                yield piece
            if decoder.member.eof:
                data = decoder.member.unused_data
                if not data and at + SLICE >= len(body):
                    return
                if coding == DEFLATE or members >= MAX_MEMBERS:
                    raise RequestError(f"the body goes on after its {coding} data (Content-Encoding) has ended")
                decoder, members = _decoder(coding, body), members + 1
            if not data and not piece:
                break
    raise RequestError(f"the body is not valid {coding} (Content-Encoding): it breaks off")


@lru_cache(64)
def _wanted(accept: bytes) -> dict[str, float]:
    """Weights by coding, in small letters; what is no weight counts as none."""
    found: dict[str, float] = {}
    for part in accept.decode("latin-1").lower().split(","):
        name, *parameters = (each.strip() for each in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                weight = float(value) if _WEIGHT.fullmatch(value.strip()) else 0.0
        if name:
            found["gzip" if name == "x-gzip" else name] = weight
    return found


def chosen(accept: bytes | None, *, binary: bool = False) -> str:
    """The coding for an answer to a caller who sends that ``Accept-Encoding``; empty for none.

    ``binary`` answers, which hardly shrink, are compressed only for who names one coding and nothing else: clients say
    unasked which ones they understand.
    """
    if accept is None or len(accept) > _MAX_ACCEPT_LENGTH:
        return IDENTITY
    wanted = _wanted(accept)
    if binary and len(wanted) != 1:
        return IDENTITY
    others = 0.0 if binary else wanted.get("*", 0.0)
    best = max(_OFFERED, key=lambda coding: wanted.get(coding, others))
    weight = wanted.get(best, others)
    return best if weight > 0 and weight >= wanted.get("identity", 0.0) else IDENTITY


def pack(coding: str, body: bytes) -> bytes:
    """``body`` in a coding, at the least cost."""
    if coding == ZSTD:
        from backports.zstd import compress

        return compress(body, 1)
    return zlib.compress(body, 1, zlib.MAX_WBITS | (16 if coding == GZIP else 0))
