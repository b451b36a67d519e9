"""The API server, as the few calls the controller makes: get, list, server-side apply, create, delete, log.

Objects are plain JSON. The kinds are known, so nothing is discovered and no discovery cache is written to disk.
What comes back is held to what was asked for: kind, namespace and name, and a bounded number of bytes at a time.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from kubernetes.aio import client, config
from pydantic_core import from_json
from yarl import URL

from onnx_operator import __version__
from onnx_operator.api import names
from onnx_operator.controller.cluster.naming import label_selector, object_path
from onnx_operator.controller.cluster.nesting import parsed

logger = logging.getLogger(__name__)

Object = dict[str, Any]
REQUEST_TIMEOUT_SECONDS = 30

SMALL_BYTES = 256 * 1024
"""Answers of up to this size are read side by side. Larger ones take turns: only one is in memory at a time."""
PAGE_ITEMS = 100
PAGE_BYTES = 8 * 1024 * 1024
"""Most that is read of a page of a list; one that takes more is asked for again with fewer objects."""
OBJECT_BYTES = 16 * 1024 * 1024
"""Most that is read of one object. etcd takes 1.5 MiB, of which JSON may make six bytes each (``\\u003c``)."""
ERROR_BYTES = 64 * 1024
LIST_ITEMS = 1000
LIST_BYTES = 64 * 1024 * 1024
"""Most that is read of a list that may be told in part."""
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches"""


@dataclass(frozen=True)
class Kind:
    """A namespaced resource: where its objects live in the API."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection, an object, or an object's subresource.

        Raises:
            InvalidNameError: a part is no name that an object can have.
        """
        root = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        return object_path(root, self.plural, namespace, name, subresource)


ONNX_MODEL = Kind(names.API_VERSION, names.KIND, names.PLURAL)
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
CONTROLLER_REVISION = Kind("apps/v1", "ControllerRevision", "controllerrevisions")
SERVICE = Kind("v1", "Service", "services")
POD_DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
POD = Kind("v1", "Pod", "pods")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SECRET = Kind("v1", "Secret", "secrets")
EVENT = Kind("events.k8s.io/v1", "Event", "events")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")

CHILD_KINDS = (DEPLOYMENT, SERVICE, POD_DISRUPTION_BUDGET)
"""Kinds that a revision may hold; also those that are pruned."""
KINDS = {k.kind: k for k in (*CHILD_KINDS, CONTROLLER_REVISION)}


class ApiError(Exception):
    """The API server refused a call.

    ``status`` is the HTTP code, ``reason`` the machine-readable word of the API's Status object, where it sent one.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def invalid(self) -> bool:
        """Whether the object itself is at fault, so that sending it again cannot help.

        Server-side apply answers 500 to a field that the schema does not know
        (https://github.com/kubernetes/kubernetes/issues/125057).
        """
        return not self.by_webhook and (
            self.status in (400, 422) or "failed to create typed patch object" in self.message
        )

    @property
    def by_webhook(self) -> bool:
        """Whether an admission webhook refused, or could not be asked: it may change its mind."""
        return "admission webhook" in self.message or "failed calling webhook" in self.message

    @property
    def refused(self) -> bool:
        """Whether the API server will not have the object, for whatever reason."""
        return self.invalid or self.by_webhook or self.status == 403


class UnexpectedAnswerError(ConnectionError):
    """An answer that is not to what was asked, or is none of an API server's; to callers as good as no answer."""


class _TooLongError(UnexpectedAnswerError):
    """The answer takes more bytes than are read."""


class _UnreadableError(UnexpectedAnswerError):
    """The answer is no JSON that can be read: a number of thousands of digits, half a character."""


def _api_error(status: int, reason: str, body: str) -> ApiError:
    try:
        told = from_json(body)
    except ValueError:
        told = None
    fields: Object = told if isinstance(told, dict) else {}
    word, message = fields.get("reason"), fields.get("message") or body or reason or f"HTTP {status}"
    return ApiError(status, word if isinstance(word, str) else "", str(message)[:2000])


async def _parsed(body: bytearray) -> Object:
    try:
        found = await parsed(body)
    except ValueError as error:
        raise _UnreadableError(f"the API server's answer is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise UnexpectedAnswerError("the API server's answer is no JSON object")
    return found


def _is_map(value: object) -> bool:
    return value is None or isinstance(value, dict)


def _as_asked(found: Object, kind: Kind, namespace: str, name: str | None = None) -> Object:
    """The object, known to be of this kind, namespace and (where given) name.

    Raises:
        UnexpectedAnswerError: it is another one, and nothing in it may be believed.
    """
    metadata = found.get("metadata")
    if not isinstance(metadata, dict):
        raise UnexpectedAnswerError(f"the API server's answer is no {kind.kind}: it has no metadata")
    asked = (kind.api_version, kind.kind, namespace, name or metadata.get("name"))
    got = (found.get("apiVersion"), found.get("kind"), metadata.get("namespace"), metadata.get("name"))
    if got != asked:
        raise UnexpectedAnswerError(f"the API server was asked for {asked} and answers with {str(got)[:500]}")
    uid, references = metadata.get("uid"), metadata.get("ownerReferences")
    if not (isinstance(got[3], str) and isinstance(uid, str) and 0 < len(uid) <= 253):
        raise UnexpectedAnswerError(f"the API server's answer has no name or no UID: {str(got)[:500]}")
    if not (_is_map(metadata.get("labels")) and _is_map(metadata.get("annotations"))) or not (
        references is None or (isinstance(references, list) and all(isinstance(r, dict) for r in references))
    ):
        raise UnexpectedAnswerError(f"the API server's answer has metadata of a wrong form: {str(got)[:500]}")
    return found


@dataclass(frozen=True)
class _Page:
    kept: list[Any]
    following: str
    size: int


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
        api.configuration.client_session_kwargs = {"read_bufsize": 64 * 1024, "middlewares": (_no_redirects,)}
        self._turns = asyncio.Semaphore(1)

    @classmethod
    async def connect(cls, kubeconfig: str | None = None) -> Self:
        """Connect with a kubeconfig, or with the pod's service account when none is given."""
        configuration = client.Configuration()
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

        Raises:
            ApiError: the API server refused.
            UnexpectedAnswerError: the answer is longer, or leads elsewhere.
            ConnectionError: it cannot be reached.
        """
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
        async with AsyncExitStack() as stack:
            try:
                response = (
                    await self._api.call_api(request[0], url, *request[2:], _request_timeout=REQUEST_TIMEOUT_SECONDS)
                ).response
                stack.callback(response.close)
                fine = 200 <= response.status <= 299
                limit = most if fine else ERROR_BYTES
                data = bytearray()
                large = False
                async for chunk in response.content.iter_any():
                    data += chunk
                    if len(data) > SMALL_BYTES and not large:
                        large = True
                        await stack.enter_async_context(self._turns)
                    if len(data) > limit:
                        if fine and not cut:
                            raise _TooLongError(f"the API server's answer takes more than {limit} bytes: {path}")
                        del data[limit:]
                        break
            except aiohttp.ClientError as error:
                # Not all of them are OSErrors; to everybody here they are one thing: the API server was not reached.
                raise ConnectionError(f"the API server does not answer: {type(error).__name__}: {error}") from error
            if not fine:
                raise _api_error(response.status, response.reason or "", data.decode(errors="replace"))
            yield data

    async def _object(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        async with self._exchange(method, path, query, body, content_type=content_type) as answer:
            return await _parsed(answer)

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
        return _as_asked(found, kind, namespace, name)

    async def list(
        self,
        kind: Kind,
        namespace: str,
        labels: Mapping[str, str],
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
        path, query = kind.path(namespace), {"labelSelector": label_selector(labels)}
        where = {"kind": kind.kind, "namespace": namespace, **query}
        found: list[Any] = []
        limit, following, size = PAGE_ITEMS, "", 0
        while True:
            asked = {**query, "limit": str(limit), **({"continue": following} if following else {})}
            try:
                page = await self._page(kind, namespace, path, asked, keep)
            except (_TooLongError, _UnreadableError):
                if limit > 1:
                    limit = max(1, limit // 4)
                    continue
                page = await self._passed_over(kind, namespace, path, asked)
            found += page.kept
            size += page.size
            following = page.following
            if not following:
                return found
            if in_part and (len(found) >= LIST_ITEMS or size >= LIST_BYTES):
                logger.warning(
                    "too many or too large objects carry a label: not all of them are looked at", extra=where
                )
                return found[:LIST_ITEMS]

    async def _page(
        self, kind: Kind, namespace: str, path: str, query: Mapping[str, str], keep: Callable[[Object], Any]
    ) -> _Page:
        most = PAGE_BYTES if query["limit"] != "1" else OBJECT_BYTES
        async with self._exchange("GET", path, query, most=most) as answer:
            body = await _parsed(answer)
            # Reduced while the turn lasts: afterwards another large answer may come.
            return _Page([k for i in _items(body, kind, namespace) if (k := keep(i))], _following(body), len(answer))

    async def _passed_over(self, kind: Kind, namespace: str, path: str, query: Mapping[str, str]) -> _Page:
        """The page of one object that is too large, or too odd, to be read, without it."""
        async with self._exchange("GET", path, query, accept=METADATA_ONLY) as answer:
            body = await _parsed(answer)
            told = [str((i.get("metadata") or {}).get("name"))[:253] for i in body.get("items") or []]
            logger.warning(
                "an object is too large or too odd to be read: it is passed over",
                extra={"kind": kind.kind, "namespace": namespace, "objects": told},
            )
            return _Page([], _following(body), len(answer))

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
        result = await self._object("PATCH", path, query, manifest, "application/apply-patch+yaml")
        return _as_asked(result, kind, metadata["namespace"], metadata["name"])

    async def create(self, kind: Kind, manifest: Object, *, dry_run: bool = False) -> Object:
        """Create an object (the API server names one without a name); with ``dry_run`` only tell what it would be."""
        metadata = manifest["metadata"]
        query = {"fieldManager": names.FIELD_MANAGER} | ({"dryRun": "All"} if dry_run else {})
        result = await self._object("POST", kind.path(metadata["namespace"]), query, manifest)
        return _as_asked(result, kind, metadata["namespace"], metadata.get("name"))

    async def replace(self, kind: Kind, manifest: Object) -> Object:
        """Replace an object; fails with 409 when it has changed since it was read."""
        metadata = manifest["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"])
        return _as_asked(await self._object("PUT", path, None, manifest), kind, metadata["namespace"], metadata["name"])

    async def merge(self, kind: Kind, namespace: str, name: str, patch: Object) -> Object:
        """Change fields of an object (RFC 7386); with ``metadata.uid`` in the patch, of exactly this object."""
        query, form = {"fieldManager": names.FIELD_MANAGER}, "application/merge-patch+json"
        return _as_asked(
            await self._object("PATCH", kind.path(namespace, name), query, patch, form), kind, namespace, name
        )

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete exactly this object (by uid); one that is gone already, or is another by now, is left alone."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            await self._object("DELETE", kind.path(namespace, name), None, body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def log(self, namespace: str, pod: str, container: str, limit_bytes: int) -> str:
        """The first bytes of a container's log. The kubelet is asked for no more, and no more is read."""
        query = {"container": container, "limitBytes": str(limit_bytes)}
        async with self._exchange("GET", POD.path(namespace, pod, "log"), query, most=limit_bytes, cut=True) as answer:
            return answer.decode(errors="replace")


def _items(body: Object, kind: Kind, namespace: str) -> list[Object]:
    items = body.get("items") or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UnexpectedAnswerError(f"the API server's answer is no list of {kind.plural}")
    # Objects in a list of built-in kinds leave both out.
    typed = ({"apiVersion": kind.api_version, "kind": kind.kind} | item for item in items)
    return [_as_asked(item, kind, namespace) for item in typed]


def _following(body: Object) -> str:
    metadata = body.get("metadata")
    token = metadata.get("continue") if isinstance(metadata, dict) else None
    return token if isinstance(token, str) else ""
