"""Models in Amazon S3 and stores that speak its protocol."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import S3Store

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.model.sources.base import (
    Downloaded,
    Progress,
    SourceChangedError,
    SourceError,
    SourceStat,
    strong_etag,
)
from onnx_operator.model.sources.transfer import (
    SLOW_BYTES_PER_SECOND,
    SLOW_WINDOW_SECONDS,
    Pace,
    Sink,
)

_ATTEMPTS = 3
"""Streams in a row that may break before the first byte of progress."""
_OPEN_SECONDS = 18.0
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9.\-_]{1,254}")
# The last one is versitygw's word for an unknown key, sent as 404.
_UNAUTHORIZED_CODES = frozenset(
    {
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidSecurity",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "XAdminUserNotFound",
    }
)
_PIECE_BYTES = int(SLOW_WINDOW_SECONDS * SLOW_BYTES_PER_SECOND)
"""The stream is read in pieces of this size, so that waiting for one too long is the limit of slowness."""


class S3Source:
    """One object ``s3://BUCKET/KEY``, at the endpoint of the settings.

    Only the given credentials are used: without them requests are unsigned, and neither the environment nor a
    metadata service is asked. Raises :class:`SourceError` for a malformed URI or half a pair of keys.
    """

    def __init__(self, uri: str, *, credentials: Mapping[str, str], settings: SourceSettings) -> None:
        self._uri = uri
        self._bucket, self._key = _parse(uri)
        self._settings = settings
        self._signed = bool(credentials)
        self._store = _store(uri, self._bucket, credentials, settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Nothing to let go: the connections belong to the store's object."""

    async def stat(self) -> SourceStat:
        """Ask with HEAD."""
        return await self._stat({})

    async def download(
        self,
        destination: Path,
        *,
        pin: SourcePin | None = None,
        max_bytes: int | None = None,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> Downloaded:
        """Stream to a file, always under the version or ETag that was found first."""
        wanted = pin if pin is not None and pin.kind != "None" else None
        async with Sink(destination, shown_uri=self._uri, max_bytes=max_bytes, progress=progress) as sink:
            if resume and wanted is not None:
                await sink.continue_existing()
            else:
                await sink.restart()
            if pin is None:
                wanted = (await self.stat()).pin
            failures = 0
            pace = Pace()
            while True:
                before = sink.offset
                try:
                    read = await self._stream(sink, wanted, pace)
                    return Downloaded(sha256=await sink.digest(), size=sink.offset, pin=read)
                except _BrokenStreamError as broken:
                    failures = 1 if wanted is not None and sink.offset > before else failures + 1
                    if failures >= _ATTEMPTS or pace.silence >= SLOW_WINDOW_SECONDS:
                        raise self._unreachable(str(broken)) from None
                    await asyncio.sleep(0.2 * failures)
                finally:
                    await sink.flush()

    async def _stream(self, sink: Sink, wanted: SourcePin | None, pace: Pace) -> SourcePin | None:
        options = _condition(wanted)
        if sink.offset and wanted is None:
            await sink.restart()
        if sink.offset:
            known = await self._under(wanted, self._stat(options))
            if known.size == sink.offset and known.pin == wanted:
                return wanted
            if known.size is None or known.size <= sink.offset:
                await sink.restart()
            else:
                options["range"] = {"offset": sink.offset}
        result = await self._under(wanted, self._get(options))
        meta = cast("dict[str, Any]", result.meta)
        found = _pin(meta)
        # Not every store minds the condition; what it says it sends decides.
        if wanted is not None and found != wanted:
            raise self._changed(wanted, found)
        total = int(meta["size"])
        if int(result.range[0]) != sink.offset:
            await sink.restart()
            raise _BrokenStreamError("the store answered with another range than asked for")
        sink.expect(total)
        await self._receive(result.stream(min_chunk_size=_PIECE_BYTES), sink, pace)
        if sink.offset != total:
            raise _BrokenStreamError(f"the store sent {sink.offset} of {total} bytes")
        return found

    async def _receive(self, stream: Any, sink: Sink, pace: Pace) -> None:
        pieces: AsyncIterator[Any] = aiter(stream)
        while True:
            try:
                async with asyncio.timeout(SLOW_WINDOW_SECONDS):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise _BrokenStreamError(
                    f"the stream stalled (less than {_PIECE_BYTES} bytes in {SLOW_WINDOW_SECONDS:g} s)"
                ) from None
            except (BaseError, OSError):
                raise _BrokenStreamError("the connection broke in the middle") from None
            try:
                pace.add(len(piece))
            except TimeoutError as slow:
                raise self._unreachable(f"the stream is too slow: {slow}") from None
            await sink.write(memoryview(piece))

    async def _stat(self, options: dict[str, Any]) -> SourceStat:
        result = await self._get({**options, "head": True})
        meta = cast("dict[str, Any]", result.meta)
        return SourceStat(size=int(meta["size"]), pin=_pin(meta), sha256=None)

    async def _get(self, options: dict[str, Any]) -> Any:
        """Open the object. Raises SourceError, and PreconditionError where the condition does not hold."""
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                try:
                    return await obstore.get_async(self._store, self._key, options=cast("Any", options))
                except (BaseError, OSError) as error:
                    if not options.get("head") or isinstance(error, PreconditionError):
                        raise
                    # HEAD has no body, and only the body tells a missing bucket from a missing key.
                    without_head = {name: value for name, value in options.items() if name != "head"}
                    return await obstore.get_async(self._store, self._key, options=cast("Any", without_head))
        except PreconditionError:
            raise
        except TimeoutError:
            raise self._unreachable("no answer in time") from None
        except (BaseError, OSError, ValueError) as error:
            raise self._translate(error) from None

    async def _under(self, wanted: SourcePin | None, answer: Any) -> Any:
        """Turn an unmet condition, or a version that is gone, into what is there now."""
        try:
            return await answer
        except PreconditionError:
            assert wanted is not None
            raise self._changed(wanted, (await self.stat()).pin) from None
        except SourceError as error:
            if wanted is None or wanted.kind != "Immutable" or error.reason is not Reason.SOURCE_NOT_FOUND:
                raise
            raise self._changed(wanted, (await self.stat()).pin) from None

    def _changed(self, wanted: SourcePin, found: SourcePin | None) -> SourceChangedError:
        name = "version" if wanted.kind == "Immutable" else "ETag"
        return SourceChangedError(
            f"{self._uri} is no longer what was pinned: expected {name} {wanted.value}, found "
            + (found.value if found else "an object without version or strong ETag")
            + ".",
            observed=found or SourcePin(kind="None", value=""),
        )

    def _translate(self, error: Exception) -> SourceError:
        text = str(error)
        code = _first(r"<Code>\s*([A-Za-z0-9.]+)\s*</Code>", text)
        status = _first(r"\bstatus: (\d{3})\b", text)
        if "BareRedirect" in text or status in ("301", "307", "308"):
            return SourceError(
                Reason.SOURCE_REFUSED,
                f"The bucket of {self._uri} is not in region {self._settings.s3.region}: set"
                " sources.s3.region to the bucket's region.",
            )
        if code in _UNAUTHORIZED_CODES or isinstance(error, PermissionDeniedError | UnauthenticatedError):
            have = "The keys were not accepted" if self._signed else "The bucket cannot be read without keys"
            return SourceError(
                Reason.SOURCE_UNAUTHORIZED,
                f"{self._uri} may not be read ({code or 'access denied'}). {have}: check AWS_ACCESS_KEY_ID"
                " and AWS_SECRET_ACCESS_KEY in the Secret named in spec.model.credentials.secretName.",
            )
        if code == "NoSuchBucket":
            return SourceError(
                Reason.SOURCE_NOT_FOUND,
                f"The bucket {self._bucket} of {self._uri} does not exist at {self._where()}.",
            )
        if isinstance(error, FileNotFoundError):
            return SourceError(
                Reason.SOURCE_NOT_FOUND,
                f"The key {self._key} does not exist in the bucket {self._bucket} at {self._where()}.",
            )
        if status and status not in ("408", "425", "429") and not status.startswith("5"):
            return SourceError(Reason.SOURCE_REFUSED, f"{self._where()} answered {status} {code} for {self._uri}.")
        if isinstance(error, ValueError) or type(error).__name__ == "InvalidPathError":
            return SourceError(Reason.SOURCE_REFUSED, f"{self._uri} holds a key that cannot be read.")
        return self._unreachable(f"it answered {status} {code}".rstrip() if status else _cause(text))

    def _unreachable(self, why: str) -> SourceError:
        return SourceError(
            Reason.SOURCE_UNREACHABLE,
            f"{self._uri} could not be read from {self._where()}: {why}. It is tried again.",
            retriable=True,
        )

    def _where(self) -> str:
        return self._settings.s3.endpoint or "Amazon S3"


class _BrokenStreamError(Exception):
    pass


def _parse(uri: str) -> tuple[str, str]:
    bucket, _, key = uri[len("s3://") :].partition("/")
    if not _BUCKET.fullmatch(bucket) or not key or key.endswith("/"):
        raise SourceError(Reason.SOURCE_REFUSED, f"{uri} does not name an object; write s3://BUCKET/PATH/MODEL.onnx.")
    return bucket, key


def _store(uri: str, bucket: str, credentials: Mapping[str, str], settings: SourceSettings) -> "S3Store":
    key_id, secret = credentials.get("AWS_ACCESS_KEY_ID", ""), credentials.get("AWS_SECRET_ACCESS_KEY", "")
    if credentials and not (key_id and secret):
        missing = "AWS_SECRET_ACCESS_KEY" if key_id else "AWS_ACCESS_KEY_ID"
        raise SourceError(
            Reason.SOURCE_UNAUTHORIZED,
            f"The credentials for {uri} lack {missing}; add it to the Secret named in"
            " spec.model.credentials.secretName.",
        )
    s3 = settings.s3
    endpoint = s3.endpoint.rstrip("/") or f"https://s3.{s3.region}.amazonaws.com"
    if s3.virtual_hosted_style:
        # obstore takes an explicit endpoint as it is, so the bucket's host name is made here.
        scheme, separator, host = endpoint.partition("://")
        endpoint = f"{scheme}{separator}{bucket}.{host}"
    # Every option that the store would otherwise take from AWS_* variables is given, so that none counts.
    config: dict[str, Any] = {
        "endpoint": endpoint,
        "aws_endpoint_url_s3": endpoint,
        "region": s3.region,
        "virtual_hosted_style_request": s3.virtual_hosted_style,
        "request_payer": False,
        "s3_express": False,
        "unsigned_payload": False,
        "skip_signature": not credentials,
    }
    client: dict[str, Any] = {
        "allow_http": endpoint.startswith("http://"),
        "allow_invalid_certificates": False,
        "connect_timeout": timedelta(seconds=settings.connect_timeout_seconds),
        "read_timeout": timedelta(seconds=settings.read_timeout_seconds),
        # Bounds a whole download, which may be large; silence and slowness have limits of their own.
        "timeout": timedelta(days=1),
        "user_agent": "onnx-operator",
    }
    if s3.ca_bundle:
        client["root_certificate"] = s3.ca_bundle
    retry: dict[str, Any] = {
        "max_retries": 2,
        "retry_timeout": timedelta(seconds=10),
        "backoff": {
            "init_backoff": timedelta(milliseconds=200),
            "max_backoff": timedelta(seconds=2),
            "base": 2,
        },
    }
    provider: Any = None
    if credentials:
        # A provider, because keys given as options would be mixed with the environment's session token.
        given = {
            "access_key_id": key_id,
            "secret_access_key": secret,
            "token": credentials.get("AWS_SESSION_TOKEN") or None,
            "expires_at": None,
        }

        def provider() -> Any:
            return given

    try:
        return S3Store(
            bucket,
            config=cast("Any", config),
            client_options=cast("Any", client),
            retry_config=cast("Any", retry),
            credential_provider=provider,
        )
    except (BaseError, ValueError) as error:
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"The settings sources.s3 cannot be used for {uri}: " + str(error).partition("Debug source")[0].strip(),
        ) from None


def _condition(pin: SourcePin | None) -> dict[str, Any]:
    if pin is None:
        return {}
    return {"version": pin.value} if pin.kind == "Immutable" else {"if_match": pin.value}


def _pin(meta: Mapping[str, Any]) -> SourcePin | None:
    version = meta.get("version")
    # "null" is the id of every object written while versioning is off: it can be overwritten.
    if version and version != "null":
        return SourcePin(kind="Immutable", value=version)
    return strong_etag(meta.get("e_tag"))


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""


def _cause(text: str) -> str:
    """Say what kept the connection from being made, from the error chain that obstore prints."""
    low = text.lower()
    if "dns" in low or "failed to lookup" in low:
        return "the endpoint's name does not resolve"
    if "certificate" in low or "unknownissuer" in low:
        return "the endpoint's certificate is not trusted; the setting sources.s3.caBundle adds authorities"
    if "connection refused" in low:
        return "the connection was refused"
    if "timed out" in low or "timedout" in low or "timeout," in low:
        return "no answer in time"
    if "connect" in low:
        return "no connection"
    return "the request failed"
