"""Heads of requests, remembered by their bytes: callers send the same one again and again.

What is remembered of a head is a function of its bytes alone: a parser that has seen nothing else reads them, so that
nothing which anybody sends before or after can change it. It is used only where a request begins (the connection's own
parser says so), holds nothing of who may do what, and covers only requests whose length the head tells.
"""

from typing import Final

import httptools

from onnx_operator.server.errors import RequestError

MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_TARGET_LENGTH = 8192
MAX_KNOWN_LENGTH = 1024
"""Bytes of a head that is worth remembering; 256 of them and what they say take about 1 MiB."""
MAX_KNOWN = 256
VERSIONS = frozenset({"1.0", "1.1"})
_SINGLE = frozenset(
    {b"authorization", b"content-encoding", b"inference-header-content-length", b"host", b"transfer-encoding"}
)
"""Headers that would mean two things if they came twice."""

Headers = dict[bytes, bytes]


def put(headers: Headers, name: bytes, value: bytes) -> None:
    """Add a header. Raises :class:`RequestError` where it must not come twice, or there are too many."""
    name = name.lower()
    if len(headers) >= MAX_HEADERS:
        raise too_many_headers()
    if name in headers and name in _SINGLE:
        raise RequestError(f"the header {name.decode('latin-1')} came twice")
    headers[name] = value


def too_many_headers() -> RequestError:
    """The refusal of a head that is too long."""
    return RequestError(f"the headers take more than {MAX_HEADER_BYTES} bytes, or are over {MAX_HEADERS}", 431)


def check_framing(headers: Headers, version: str) -> None:
    """Refuse what others on the way could read as another request: RFC 9112, 2.3 and 6.1.

    Raises :class:`RequestError`.
    """
    if version not in VERSIONS:
        raise RequestError(f"this server speaks HTTP/1.1, not {version}")
    coding = headers.get(b"transfer-encoding")
    if coding is not None and version != "1.1":
        raise RequestError("the header transfer-encoding needs HTTP/1.1")
    if coding is not None and coding.lower() != b"chunked":
        raise RequestError("the header transfer-encoding may only say chunked")


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request's target."""
    path, _, query = target.partition(b"?")
    if path.startswith((b"http://", b"https://")):
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    return path, query


class Head:
    """What a head says. Shared by all requests that have it: never changed."""

    __slots__ = ("headers", "keep_alive", "length", "method", "path", "query")

    def __init__(
        self, method: bytes, path: bytes, query: bytes, headers: Headers, keep_alive: bool, length: int
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.keep_alive = keep_alive
        self.length = length
        """Bytes of the body."""


class Heads:
    """Reads heads, and remembers them."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head | None] = {}

    def read(self, raw: bytes) -> Head | None:
        """What the head says that is ``raw``, its blank line included; None where it is not an ordinary one."""
        if raw in self._known:
            return self._known[raw]
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        head = self._known[raw] = read_head(raw)
        return head


def read_head(raw: bytes) -> Head | None:
    """Read a head; None where it is not a whole one, or says something out of the ordinary. Pure."""
    reader = _Reader()
    parser = reader.parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(raw)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    headers = reader.headers
    # A second message would begin where this one ends; what is chunked, or waits to be told to go on, has other ways.
    if reader.begun != 1 or reader.complete != 1 or not headers.keys().isdisjoint(_UNUSUAL):
        return None
    if parser.get_http_version() not in VERSIONS:
        return None
    if reader.upgrade or (b"host" not in headers and parser.get_http_version() == "1.1"):
        return None
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 15 or (reader.ended != (int(length) == 0)):
        return None
    path, query = split_target(reader.target)
    return Head(parser.get_method(), path, query, headers, reader.keep_alive, int(length))


_UNUSUAL: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade"})


class _Reader:
    """Takes what the parser finds."""

    parser: httptools.HttpRequestParser

    def __init__(self) -> None:
        self.target = b""
        self.headers: Headers = {}
        self.begun = 0
        self.complete = 0
        self.ended = False
        self.keep_alive = False
        self.upgrade = False

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        put(self.headers, name, value)

    def on_headers_complete(self) -> None:
        self.complete += 1
        # Here: the parser has forgotten it once the message is over.
        self.keep_alive = self.parser.should_keep_alive()
        self.upgrade = self.parser.should_upgrade()

    def on_message_complete(self) -> None:
        self.ended = True
