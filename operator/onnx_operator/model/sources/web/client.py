"""The HTTP client for addresses that users choose."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourceSettings
from onnx_operator.common.backoff import Backoff
from onnx_operator.model.sources.base import BrokenStreamError, SourceError, unreachable
from onnx_operator.model.sources.web.addresses import Destination, check_url, destination, read_url
from onnx_operator.model.sources.web.body import body_pieces, closed_on_error, let_go
from onnx_operator.model.sources.web.connections import Connections, watch_refusals
from onnx_operator.model.sources.web.documents import DocumentKind, budget
from onnx_operator.model.sources.web.errors import cause, retry_after, status_error

_DOCUMENT_BUFFER_BYTES = 32 << 10
"""What comes of a document before its turn waits in buffers of about this size, not in those of a download."""
_MAX_REDIRECTS = 5
_ATTEMPTS = 3
_BACKOFF = Backoff(0.3, spread=1 / 3)
_OPEN_SECONDS = 18.0
"""Longest wait for the head of an answer, over all redirects, attempts and pauses; and for a metadata answer."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GOOD = frozenset({200, 206, 412, 416})
_PLACE_SECONDS = 30.0
"""How long it is remembered where an address redirects to; shorter than any signature that it may carry is valid."""

Challenged = Callable[[URL, Mapping[str, str], str], Awaitable[bool]]
"""Takes the URL that answered 401, the answer's headers, and the Authorization header that it had got."""


@dataclass
class Answer:
    """An answer whose body is still to be read."""

    status: int
    headers: Mapping[str, str]
    url: URL
    """Where the answer came from, after redirects."""
    redirects: list[tuple[URL, Mapping[str, str]]]
    """Where redirects on the way came from, and their headers; none where the way was remembered."""
    pieces: AsyncIterator[bytes] = field(repr=False)
    """The body. Raises BrokenStreamError."""


@dataclass(frozen=True)
class Login:
    """Who gets which credentials."""

    header: Callable[[URL], str]
    """The value of the Authorization header for a URL, "" for none: asked again at every redirect."""
    given: bool
    """Whether the user gave any credentials."""
    advice: str
    """A sentence that says which to check."""
    challenged: Challenged | None = None
    """Asked when an answer was 401: whether the request is worth repeating with new credentials."""

    @classmethod
    def of(cls, origin: URL, authorization: str, advice: str) -> "Login":
        """Send one header to one origin, and to nobody else."""
        return cls(lambda url: authorization if url.origin() == origin else "", bool(authorization), advice)


class WebClient:
    """Sends GET requests, and connects to no address that the settings do not allow, be it after a redirect.

    ``store`` is the part of the settings that counts. ``platform`` is the origin that the platform team chose, which
    alone may have any network address. Without TLS it is asked if its address says so, and what ``plain_http`` names;
    never after https. Connections are kept. No variable of the environment counts, and a proxy of the platform team's
    for what that has named alone.
    """

    def __init__(
        self,
        settings: SourceSettings,
        store: str,
        login: Login,
        *,
        plain_http: Collection[Destination] = (),
        platform: URL | None = None,
    ) -> None:
        self.ca_setting = f"sources.{store}.caBundle"
        self._read_seconds = settings.read_timeout_seconds
        self._login = login
        chosen = {destination(platform)} if platform is not None and platform.scheme == "http" else set()
        self.plain_http = frozenset(plain_http) | chosen
        self._connections = Connections(settings, getattr(settings, store).ca_bundle, self.ca_setting, platform)
        self._places: dict[URL, tuple[URL, float]] = {}

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connections.aclose()

    @asynccontextmanager
    async def get(
        self,
        url: URL,
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        expected: Collection[int] = (200,),
        remember: bool = False,
        buffer_bytes: int | None = None,
    ) -> AsyncIterator[Answer]:
        """Yield an answer with an expected status; retries what may pass before its body begins.

        ``what`` names in messages what is read. With ``remember`` a redirect that was seen a moment ago is not asked
        for again; ``buffer_bytes`` is about what may wait unread. Raises :class:`SourceError`.
        """
        response, redirects = await self._answer(url, what, headers or {}, expected, remember, buffer_bytes)
        with closed_on_error(response):
            yield Answer(
                response.status,
                response.headers,
                response.url,
                redirects,
                body_pieces(response, self._read_seconds, self.ca_setting),
            )
        await let_go(response, self._read_seconds)

    @asynccontextmanager
    async def document(
        self,
        url: URL,
        what: str,
        kind: DocumentKind,
        *,
        headers: Mapping[str, str] | None = None,
        expected: Collection[int] = (200,),
    ) -> AsyncIterator[tuple[Answer, bytes]]:
        """Yield a small answer, read whole within 18 s, and hold its bytes' share of the budget as long.

        Read it into what is needed in the block, waiting for nothing there. Raises :class:`SourceError`.
        """
        async with AsyncExitStack() as held:
            try:
                async with (
                    asyncio.timeout(_OPEN_SECONDS),
                    self.get(
                        url, what, headers=headers, expected=expected, buffer_bytes=_DOCUMENT_BUFFER_BYTES
                    ) as answer,
                ):
                    size = length(answer.headers)
                    if size is not None and size > kind.limit:
                        raise kind.too_large(what, size)
                    # After the head, so that no answer waits for another one's bytes while it holds its own.
                    await held.enter_async_context(budget().hold(kind.limit if size is None else size))
                    body = bytearray()
                    async for piece in answer.pieces:
                        body += piece
                        if len(body) > kind.limit:
                            raise kind.too_large(what, len(body))
            except TimeoutError:
                raise unreachable(what, "the answer did not end in time") from None
            except BrokenStreamError as broken:
                raise unreachable(what, str(broken)) from None
            yield answer, bytes(body)

    async def _answer(
        self,
        url: URL,
        what: str,
        headers: Mapping[str, str],
        expected: Collection[int],
        remember: bool,
        buffer_bytes: int | None,
    ) -> tuple[aiohttp.ClientResponse, list[tuple[URL, Mapping[str, str]]]]:
        deadline = time.monotonic() + _OPEN_SECONDS
        challenged = self._login.challenged
        for attempt in range(1, _ATTEMPTS + 1):
            pause = _BACKOFF.after(attempt)
            refused = watch_refusals()
            try:
                async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                    response, redirects = await self._follow(url, what, headers, remember, buffer_bytes)
            except aiohttp.InvalidURL:
                raise SourceError(Reason.SOURCE_REFUSED, f"{what} is not a valid address.") from None
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                if refused:
                    raise _not_public(what, refused[0]) from None
                failure = unreachable(what, cause(error, self.ca_setting))
                if isinstance(error, aiohttp.ClientConnectorCertificateError):
                    raise failure from None
            else:
                with closed_on_error(response):
                    if response.status in expected:
                        _check_encoding(response, what)
                        return response, redirects
                    if response.status == 401 and challenged is not None:
                        ask, challenged = challenged, None
                        if await _renewed(ask, response, what, deadline):
                            await let_go(response, self._read_seconds)
                            continue
                failure = status_error(
                    what, response.status, have_credentials=self._login.given, advice=self._login.advice
                )
                pause = max(pause, retry_after(response.headers))
                await let_go(response, self._read_seconds)
            if not failure.retriable or attempt == _ATTEMPTS or time.monotonic() + pause >= deadline:
                break
            await asyncio.sleep(pause)
        raise failure from None

    async def _follow(
        self, start: URL, what: str, headers: Mapping[str, str], remember: bool, buffer_bytes: int | None
    ) -> tuple[aiohttp.ClientResponse, list[tuple[URL, Mapping[str, str]]]]:
        place, until = self._places.pop(start, (start, 0.0))
        if remember and time.monotonic() < until:
            response = await self._send(place, headers, buffer_bytes)
            if response.status in _GOOD:
                self._places[start] = (place, until)
                return response, []
            await let_go(response, self._read_seconds)
        url, redirects = start, list[tuple[URL, Mapping[str, str]]]()
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._send(url, headers, buffer_bytes)
            if response.status not in _REDIRECTS:
                if redirects and response.status in _GOOD:
                    self._places[start] = (url, time.monotonic() + _PLACE_SECONDS)
                return response, redirects
            redirects.append((url, response.headers))
            with closed_on_error(response):
                url = self._redirected(url, what, response.headers.get("Location", ""))
            await let_go(response, self._read_seconds)
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"{what} redirects more than {_MAX_REDIRECTS} times; give the address it ends at.",
        )

    async def _send(self, url: URL, headers: Mapping[str, str], buffer_bytes: int | None) -> aiohttp.ClientResponse:
        sent = {"Accept": "*/*", "Accept-Encoding": "identity", **headers}
        if value := self._login.header(url):
            sent["Authorization"] = value
        session, proxy = self._connections.way(url)
        return await session.get(url, headers=sent, allow_redirects=False, read_bufsize=buffer_bytes, proxy=proxy)

    def _redirected(self, url: URL, what: str, location: str) -> URL:
        try:
            target = url.join(read_url(location, encoded=location.isascii()))
            return check_url(target, plain_http=() if url.scheme == "https" else self.plain_http)
        except ValueError:
            raise SourceError(Reason.SOURCE_REFUSED, f"{what} redirects to an address that cannot be read.") from None
        except SourceError as error:
            raise SourceError(Reason.SOURCE_REFUSED, f"{what} redirects: {error.message}") from None


@asynccontextmanager
async def in_time(what: str) -> AsyncIterator[None]:
    """Bound several requests that find out together where a file lies. Raises :class:`SourceError`."""
    try:
        async with asyncio.timeout(_OPEN_SECONDS):
            yield
    except TimeoutError:
        raise unreachable(what, "not all answers came in time") from None


def basic(user: str, password: str, where: str) -> str:
    """Value of the Authorization header for a user and a password (RFC 7617, 2.1: in UTF-8).

    Bytes of an environment variable that are no UTF-8 are sent as they are. Raises :class:`SourceError`
    (``SourceUnauthorized``) for what has no bytes.
    """
    try:
        given = f"{user}:{password}".encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise _unfit(where) from None
    return "Basic " + base64.b64encode(given).decode()


def authorization(where: str, token: str, user: str = "", password: str = "") -> str:
    """Value of the Authorization header for a token, or else for a user and a password; empty for none of them.

    Raises :class:`SourceError` (``SourceUnauthorized``).
    """
    if token.strip():
        return check_header(f"Bearer {token.strip()}", where)
    return basic(user, password, where) if user or password else ""


def check_header(value: str, where: str) -> str:
    """Return a header's value. Raises :class:`SourceError` (``SourceUnauthorized``) for one that none can carry."""
    if not value.isascii() or any(c < " " or c == "\x7f" for c in value):
        raise _unfit(where)
    return value


def _unfit(where: str) -> SourceError:
    return SourceError(
        Reason.SOURCE_UNAUTHORIZED,
        f"The credentials for {where} hold characters that no HTTP header can carry; check the Secret"
        " named in spec.model.credentials.secretName for line breaks.",
    )


def length(headers: Mapping[str, str]) -> int | None:
    """Bytes of the body, as far as the server tells."""
    text = headers.get("Content-Length", "").strip()
    # No file is larger than what fits into 19 digits, and Python reads no endless ones.
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


async def _renewed(ask: Challenged, response: aiohttp.ClientResponse, what: str, deadline: float) -> bool:
    sent = response.request_info.headers.get("Authorization", "")
    try:
        async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
            return await ask(response.url, response.headers, sent)
    except TimeoutError:
        raise unreachable(what, "no credentials could be had in time") from None


def _not_public(what: str, address: str) -> SourceError:
    return SourceError(
        Reason.SOURCE_REFUSED,
        f"{what} leads to {address}, which is not a public address. The platform team can allow its network in the"
        " setting sources.allowedNetworks.",
    )


def _check_encoding(response: aiohttp.ClientResponse, what: str) -> None:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        shown = "".join(c if c.isprintable() else "?" for c in encoding[:40])
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"{what} is sent with Content-Encoding: {shown} although the plain file was asked for; store it"
            " without an encoding.",
        )
