"""What the operator watches: every event only puts the model's key on the queue.

No handler here makes kopf write anything: no finalizer, no annotation, no timer. None needs more of an object than its
metadata, so that is all that is asked for.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import kopf

from onnx_operator.api import names
from onnx_operator.controller.cluster.keys import ModelKey
from onnx_operator.controller.cluster.kube import CHILD_KINDS, CONFIG_MAP, CONTROLLER_REVISION, ONNX_MODEL, POD, Kind
from onnx_operator.controller.cluster.nesting import readable, shallow
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.cluster.wakes import model_key, woken

CHILD_DELAY_SECONDS = 0.1
"""Children change in bursts (a rollout touches a pod several times within moments): one look serves them all."""
FIRST_LISTING_SECONDS = 60.0
RELIST_DELAY_SECONDS = 5.0
WATCHED_CHILDREN = (*CHILD_KINDS, CONTROLLER_REVISION, POD)
CHUNK_ITEMS = 20
"""Objects of a listing that are in memory at a time. Labels and references alone can take 1.5 MiB of one."""
IDLE_SECONDS = 0.02
"""kopf keeps an object's last event for so long after its handler has ended."""
_WATCHED_PLURALS = frozenset(kind.plural for kind in (*WATCHED_CHILDREN, ONNX_MODEL, CONFIG_MAP))


def _resource(kind: Kind) -> tuple[str, str, str]:
    group, _, version = kind.api_version.rpartition("/")
    return group, version, kind.plural


async def _metadata_only(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Ask for the metadata of what is listed and watched, and for nothing else of it.

    https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches
    """
    if request.method == "GET" and request.url.name in _WATCHED_PLURALS:
        form = "PartialObjectMetadata" if request.url.query.get("watch") else "PartialObjectMetadataList"
        request.headers["Accept"] = f"application/json;as={form};g=meta.k8s.io;v=v1"
    return await handler(request)


class _Lines:
    """The body of a watch, in which each line can be read, however deeply its object is nested."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Whole lines, as kopf asks for chunks: it would have to put lines together itself."""
        rest = bytearray()
        async for chunk in self._content.iter_chunked(size):
            rest += chunk
            if (end := rest.rfind(b"\n", len(rest) - len(chunk)) + 1) > 0:
                lines = bytes(rest[:end])
                del rest[:end]
                for line in lines.splitlines(keepends=True):
                    yield await readable(line)
        if rest:
            yield await readable(bytes(rest))


class _Answer(aiohttp.ClientResponse):
    """An answer that can be read, whatever lies among the objects in it.

    A list of nothing is empty: the API server says null there when only metadata is asked for.
    """

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        await super().start(connection)
        if self.url.query.get("watch"):
            self.content = _Lines(self.content)  # type: ignore[assignment]
        return self

    async def json(self, **how: Any) -> Any:
        try:
            found = await super().json(**how)
        except RecursionError:
            # Away from the loop: it may be 30 MiB.
            self._body = await asyncio.to_thread(shallow, await self.read())
            found = await super().json(**how)
        if isinstance(found, dict) and "items" in found and found["items"] is None:
            found["items"] = []
        return found


def _session(info: kopf.ConnectionInfo) -> kopf.AiohttpSession:
    """The connection that kopf would make itself, but for what is asked through it."""
    return kopf.AiohttpSession(
        server=info.server,
        default_namespace=info.default_namespace,
        priority=info.priority,
        expiration=info.expiration,
        aiohttp_session=aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            # Not compressed: a few bytes could become very many.
            headers={**info.as_http_headers(), "Accept-Encoding": "identity"},
            proxy=info.proxy_url,
            trust_env=info.trust_env,
            middlewares=(_metadata_only,),
            response_class=_Answer,
        ),
    )


class _Relisting:
    """Looks at all known models some time after a watch began anew.

    kopf lists again when a watch was interrupted for too long, and says nothing of what was deleted in between.
    """

    def __init__(self, queue: KeyedQueue[ModelKey], known: Callable[[], list[ModelKey]]) -> None:
        self._queue = queue
        self._known = known
        self._began = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    def listed(self) -> None:
        """An object came from a listing."""
        first = time.monotonic() - self._began < FIRST_LISTING_SECONDS
        if not first and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(RELIST_DELAY_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        for key in self._known():
            self._queue.add(key)


def build_registry(
    queue: KeyedQueue[ModelKey], kubeconfig: str | None, known: Callable[[], list[ModelKey]], *, scripts: bool = True
) -> kopf.OperatorRegistry:
    """The kopf handlers: log in, and turn events into keys.

    Args:
        queue: gets the keys.
        kubeconfig: of the cluster; None inside one.
        known: the models that were looked at, and may be gone unnoticed.
        scripts: whether ConfigMaps with scoring scripts are watched, for which the operator needs a right.
    """
    registry = kopf.OperatorRegistry()
    relisting = _Relisting(queue, known)

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.AiohttpSession | None:
        info = kopf.login_with_kubeconfig(**kwargs) if kubeconfig else kopf.login_with_service_account(**kwargs)
        return _session(info) if info else None

    async def model_changed(namespace: str | None, name: str | None, type: str | None, **_: Any) -> None:  # noqa: A002
        if type is None:
            relisting.listed()
        if key := model_key(namespace, name):
            queue.add(key)

    async def child_changed(event: Any, type: str | None, **_: Any) -> None:  # noqa: A002
        if type is None:
            relisting.listed()
        for key in woken(event["object"]):
            queue.hint(key, CHILD_DELAY_SECONDS)

    async def script_changed(namespace: str | None, type: str | None, **_: Any) -> None:  # noqa: A002
        if type is None:
            relisting.listed()
        # Which models it belongs to is in their specs: few share a namespace, and a look costs no write.
        for key in known():
            if key[0] == namespace:
                queue.hint(key, CHILD_DELAY_SECONDS)

    if scripts:
        kopf.on.event(*_resource(CONFIG_MAP), registry=registry, id="configmaps")(script_changed)
    kopf.on.event(*_resource(ONNX_MODEL), registry=registry, id="model")(model_changed)
    for kind in WATCHED_CHILDREN:
        kopf.on.event(*_resource(kind), registry=registry, id=kind.plural)(child_changed)
    return registry


def build_settings() -> kopf.OperatorSettings:
    """Kopf's settings: watch what is ours, notice a stalled watch, write nothing."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = 290
    settings.watching.client_timeout = 300
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = CHUNK_ITEMS
    settings.networking.request_timeout = 30
    # Handlers only put keys on a queue: nothing is worth waiting for when the next leader waits.
    settings.queueing.idle_timeout = IDLE_SECONDS
    settings.queueing.exit_timeout = 0.2
    for kind in WATCHED_CHILDREN:
        settings.watching.label_selectors[_resource(kind)] = names.LABEL_MODEL
    settings.watching.label_selectors[_resource(CONFIG_MAP)] = f"{names.LABEL_SCORING}=true"
    return settings
