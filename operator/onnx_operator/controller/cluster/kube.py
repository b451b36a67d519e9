"""The API server, as the few calls the controller makes: get, list, watch, server-side apply, create, delete, log.

Objects are plain JSON. The kinds are known, so nothing is discovered and no discovery cache is written to disk.
What comes back is held to what was asked for: kind, namespace and name, and a bounded number of bytes at a time.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from kubernetes.aio import client, config
from yarl import URL

from onnx_operator import __version__
from onnx_operator.api import names
from onnx_operator.controller.cluster.answers import (
    ApiError,
    TooLongError,
    UnexpectedAnswerError,
    UnreadableError,
    api_error,
    as_asked,
    following_page,
    items_of,
    parsed_object,
    read_event,
    version_of,
)
from onnx_operator.controller.cluster.kinds import POD, Kind, Object
from onnx_operator.controller.cluster.naming import Labels, label_selector
from onnx_operator.controller.cluster.patience import Patience, before_writes

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_SECONDS = 30.0
_ANSWER_SECONDS = 2.0
"""More than a write is given, for the API server to say that the time is over: what nobody awaits may still be done."""

SMALL_BYTES = 256 * 1024
"""Answers of up to this size are read side by side. Larger ones take turns: only one is in memory at a time."""
PAGE_ITEMS = 100
SCAN_ITEMS = 500
"""Objects that are asked for at a time where all of a kind are read, each being cut to little as it comes."""
PAGE_BYTES = 8 * 1024 * 1024
"""Most that is read of a page of a list; one that takes more is asked for again with fewer objects."""
OBJECT_BYTES = 16 * 1024 * 1024
"""Most that is read of one object. etcd takes 1.5 MiB, of which JSON may make six bytes each (``\\u003c``)."""
ERROR_BYTES = 64 * 1024
LIST_ITEMS = 1000
LIST_BYTES = 64 * 1024 * 1024
"""Most that is read of a list that may be told in part."""
WATCH_SECONDS = 290
"""How long a watch is asked to last."""
SILENCE_SECONDS = 90.0
"""A watch that brings nothing for so long has stalled: the API server sends a bookmark about each minute."""
CONNECT_SECONDS = 10.0
LINE_SECONDS = 30.0
"""How long the rest of a large event may take, while others wait for their turn."""
GONE = 410
GATEWAY_TIMEOUT = 504
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches"""


def _unreached(error: aiohttp.ClientError) -> ConnectionError:
    return ConnectionError(f"the API server does not answer: {type(error).__name__}: {error}")


async def _told(response: aiohttp.ClientResponse) -> str:
    """The beginning of what an answer says."""
    data = bytearray()
    try:
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > ERROR_BYTES:
                del data[ERROR_BYTES:]
                break
    except aiohttp.ClientError as error:
        raise _unreached(error) from error
    return data.decode(errors="replace")


@dataclass(frozen=True)
class _Page:
    kept: list[Any]
    following: str
    size: int
    version: str = ""


async def _no_redirects(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    response = await handler(request)
    if 300 <= response.status <= 399:
        response.close()
        raise UnexpectedAnswerError(f"the API server redirects ({response.status}), which is not followed")
    return response


class Kube:
    """One connection pool to the API server, for the life of the process."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        api.user_agent = f"onnx-operator/{__version__}"
        # What waits for its turn waits in the network: the client would buffer 4 MiB of each answer.
        api.configuration.client_session_kwargs = {
            "read_bufsize": 64 * 1024,
            "middlewares": (_no_redirects,),
            "request_class": before_writes(lambda: self.may_write()),
        }
        self._turns = asyncio.Semaphore(1)
        self._patience = Patience()
        self.may_write: Callable[[], None] = lambda: None
        """Called right before each write but the Lease's own; raises where there may be none."""
        self.heard: Callable[[Kind, Object], None] = lambda kind, found: None
        """Told of every object that an answer to a write shows as it is then."""
        self.missed: Callable[[Kind, str, str, str], None] = lambda kind, namespace, name, uid: None
        """Told kind, namespace, name and UID of what an answer to a deletion says is gone for good."""

    @classmethod
    async def connect(cls, kubeconfig: str | None = None) -> Self:
        """Connect with a kubeconfig, or with the pod's service account when none is given."""
        configuration = client.Configuration()
        # Each watch keeps a connection for itself, and there are as many as kinds and namespaces.
        configuration.connection_pool_maxsize = 0
        if kubeconfig:
            await config.load_kube_config(kubeconfig, client_configuration=configuration)
        else:
            config.load_incluster_config(client_configuration=configuration)
        return cls(client.ApiClient(configuration))

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        most: int = OBJECT_BYTES,
        cut: bool = False,
        seconds: float = REQUEST_TIMEOUT_SECONDS,
    ) -> AsyncIterator[bytearray]:
        """A request, and its answer's body for as long as the block lasts.

        Args:
            method: of HTTP.
            path: as ``Kind.path`` makes it.
            query: what follows it.
            body: an object to send.
            content_type: of ``body``.
            accept: the form of the answer.
            most: bytes that are read of it.
            cut: whether a longer answer is cut there, instead of being an error.
            seconds: how long it may take altogether.

        Raises:
            ApiError: the API server refused.
            UnexpectedAnswerError: the answer is longer, or leads elsewhere.
            ConnectionError: it cannot be reached.
        """
        large = False
        async with AsyncExitStack() as stack:
            response = await stack.enter_async_context(
                self._answer(method, path, query, body, content_type=content_type, accept=accept, timeout=seconds)
            )
            data = bytearray()
            try:
                async for chunk in response.content.iter_any():
                    data += chunk
                    if len(data) > SMALL_BYTES and not large:
                        large = True
                        await stack.enter_async_context(self._turns)
                    if len(data) > most:
                        if not cut:
                            raise TooLongError(f"the API server's answer takes more than {most} bytes: {path}")
                        del data[most:]
                        break
            except aiohttp.ClientError as error:
                raise _unreached(error) from error
            yield data

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: aiohttp.ClientTimeout | float = REQUEST_TIMEOUT_SECONDS,  # noqa: ASYNC109 - the client's own
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A request, and its answer before its body is read; raises what a refusal tells."""
        request = await self._api.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            # Not compressed: a few bytes could become very many.
            header_params={"Accept": accept, "Content-Type": content_type, "Accept-Encoding": "identity"},
            body=body,
            auth_settings=["BearerToken"],
        )
        # Encoded already: what was checked is what is sent.
        url = URL(request[1], encoded=True)
        try:
            response = (await self._api.call_api(request[0], url, *request[2:], _request_timeout=timeout)).response
        except aiohttp.ClientError as error:
            # Not all of them are OSErrors; to everybody here they are one thing: the API server was not reached.
            raise _unreached(error) from error
        try:
            if not 200 <= response.status <= 299:
                raise api_error(response.status, response.reason or "", await _told(response))
            yield response
        finally:
            response.close()

    async def _object(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        seconds: float = REQUEST_TIMEOUT_SECONDS,
    ) -> Object:
        async with self._exchange(method, path, query, body, content_type=content_type, seconds=seconds) as answer:
            return await parsed_object(answer)

    async def _written(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object,
        content_type: str = "application/json",
    ) -> Object:
        """The answer to a write, which the API server is given a bounded time for.

        Raises:
            ApiError: the API server refused, or (504) has not done it in that time.
            TimeoutError: it says nothing at all.
        """
        seconds = self._patience.seconds(path)
        # Told to the API server, too: it calls off what nobody waits for any more.
        query = {**query, "timeout": f"{seconds:.0f}s"}
        began = time.monotonic()
        try:
            answer = await self._object(method, path, query, body, content_type, seconds + _ANSWER_SECONDS)
        except (ApiError, TimeoutError) as error:
            if not isinstance(error, ApiError) or error.status == GATEWAY_TIMEOUT:
                self._patience.late(path)
            raise
        self._patience.done(path, time.monotonic() - began)
        return answer

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object, or None where there is none.

        Raises:
            InvalidNameError: there can be none of this name.
            UnexpectedAnswerError: the answer is another object.
        """
        try:
            found = await self._object("GET", kind.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return as_asked(found, kind, namespace, name)

    async def list(
        self,
        kind: Kind,
        namespace: str,
        labels: Labels,
        keep: Callable[[Object], Any] = lambda item: item,
        *,
        in_part: bool = False,
    ) -> list[Any]:
        """The objects that carry these labels, each with apiVersion and kind; read page by page.

        Args:
            kind: of the objects.
            namespace: where they are.
            labels: all of which they carry.
            keep: what is kept of an object, None for nothing; called before the next page is read.
            in_part: whether the list may end after ``LIST_ITEMS`` kept objects or ``LIST_BYTES`` read.

        Raises:
            InvalidNameError: a label's value is none.
            UnexpectedAnswerError: an object of another kind or namespace is among them.
        """
        found: list[Any] = []
        size = 0
        async for page in self._pages(kind, namespace, labels, keep, PAGE_ITEMS):
            found += page.kept
            size += page.size
            if in_part and page.following and (len(found) >= LIST_ITEMS or size >= LIST_BYTES):
                logger.warning(
                    "too many or too large objects carry a label: not all of them are looked at",
                    extra={"kind": kind.kind, "namespace": namespace, "labelSelector": label_selector(labels)},
                )
                return found[:LIST_ITEMS]
        return found

    async def scan(self, kind: Kind, namespace: str | None, labels: Labels, see: Callable[[Object], None]) -> str:
        """Show all objects of a kind that carry these labels, as they were at one moment, page by page.

        Args:
            kind: of the objects.
            namespace: where they are; None for everywhere.
            labels: all of which they carry.
            see: gets each object, with apiVersion and kind; it must not keep it.

        Returns:
            the resourceVersion of that moment, from which :meth:`watch` goes on.

        Raises:
            ApiError: the API server refused; with status 410 where the moment is too long ago to go on with.
            UnexpectedAnswerError: an object of another kind or namespace is among them.
        """
        version = ""
        async for page in self._pages(kind, namespace, labels, see, SCAN_ITEMS):
            version = version or page.version
        if not version:
            raise UnexpectedAnswerError(f"the API server's list of {kind.plural} has no resourceVersion")
        return version

    async def watch(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Labels,
        version: str,
        see: Callable[[str, Object], None],
    ) -> None:
        """Show what happens to objects of a kind after ``version``, until the API server ends the watch.

        Args:
            kind: of the objects.
            namespace: where they are; None for everywhere.
            labels: all of which they carry; one that loses them is shown as deleted.
            version: a resourceVersion, of a scan or of the last event.
            see: gets each event's type (ADDED, MODIFIED, DELETED; BOOKMARK, whose object has only a resourceVersion)
                and object, in order; it must not keep it. First comes a BOOKMARK of ``version``, once the API server
                has answered. An object that cannot be read is shown as UNREADABLE.

        Raises:
            ApiError: the API server refused; with status 410 where ``version`` is too long ago.
            UnexpectedAnswerError: what came is no event, or is of another kind or namespace.
            ConnectionError, TimeoutError: it cannot be reached, or has stalled.
        """
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
            **({"labelSelector": label_selector(labels)} if labels else {}),
        }
        timeout = aiohttp.ClientTimeout(
            total=WATCH_SECONDS + SILENCE_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
        )
        async with self._answer("GET", kind.path(namespace), query, timeout=timeout) as response:
            see("BOOKMARK", {"metadata": {"resourceVersion": version}})
            try:
                async with aclosing(self._lines(response.content)) as lines:
                    async for line in lines:
                        if event := await read_event(line, kind, namespace):
                            see(*event)
            except aiohttp.ClientError as error:
                raise ConnectionError(f"the watch of {kind.plural} broke: {type(error).__name__}: {error}") from error

    async def _lines(self, content: aiohttp.StreamReader) -> AsyncGenerator[bytes]:
        """Lines of a bounded length; of large ones there is only one in memory, theirs or anybody's answer."""
        rest, holding = bytearray(), False
        try:
            while True:
                async with asyncio.timeout(LINE_SECONDS if holding else None):
                    chunk = await content.readany()
                if not chunk:
                    break
                searched = len(rest)
                rest += chunk
                if len(rest) > SMALL_BYTES and not holding:
                    await self._turns.acquire()
                    holding = True
                begin = 0
                while (end := rest.find(b"\n", max(begin, searched))) >= 0:
                    yield bytes(rest[begin:end])
                    begin = end + 1
                del rest[:begin]
                if len(rest) > OBJECT_BYTES:
                    raise TooLongError(f"an event of the API server's takes more than {OBJECT_BYTES} bytes")
                if holding and len(rest) <= SMALL_BYTES:
                    self._turns.release()
                    holding = False
        finally:
            if holding:
                self._turns.release()

    async def _pages(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Labels,
        keep: Callable[[Object], Any],
        limit: int,
    ) -> AsyncGenerator[_Page]:
        """The pages of a list; of fewer objects where they are large, and without one that cannot be read."""
        path, query = kind.path(namespace), {"labelSelector": label_selector(labels)} if labels else {}
        following = ""
        while True:
            asked = {**query, "limit": str(limit), **({"continue": following} if following else {})}
            try:
                page = await self._page(kind, namespace, path, asked, keep)
            except (TooLongError, UnreadableError):
                if limit > 1:
                    limit = max(1, limit // 4)
                    continue
                page = await self._passed_over(kind, namespace, path, asked)
            yield page
            following = page.following
            if not following:
                return

    async def _page(
        self, kind: Kind, namespace: str | None, path: str, query: Mapping[str, str], keep: Callable[[Object], Any]
    ) -> _Page:
        most = PAGE_BYTES if query["limit"] != "1" else OBJECT_BYTES
        async with self._exchange("GET", path, query, most=most) as answer:
            body = await parsed_object(answer)
            # Reduced while the turn lasts: afterwards another large answer may come.
            kept = [k for i in items_of(body, kind, namespace) if (k := keep(i))]
            return _Page(kept, following_page(body), len(answer), version_of(body))

    async def _passed_over(self, kind: Kind, namespace: str | None, path: str, query: Mapping[str, str]) -> _Page:
        """The page of one object that is too large, or too odd, to be read, without it."""
        async with self._exchange("GET", path, query, accept=METADATA_ONLY) as answer:
            body = await parsed_object(answer)
            told = [str((i.get("metadata") or {}).get("name"))[:253] for i in body.get("items") or []]
            logger.warning(
                "an object is too large or too odd to be read: it is passed over",
                extra={"kind": kind.kind, "namespace": namespace, "objects": told},
            )
            return _Page([], following_page(body), len(answer), version_of(body))

    async def apply(
        self,
        kind: Kind,
        manifest: Object,
        *,
        manager: str = names.FIELD_MANAGER,
        subresource: str | None = None,
        dry_run: bool = False,
        strict: bool = False,
    ) -> Object:
        """Server-side apply, taking over conflicting fields (KEP-555); returns the object as it is then."""
        query = {"fieldManager": manager, "force": "true"}
        if dry_run:
            query["dryRun"] = "All"
        if strict:
            query["fieldValidation"] = "Strict"
        metadata = manifest["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"], subresource)
        result = await self._written("PATCH", path, query, manifest, "application/apply-patch+yaml")
        found = as_asked(result, kind, metadata["namespace"], metadata["name"])
        return found if dry_run else self._told_of(kind, found)

    def _told_of(self, kind: Kind, found: Object) -> Object:
        self.heard(kind, found)
        return found

    async def create(self, kind: Kind, manifest: Object, *, dry_run: bool = False) -> Object:
        """Create an object (the API server names one without a name); with ``dry_run`` only tell what it would be."""
        metadata = manifest["metadata"]
        query = {"fieldManager": names.FIELD_MANAGER} | ({"dryRun": "All"} if dry_run else {})
        result = await self._written("POST", kind.path(metadata["namespace"]), query, manifest)
        found = as_asked(result, kind, metadata["namespace"], metadata.get("name"))
        return found if dry_run else self._told_of(kind, found)

    async def replace(self, kind: Kind, manifest: Object) -> Object:
        """Replace an object; fails with 409 when it has changed since it was read."""
        metadata = manifest["metadata"]
        result = await self._written("PUT", kind.path(metadata["namespace"], metadata["name"]), {}, manifest)
        return self._told_of(kind, as_asked(result, kind, metadata["namespace"], metadata["name"]))

    async def merge(self, kind: Kind, namespace: str, name: str, patch: Object) -> Object:
        """Change fields of an object (RFC 7386); with ``metadata.uid`` in the patch, of exactly this object."""
        query, form = {"fieldManager": names.FIELD_MANAGER}, "application/merge-patch+json"
        result = await self._written("PATCH", kind.path(namespace, name), query, patch, form)
        return self._told_of(kind, as_asked(result, kind, namespace, name))

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete exactly this object (by uid); one that is gone already, or is another by now, is left alone."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            answer = await self._written("DELETE", kind.path(namespace, name), {}, body)
        except ApiError as error:
            if error.status == 404:
                self.missed(kind, namespace, name, uid)
            elif error.status != 409:
                raise
            return
        if kind == POD or (answer.get("metadata") or {}).get("finalizers"):
            # Something waits for it: it is there still, on its way out.
            self._told_of(kind, as_asked(answer, kind, namespace, name))
        else:
            # Told by a Status, or by the object as it was.
            self.missed(kind, namespace, name, uid)

    async def log(self, namespace: str, pod: str, container: str, limit_bytes: int) -> str:
        """The first bytes of a container's log. The kubelet is asked for no more, and no more is read."""
        query = {"container": container, "limitBytes": str(limit_bytes)}
        async with self._exchange("GET", POD.path(namespace, pod, "log"), query, most=limit_bytes, cut=True) as answer:
            return answer.decode(errors="replace")
