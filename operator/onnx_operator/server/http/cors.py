"""Which web pages of other origins may ask, and read the answers: https://fetch.spec.whatwg.org/#http-cors-protocol.

Nothing is ever allowed that needs credentials of the browser's own (cookies, client certificates): a page that has the
endpoint's token sends it in a header.
"""

import re
from collections.abc import Iterable

from onnx_operator.api.origins import ANY_ORIGIN, read_origin
from onnx_operator.server.http.heads import Headers

_MAX_AGE = 600
_MAX_ASKED = 2048
"""Bytes of the headers that a page may say it will send."""
_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+( ?, ?[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")
_EXPOSED = (
    b"Access-Control-Expose-Headers: Inference-Header-Content-Length, X-Request-Id, Retry-After, Allow, "
    b"x-ms-run-function-failed, x-ms-run-fn-exec-ms\r\n"
)


class CrossOrigin:
    """The origins that are allowed. Raises ValueError for what is no origin."""

    def __init__(self, origins: Iterable[str]) -> None:
        found = {read_origin(origin) for origin in origins}
        self._any = ANY_ORIGIN in found
        self._origins = {origin.encode() for origin in found}

    def allows(self, origin: bytes) -> bool:
        """Whether pages of that origin may ask."""
        return self._any or origin in self._origins

    def lines(self, headers: Headers) -> bytes:
        """What an answer says besides; nobody else, such as a script, says anything on this."""
        vary = b"" if self._any else b"Vary: Origin\r\n"
        origin = headers.get(b"origin")
        if origin is None or not self.allows(origin):
            return vary
        return b"Access-Control-Allow-Origin: " + (b"*" if self._any else origin) + b"\r\n" + _EXPOSED + vary

    def preflight(self, method: bytes, headers: Headers, methods: Iterable[bytes]) -> bytes | None:
        """What a browser is told that asks before a page does; None for any other request."""
        if method != b"OPTIONS" or b"access-control-request-method" not in headers:
            return None
        if not self.allows(headers.get(b"origin", b"")):
            return None
        allowed = b"Access-Control-Allow-Methods: " + b", ".join(methods) + b"\r\n"
        asked = headers.get(b"access-control-request-headers", b"")
        if asked and len(asked) <= _MAX_ASKED and _NAMES.fullmatch(asked):
            allowed += b"Access-Control-Allow-Headers: " + asked + b"\r\n"
        return allowed + b"Access-Control-Max-Age: %d\r\nVary: Access-Control-Request-Headers\r\n" % _MAX_AGE
