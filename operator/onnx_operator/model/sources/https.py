"""Models behind ``https`` addresses that users choose."""

import asyncio
import base64
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.model.sources.addresses import AddressGuard
from onnx_operator.model.sources.base import (
    Downloaded,
    Progress,
    SourceChangedError,
    SourceError,
    SourceStat,
    strong_etag,
)
from onnx_operator.model.sources.transfer import CHUNK_BYTES, SLOW_WINDOW_SECONDS, Pace, Sink

_MAX_REDIRECTS = 5
_ATTEMPTS = 3
"""Requests in a row that may fail before the first byte of progress."""
_OPEN_SECONDS = 18.0
"""Longest wait for the head of an answer, over all redirects, attempts and pauses."""
_LONGEST_PAUSE_SECONDS = 4.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class HttpsSource:
    """One address, read with GET only: presigned links answer no HEAD.

    Every address that is connected to is checked, at each redirect too, and credentials go to the origin of
    the URI alone. Raises :class:`SourceError` (``SourceRefused``) for an address it will never read.
    """

    def __init__(self, uri: str, *, credentials: Mapping[str, str], settings: SourceSettings) -> None:
        self._url = _parse(uri)
        self._shown = shown(self._url)
        self._settings = settings
        self._authorization = _authorization(credentials, self._shown)
        self._guard = _guard(settings)
        self._refused: list[str] = []
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def stat(self) -> SourceStat:
        """Ask for the first byte, and read the size and the ETag beside it."""
        async with self._open({"Range": "bytes=0-0"}, expected={200, 206, 416}) as response:
            return SourceStat(size=_total(response), pin=_pin(response), sha256=None)

    async def download(
        self,
        destination: Path,
        *,
        pin: SourcePin | None = None,
        max_bytes: int | None = None,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> Downloaded:
        """Stream to a file; a broken stream continues under ``If-Match`` where there is a strong ETag."""
        condition = pin if pin is not None and pin.kind == "Conditional" else None
        async with Sink(destination, shown_uri=self._shown, max_bytes=max_bytes, progress=progress) as sink:
            if resume and condition is not None:
                await sink.continue_existing()
            else:
                await sink.restart()
            failures = 0
            pace = Pace()
            while True:
                before = sink.offset
                try:
                    read = await self._stream(sink, condition, pace)
                    return Downloaded(sha256=await sink.digest(), size=sink.offset, pin=read)
                except _BrokenStreamError as broken:
                    # Without a strong ETag nothing promises that the rest belongs to the same version.
                    condition = condition or broken.pin
                    failures = 1 if condition is not None and sink.offset > before else failures + 1
                    if failures >= _ATTEMPTS or pace.silence >= SLOW_WINDOW_SECONDS:
                        raise self._unreachable(broken.cause) from None
                    await asyncio.sleep(0.2 * failures)
                finally:
                    await sink.flush()

    async def _stream(self, sink: Sink, condition: SourcePin | None, pace: Pace) -> SourcePin | None:
        headers: dict[str, str] = {}
        if condition is None and sink.offset:
            await sink.restart()
        if condition is not None:
            headers["If-Match"] = condition.value
            if sink.offset:
                headers["Range"] = f"bytes={sink.offset}-"
        async with self._open(headers, expected={200, 206, 412, 416}) as response:
            if response.status == 412:
                raise await self._changed(condition)
            pin = _pin(response)
            if condition is not None and pin != condition:
                raise await self._changed(condition, observed=pin)
            total = _total(response)
            if response.status == 416:
                if total is not None and total == sink.offset:
                    return pin
                await sink.restart()
                raise _BrokenStreamError("the file was longer than the source's", pin)
            if response.status == 206:
                if _range_start(response) != sink.offset:
                    await sink.restart()
                    raise _BrokenStreamError("the server answered with another range than asked for", pin)
            elif sink.offset:
                await sink.restart()
            sink.expect(total)
            await self._receive(response, sink, pin, pace)
            if total is not None and sink.offset != total:
                raise _BrokenStreamError(f"the server sent {sink.offset} of {total} bytes", pin)
            return pin

    async def _receive(self, response: aiohttp.ClientResponse, sink: Sink, pin: SourcePin | None, pace: Pace) -> None:
        silence = self._settings.read_timeout_seconds
        while True:
            try:
                async with asyncio.timeout(silence):
                    data = await response.content.read(CHUNK_BYTES)
            except TimeoutError:
                raise _BrokenStreamError(f"the stream stalled (nothing came for {silence:g} s)", pin) from None
            except (aiohttp.ClientError, OSError) as error:
                raise _BrokenStreamError(f"the stream broke in the middle: {_reason(error)}", pin) from None
            try:
                pace.add(len(data))
            except TimeoutError as slow:
                raise self._unreachable(f"the stream is too slow: {slow}") from None
            if not data:
                return
            await sink.write(data)

    async def _changed(self, condition: SourcePin | None, *, observed: SourcePin | None = None) -> SourceChangedError:
        if observed is None:
            observed = (await self.stat()).pin
        expected = condition.value if condition else ""
        found = observed.value if observed else "a version without a strong ETag"
        return SourceChangedError(
            f"{self._shown} is no longer what was pinned: expected ETag {expected}, found {found}.",
            observed=observed or SourcePin(kind="None", value=""),
        )

    @asynccontextmanager
    async def _open(self, headers: Mapping[str, str], *, expected: set[int]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield an answer with an expected status; retries what may pass. Raises SourceError."""
        response = await self._answer(headers, expected)
        try:
            yield response
        finally:
            # Closed, not released: the rest of a large body is not worth reading to reuse a connection.
            response.close()

    async def _answer(self, headers: Mapping[str, str], expected: set[int]) -> aiohttp.ClientResponse:
        deadline = time.monotonic() + _OPEN_SECONDS
        attempt = 0
        while True:
            attempt += 1
            pause = 0.2 * attempt
            try:
                async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                    response = await self._follow(headers)
            except aiohttp.InvalidURL:
                raise SourceError(Reason.SOURCE_REFUSED, f"{self._shown} is not a valid https address.") from None
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                self._raise_if_refused()
                failure = self._unreachable(_reason(error))
                if isinstance(error, aiohttp.ClientConnectorCertificateError):
                    raise failure from None
            else:
                if response.status in expected:
                    self._check_encoding(response)
                    return response
                response.close()
                failure = self._status_error(response.status)
                pause = max(pause, _retry_after(response))
            out_of_time = time.monotonic() + pause >= deadline or pause > _LONGEST_PAUSE_SECONDS
            if not failure.retriable or attempt >= _ATTEMPTS or out_of_time:
                raise failure from None
            await asyncio.sleep(pause)

    async def _follow(self, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        url = self._url
        for _ in range(_MAX_REDIRECTS + 1):
            sent = {"Accept": "*/*", "Accept-Encoding": "identity", **headers}
            if self._authorization and url.origin() == self._url.origin():
                sent["Authorization"] = self._authorization
            self._refused.clear()
            response = await self._client().get(url, headers=sent, allow_redirects=False)
            if response.status not in _REDIRECTS:
                return response
            location = response.headers.get("Location", "")
            response.close()
            url = self._redirected(url, location)
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"{self._shown} redirects more than {_MAX_REDIRECTS} times; give the address it ends at.",
        )

    def _redirected(self, url: URL, location: str) -> URL:
        try:
            target = url.join(URL(location, encoded=location.isascii()))
            return _check(target)
        except ValueError:
            raise SourceError(
                Reason.SOURCE_REFUSED, f"{self._shown} redirects to an address that cannot be read."
            ) from None
        except SourceError as error:
            raise SourceError(Reason.SOURCE_REFUSED, f"{self._shown} redirects: {error.message}") from None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                ssl=_tls(self._settings.https.ca_bundle),
                socket_factory=self._socket,
                force_close=True,
                use_dns_cache=False,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=self._settings.connect_timeout_seconds,
                    sock_connect=self._settings.connect_timeout_seconds,
                    sock_read=self._settings.read_timeout_seconds,
                ),
                headers={"User-Agent": "onnx-operator"},
            )
        return self._session

    def _socket(self, info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        family, kind, protocol, _, where = info
        address = str(where[0])
        if not self._guard.allows(address):
            self._refused.append(address)
            raise OSError(f"{address} is not allowed")
        return socket.socket(family=family, type=kind, proto=protocol)

    def _raise_if_refused(self) -> None:
        if self._refused:
            raise SourceError(
                Reason.SOURCE_REFUSED,
                f"{self._shown} leads to {self._refused[0]}, which is not a public address. The platform team"
                " can allow its network in the setting sources.allowedNetworks.",
            ) from None

    def _check_encoding(self, response: aiohttp.ClientResponse) -> None:
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            response.close()
            raise SourceError(
                Reason.SOURCE_REFUSED,
                f"{self._shown} is sent with Content-Encoding: {encoding[:40]} although the plain file was"
                " asked for; store it without an encoding.",
            )

    def _status_error(self, status: int) -> SourceError:
        if status in (401, 403):
            have = "The credentials were not accepted" if self._authorization else "It asks for credentials"
            return SourceError(
                Reason.SOURCE_UNAUTHORIZED,
                f"{self._shown} answered {status}. {have}: check the Secret named in"
                " spec.model.credentials.secretName (HTTPS_BEARER_TOKEN, or HTTPS_USERNAME and"
                " HTTPS_PASSWORD), or whether a presigned link has expired.",
            )
        if status in (404, 410):
            return SourceError(
                Reason.SOURCE_NOT_FOUND,
                f"{self._shown} does not exist (HTTP {status}); check spec.model.uri.",
            )
        if status >= 500 or status in (408, 425, 429):
            return self._unreachable(f"the server answered {status}")
        return SourceError(
            Reason.SOURCE_REFUSED,
            f"{self._shown} answered {status} instead of the file; check spec.model.uri.",
        )

    def _unreachable(self, why: str) -> SourceError:
        return SourceError(
            Reason.SOURCE_UNREACHABLE,
            f"{self._shown} could not be read: {why}. It is tried again.",
            retriable=True,
        )


class _BrokenStreamError(Exception):
    def __init__(self, cause: str, pin: SourcePin | None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.pin = pin


def shown(url: URL) -> str:
    """Write an address as messages may show it: no user, password, query or fragment."""
    port = "" if url.explicit_port is None else f":{url.explicit_port}"
    host = url.raw_host or ""
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}{port}{url.raw_path}"


def _parse(uri: str) -> URL:
    try:
        # An encoded address is sent as it was given: a presigned link breaks by any normalisation.
        return _check(URL(uri, encoded=uri.isascii()))
    except ValueError:
        raise SourceError(Reason.SOURCE_REFUSED, "The model's URI is not a valid https address.") from None


def _check(url: URL) -> URL:
    if url.scheme != "https":
        raise SourceError(Reason.SOURCE_REFUSED, f"{shown(url)} is not an https address; only https is read.")
    if not url.raw_host or any(c <= " " or c == "\x7f" for c in str(url)):
        raise ValueError("no host")
    if url.raw_user or url.raw_password:
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"{shown(url)} carries a user or password in the address, where everybody can read them; put them"
            " into a Secret as HTTPS_USERNAME and HTTPS_PASSWORD.",
        )
    return url.with_fragment(None) if url.raw_fragment else url


def _authorization(credentials: Mapping[str, str], where: str) -> str:
    token = credentials.get("HTTPS_BEARER_TOKEN", "").strip()
    user, password = credentials.get("HTTPS_USERNAME", ""), credentials.get("HTTPS_PASSWORD", "")
    value = ""
    if token:
        value = f"Bearer {token}"
    elif user or password:
        value = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    if not value.isascii() or any(c < " " for c in value):
        raise SourceError(
            Reason.SOURCE_UNAUTHORIZED,
            f"The credentials for {where} hold characters that no HTTP header can carry; check the Secret"
            " named in spec.model.credentials.secretName for line breaks.",
        )
    return value


def _guard(settings: SourceSettings) -> AddressGuard:
    try:
        return AddressGuard(settings.allowed_networks)
    except ValueError as error:
        raise SourceError(
            Reason.SOURCE_REFUSED, f"The setting sources.allowedNetworks is malformed: {error}."
        ) from None


def _tls(ca_bundle: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_bundle:
        try:
            context.load_verify_locations(cadata=ca_bundle)
        except (ssl.SSLError, ValueError) as error:
            raise SourceError(
                Reason.SOURCE_REFUSED,
                f"The setting sources.https.caBundle is no PEM bundle of certificates: {error}.",
            ) from None
    return context


def _pin(response: aiohttp.ClientResponse) -> SourcePin | None:
    return strong_etag(response.headers.get("ETag"))


def _total(response: aiohttp.ClientResponse) -> int | None:
    """Size of the whole object in bytes, whichever part the answer brings."""
    if response.status in (206, 416):
        text = response.headers.get("Content-Range", "").rpartition("/")[2].strip()
    else:
        text = response.headers.get("Content-Length", "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _range_start(response: aiohttp.ClientResponse) -> int | None:
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    start = rest.partition("-")[0].strip()
    return int(start) if unit.lower() == "bytes" and start.isascii() and start.isdigit() else None


def _retry_after(response: aiohttp.ClientResponse) -> float:
    """Seconds that the server asks to wait, 0 when it does not."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _system(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else "refused"


def _reason(error: BaseException) -> str:
    """Say what went wrong without aiohttp's own texts, which may hold the whole address."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        detail = getattr(error.certificate_error, "verify_message", "") or "it does not verify"
        return (
            f"the server's certificate is not trusted ({detail}); the setting sources.https.caBundle adds authorities"
        )
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"the TLS handshake failed ({getattr(error.os_error, 'reason', None) or 'protocol error'})"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {error.host} does not resolve"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {error.host}:{error.port} ({_system(error.os_error)})"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "the connection was not made in time"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the body is shorter than promised"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "the server's answer is no valid HTTP"
