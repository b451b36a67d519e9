"""Who may come in, and what is told of a request once it has its answer: the same for REST, ``/score`` and gRPC.

Each port has an admission of its own, and in it places of its own: callers who keep one port busy do not close the
other.
"""

import hmac
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onnx_operator.server.errors import RequestError
from onnx_operator.server.metrics import Metrics

logger = logging.getLogger(__name__)

_MAX_ERROR_LENGTH = 1000
"""Characters of an error that the log tells."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that has ended."""

    protocol: str
    """``rest``, ``score``, ``grpc``, or ``other`` for what does not score."""
    method: str
    """HTTP's, or gRPC's with its service."""
    path: str | None
    """None in gRPC."""
    code: int | str
    """HTTP's status, or the name of gRPC's."""
    failed: bool
    """Whether the server or its model failed, not the caller."""
    error: str
    """Why, in words; empty where nothing went wrong."""
    started: float
    """By ``time.monotonic``."""
    seconds: float
    headers: Callable[[], Mapping[str, str]]
    """The caller's, read only where they are asked for."""


class Admission:
    """Knows the token, keeps the places, and counts and tells of answers.

    Of the event loop alone, but for :meth:`check_token`, which any thread may call. ``places`` is how many scoring
    requests may be here at once, those that wait included. ``on_answered`` is told of each answer, for traces.
    """

    def __init__(
        self,
        metrics: Metrics,
        places: int,
        token: str = "",
        *,
        access_log: bool = False,
        on_answered: Callable[[Answered], None] | None = None,
    ) -> None:
        self.places = places
        self.present = 0
        """Scoring requests that have no answer yet."""
        self.guarded = bool(token)
        """Whether a token is asked for."""
        self.watched = access_log or on_answered is not None
        """Whether :meth:`tell` is for every answer, not for failures alone."""
        self.count = metrics.observe
        """Counts an answer: its protocol, code and seconds."""
        self._metrics = metrics
        self._token = token.encode()
        self._access_log = access_log
        self._on_answered = on_answered

    def check_token(self, authorization: bytes) -> RequestError | None:
        """The refusal (401) of a request without the bearer token, where one is required (RFC 6750)."""
        if not self._token:
            return None
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token):
            return None
        return RequestError("send the endpoint's token as authorization: Bearer TOKEN", 401)

    def take_place(self) -> RequestError | None:
        """Let a scoring request in, which :meth:`leave` ends; the refusal (429) where every place is taken."""
        if self.present >= self.places:
            self._metrics.reject()
            return RequestError(f"the server is full ({self.places} requests run or wait); try again shortly", 429)
        self.present += 1
        self._metrics.enter()
        return None

    def leave(self) -> None:
        """Give the place of a scoring request back."""
        self.present -= 1
        self._metrics.leave()

    def tell(self, answered: Answered) -> None:
        """Log an answer that is a failure, or any where that is wanted, and hand it to the traces."""
        if answered.failed or self._access_log:
            _log(answered)
        if self._on_answered is not None:
            self._on_answered(answered)


def _log(answered: Answered) -> None:
    fields: dict[str, object] = {"method": answered.method}
    if answered.path is not None:
        fields["path"] = answered.path
    fields |= {"code": answered.code, "seconds": round(answered.seconds, 6), **_trace(answered.headers())}
    if answered.failed and answered.error:
        # Of other failures it may quote what the caller sent.
        fields["error"] = answered.error[:_MAX_ERROR_LENGTH]
    logger.log(logging.WARNING if answered.failed else logging.INFO, "request", extra={"fields": fields})


def _trace(headers: Mapping[str, str]) -> dict[str, str]:
    """The request's id and W3C trace context (https://www.w3.org/TR/trace-context/)."""
    fields = {}
    if request_id := headers.get("x-request-id"):
        fields["requestId"] = request_id[:256]
    parts = headers.get("traceparent", "").split("-")
    if len(parts) >= 4 and len(parts[1]) == 32 and len(parts[2]) == 16:
        fields |= {"traceId": parts[1], "spanId": parts[2]}
    return fields
