"""What the sources on object stores share: looking, reading, finding the model, and telling what went wrong."""

import asyncio
import re
import time
from bisect import bisect_left
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.api.urls import taken_literally
from onnx_operator.common.backoff import Backoff
from onnx_operator.model.sources.base import (
    ARCHIVE_ENDINGS,
    BrokenStreamError,
    FileStat,
    Source,
    SourceChangedError,
    SourceError,
    Stream,
    check_name,
    is_confined,
    strong_etag,
    the_one_model,
)
from onnx_operator.model.sources.objectstore import Connected
from onnx_operator.model.sources.web.documents import LISTING, budget

OPEN_SECONDS = 18.0
"""Longest time to the first byte, all tries together."""
FIRST_DELAY_SECONDS = 0.2
_TRIES = 5
_STALL_SECONDS = 20.0
_MIN_PIECE_BYTES = 20 * 1024
"""The stream is read in pieces of at least this size, so that waiting for one too long is the limit of slowness."""
_MAX_PIECE_BYTES = 2 << 20
_FAST_SECONDS, _SLOW_SECONDS = 0.05, 1.0
_MAX_LISTED = 10_000
_PASSING = ("408", "425", "429")


class ObjectSource(Source):
    """One object, or the objects below a prefix, of a bucket. Subclasses open the store and know its words.

    Only the given credentials are used: without them requests are unsigned, and neither the environment nor a
    metadata service is asked, unless ``workload_identity`` says so. Raises :class:`SourceError` for a malformed URI,
    and for credentials that cannot be used.
    """

    part = ""
    """The part of the settings that counts."""
    container_word = "bucket"
    unauthorized_codes: frozenset[str] = frozenset()
    container_codes: frozenset[str] = frozenset()
    advice = ""
    """What to do about keys that were not accepted."""

    def __init__(
        self, uri: str, *, credentials: Mapping[str, str], settings: SourceSettings, workload_identity: bool = False
    ) -> None:
        found = self._connect(uri, credentials, settings, workload_identity)
        self.shown = uri
        self._container = found.container
        self._key = key = found.key
        self._store = found.store
        self._where = found.where
        self._signed = found.signed
        self._piece_bytes = _MIN_PIECE_BYTES
        self._ranges = True
        # A key that looks like no file may be one, or a folder: looked at once, when it matters.
        if key.endswith("/"):
            self._folder: str | None = key
        elif key.lower().endswith((".onnx", *ARCHIVE_ENDINGS)):
            self._folder = key[: key.rfind("/") + 1]
        else:
            self._folder = None

    def _connect(
        self, uri: str, credentials: Mapping[str, str], settings: SourceSettings, workload_identity: bool
    ) -> Connected:
        """Read the URI, and make the store. Raises :class:`SourceError`."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Nothing to let go: the connections belong to the store's object."""

    async def locate(self) -> list[str]:
        """Name the object of the URI, or the one model below its prefix."""
        folder = await self._in_folder()
        if not self._key.startswith(folder) or self._key == folder:
            return [the_one_model(await self._names(folder), self.shown)]
        return [self._key.removeprefix(folder)]

    async def listing(self) -> list[str] | None:
        """List the objects below the prefix, but for those without bytes that only stand for a folder."""
        folder = await self._in_folder()
        if self._key.startswith(folder) and self._key != folder:
            return None
        sizes = await self._listed(folder)
        names = sorted(sizes)

        def is_folder(name: str) -> bool:
            # Looked up, not made of all names: one of a kilobyte may lie in five hundred folders.
            within = name + "/"
            at = bisect_left(names, within)
            return at < len(names) and names[at].startswith(within)

        return [
            name for name, size in sizes.items() if name and not name.endswith("/") and (size or not is_folder(name))
        ]

    async def stat(self, name: str) -> FileStat:
        """Ask with HEAD."""
        return _stat(await self._get(await self._path(name), {"head": True}))

    @asynccontextmanager
    async def open(
        self, name: str, begin: int = 0, end: int | None = None, *, pin: SourcePin | None = None
    ) -> AsyncIterator[Stream]:
        """Read by one GET under the version or ETag of ``pin``."""
        wanted = None if pin is None or pin.kind == "None" else pin
        path = await self._path(name)
        options = _condition(wanted)
        if (begin or end is not None) and self._ranges:
            options["range"] = {"offset": begin} if end is None else (begin, end)
        result = await self._get(path, options, wanted)
        stat = _stat(result)
        # Not every store minds the condition; what it says it sends decides.
        if wanted is not None and stat.pin != wanted:
            raise self._changed(wanted, stat.pin)
        first, last = (int(offset) for offset in result.range)
        async with aclosing(self._pieces(result, last - first)) as pieces:
            yield Stream(stat, first, pieces)

    async def _pieces(self, result: Any, size: int) -> AsyncGenerator[memoryview, None]:
        stream = aiter(result.stream(min_chunk_size=min(self._piece_bytes, max(size, 1))))
        while size > 0:
            began = time.monotonic()
            try:
                async with asyncio.timeout(_STALL_SECONDS):
                    piece = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError:
                self._piece_bytes = _MIN_PIECE_BYTES
                raise BrokenStreamError(f"the stream stalled (too few bytes in {_STALL_SECONDS:g} s)") from None
            except (BaseError, OSError):
                raise BrokenStreamError("the connection broke in the middle") from None
            self._adapt(time.monotonic() - began)
            size -= len(piece)
            yield memoryview(piece)

    def _adapt(self, seconds: float) -> None:
        """Larger pieces cost less, but on a slow link a piece must come well within the time of a stall."""
        if seconds < _FAST_SECONDS:
            self._piece_bytes = min(2 * self._piece_bytes, _MAX_PIECE_BYTES)
        elif seconds > _SLOW_SECONDS:
            self._piece_bytes = _MIN_PIECE_BYTES

    async def _path(self, name: str) -> str:
        return await self._in_folder() + check_name(name, self.shown)

    async def _in_folder(self) -> str:
        if self._folder is None:
            parent = self._key[: self._key.rfind("/") + 1]
            try:
                await self._get(self._key, {"head": True})
                self._folder = parent
            except SourceError as error:
                if error.reason is not Reason.SOURCE_NOT_FOUND or not await self._names(self._key + "/"):
                    raise
                self._folder = self._key + "/"
        return self._folder

    async def _names(self, folder: str) -> list[str]:
        """Names of the objects directly in a folder, or else of all below it."""
        names = [name for name in await self._listed(folder) if is_confined(name)]
        here = [name for name in names if "/" not in name]
        return here if any(name.lower().endswith((".onnx", *ARCHIVE_ENDINGS)) for name in here) else names

    async def _listed(self, folder: str) -> dict[str, int]:
        """Bytes of all objects below a folder, by their names in it."""

        async def gather() -> dict[str, int]:
            names: dict[str, int] = {}
            size = 0
            async with budget().hold(LISTING.limit):
                async for listed in obstore.list(self._store, prefix=folder.removesuffix("/")):
                    found = {str(meta["path"]): int(meta["size"]) for meta in cast("Any", listed)}
                    # The mark of the folder itself is listed too.
                    found.pop(folder.removesuffix("/"), None)
                    page = {path.removeprefix(folder): size for path, size in found.items()}
                    size += sum(map(len, page))
                    names |= page
                    if len(names) > _MAX_LISTED:
                        raise SourceError(
                            Reason.SOURCE_REFUSED,
                            f"{self.shown} holds more than {_MAX_LISTED} objects; give the address of the model.",
                        )
                    if size > LISTING.limit:
                        raise LISTING.too_large(self.shown, size)
            return names

        gathered: dict[str, int] = await self._patiently(gather)
        return gathered

    async def _get(self, path: str, options: dict[str, Any], wanted: SourcePin | None = None) -> Any:
        """Open an object. Raises SourceError; SourceChangedError where the condition does not hold."""

        async def get() -> Any:
            try:
                return await obstore.get_async(self._store, path, options=cast("Any", options))
            except (BaseError, OSError) as error:
                text = str(error)
                if "range" in options and ("NotPartial" in text or (_status(text) == "416" and _from_start(options))):
                    # The store serves no ranges; or the object is empty, of which none can be asked for.
                    self._ranges = self._ranges and "NotPartial" not in text
                    return await obstore.get_async(self._store, path, options=cast("Any", _without(options, "range")))
                if options.get("head") and not isinstance(error, PreconditionError):
                    # HEAD has no body, and only the body tells a missing bucket from a missing key.
                    return await obstore.get_async(self._store, path, options=cast("Any", _without(options, "head")))
                raise

        try:
            return await self._patiently(get)
        except PreconditionError:
            if wanted is None:
                raise self._unreachable("it answered 412 without being given a condition") from None
        except SourceError as error:
            if wanted is None or wanted.kind != "Immutable" or error.reason is not Reason.SOURCE_NOT_FOUND:
                raise
        # The condition is unmet, or the version is gone: tell what is there now.
        raise self._changed(wanted, _stat(await self._get(path, {"head": True})).pin)

    async def _patiently(self, attempt: Callable[[], Any]) -> Any:
        """Try again what can pass, within OPEN_SECONDS. Raises SourceError, and PreconditionError."""
        began = time.monotonic()
        backoff = Backoff(FIRST_DELAY_SECONDS, factor=2.5)
        for attempts in range(1, _TRIES + 1):
            try:
                async with asyncio.timeout(began + OPEN_SECONDS - time.monotonic()):
                    return await attempt()
            except PreconditionError:
                raise
            except TimeoutError:
                raise self._unreachable("no answer in time") from None
            except (BaseError, OSError, ValueError) as error:
                translated = self._translate(error)
            pause = backoff.after(attempts)
            if not translated.retriable or attempts == _TRIES or time.monotonic() - began + pause > OPEN_SECONDS:
                raise translated from None
            await asyncio.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _changed(self, wanted: SourcePin, found: SourcePin | None) -> SourceChangedError:
        word = "version" if wanted.kind == "Immutable" else "strong ETag"
        return SourceChangedError.of(self.shown, word, wanted.value, found)

    def _special(self, text: str, status: str, code: str) -> SourceError | None:
        """What only this store says; None where the common words do."""
        return None

    def _translate(self, error: Exception) -> SourceError:
        text = str(error)
        status = _status(text)
        code = _first(r"<Code>\s*([A-Za-z0-9.]+)\s*</Code>", text)
        if special := self._special(text, status, code):
            return special
        # An identity that is not accepted where its token comes from.
        no_token = "token request" in text and status.startswith("4") and status not in _PASSING
        denied = no_token or isinstance(error, PermissionDeniedError | UnauthenticatedError)
        if code in self.unauthorized_codes or denied or status in ("401", "403"):
            have = (
                "The keys were not accepted"
                if self._signed
                else f"The {self.container_word} cannot be read without keys"
            )
            return SourceError(
                Reason.SOURCE_UNAUTHORIZED,
                f"{self.shown} may not be read ({code or 'access denied'}). {have}: {self.advice} in the Secret"
                " named in spec.model.credentials.secretName.",
            )
        if code in self.container_codes:
            return SourceError(
                Reason.SOURCE_NOT_FOUND,
                f"The {self.container_word} {self._container} of {self.shown} does not exist at {self._where}.",
            )
        if isinstance(error, FileNotFoundError) or status == "404":
            return SourceError(
                Reason.SOURCE_NOT_FOUND,
                f"{self.shown} does not exist: there is no such key in the {self.container_word} {self._container} at"
                f" {self._where}.{taken_literally(self.shown)}",
            )
        if status and status not in _PASSING and not status.startswith("5"):
            return SourceError(Reason.SOURCE_REFUSED, f"{self._where} answered {status} {code} for {self.shown}.")
        if isinstance(error, ValueError) or type(error).__name__ == "InvalidPathError":
            return SourceError(Reason.SOURCE_REFUSED, f"{self.shown} holds a key that cannot be read.")
        return self._unreachable(f"it answered {status} {code}".rstrip() if status else self._cause(text))

    def _unreachable(self, why: str) -> SourceError:
        return SourceError(
            Reason.SOURCE_UNREACHABLE,
            f"{self.shown} could not be read from {self._where}: {why}.",
            retriable=True,
        )

    def _cause(self, text: str) -> str:
        """Say what kept the connection from being made, from the error chain that obstore prints."""
        low = text.lower()
        if "dns" in low or "failed to lookup" in low:
            return "the endpoint's name does not resolve"
        if "certificate" in low or "unknownissuer" in low:
            return (
                f"the endpoint's certificate is not trusted; the setting sources.{self.part}.caBundle adds authorities"
            )
        if "connection refused" in low:
            return "the connection was refused"
        if "timed out" in low or "timedout" in low or "timeout," in low:
            return "no answer in time"
        if "connect" in low:
            return "no connection"
        return "the request failed"


def _stat(result: Any) -> FileStat:
    meta = cast("Mapping[str, Any]", result.meta)
    version = meta.get("version")
    # "null" is the id of every object written while versioning is off: it can be overwritten.
    if version and version != "null":
        pin: SourcePin | None = SourcePin(kind="Immutable", value=version)
    else:
        pin = strong_etag(meta.get("e_tag"))
    return FileStat(size=int(meta["size"]), pin=pin)


def _condition(pin: SourcePin | None) -> dict[str, Any]:
    if pin is None:
        return {}
    return {"version": pin.value} if pin.kind == "Immutable" else {"if_match": pin.value}


def _from_start(options: dict[str, Any]) -> bool:
    return isinstance(options["range"], tuple) and options["range"][0] == 0


def _without(options: dict[str, Any], name: str) -> dict[str, Any]:
    return {given: value for given, value in options.items() if given != name}


def _status(text: str) -> str:
    return _first(r"\bstatus(?: code)?: (\d{3})\b", text)


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""
