"""Requests that ask for another protocol besides: they are read on in this one. RFC 9110, section 7.8.

The parser stops where such a head ends, as if the other protocol followed, and cannot be told otherwise. Another one
takes its place. It is given a head with the framing of the request and nothing else, of which nobody is told, and then
what really follows: bodies, chunks and further requests are held to the same rules as ever.
"""

from typing import Protocol

import httptools

from onnx_operator.server.http.heads import Headers


class Listener(Protocol):
    """Whom a parser tells of what it finds."""

    def on_message_begin(self) -> None:
        """A request begins."""

    def on_url(self, url: bytes) -> None:
        """Part of its target."""

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers."""

    def on_headers_complete(self) -> None:
        """Its head is over."""

    def on_body(self, data: bytes) -> None:
        """Part of its body."""

    def on_message_complete(self) -> None:
        """It is over."""


def framing(headers: Headers, version: str, keep_alive: bool) -> bytes:
    """A head that says where the body of a request with such headers ends, and whether its connection does. Pure."""
    lines = [b"POST / HTTP/" + version.encode()]
    if b"transfer-encoding" in headers:
        lines.append(b"Transfer-Encoding: chunked")
    else:
        lines.append(b"Content-Length: %d" % int(headers.get(b"content-length", b"0")))
    lines.append(b"Connection: keep-alive" if keep_alive else b"Connection: close")
    return b"\r\n".join((*lines, b"", b""))


def parser_for(listener: Listener) -> httptools.HttpRequestParser:
    """A parser that tells ``listener`` of all that comes after the first head."""
    return httptools.HttpRequestParser(_AfterHead(listener))


class _AfterHead:
    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._over = False
        self.on_body = listener.on_body
        self.on_message_complete = listener.on_message_complete

    def on_message_begin(self) -> None:
        if self._over:
            self._listener.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self._over:
            self._listener.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._over:
            self._listener.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._over:
            self._listener.on_headers_complete()
        self._over = True
