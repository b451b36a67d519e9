"""What is at which address: the Open Inference Protocol, ``/score``, its descriptions, metrics, and the page."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.codings import coding_of
from onnx_operator.server.http.exchange import Exchange
from onnx_operator.server.http.jsonbody import encode, parse_value
from onnx_operator.server.http.openapi import openapi, swagger
from onnx_operator.server.http.packing import Packer
from onnx_operator.server.http.readers import Readers
from onnx_operator.server.http.responses import JSON
from onnx_operator.server.http.scoring import Scoring
from onnx_operator.server.http.scripted import Script, Scripted
from onnx_operator.server.http.server import HttpServer
from onnx_operator.server.http.tasks import Tasks
from onnx_operator.server.http.triton import EXTENSIONS, configuration, index, statistics
from onnx_operator.server.lifecycle import Lifecycle
from onnx_operator.server.metrics import Metrics

SHORT_BODY = 4096
"""Bytes of a body that says one thing only."""


class Static(Protocol):
    """A file that is sent as it is; see :class:`onnx_operator.server.page.static.StaticFile`."""

    @property
    def content(self) -> bytes:
        """Its bytes."""

    @property
    def media_type(self) -> str:
        """What they are."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Further headers."""


@dataclass(frozen=True)
class Route:
    """One address."""

    handler: Callable[[Exchange], None]
    methods: tuple[bytes, ...] = (b"GET", b"HEAD")
    protocol: str = "other"
    scoring: bool = False
    """Whether its requests take a place."""
    public: bool = False
    """Whether they need no token."""
    of_model: bool = False
    """Whether they are for the model itself, so that none is left where a script answers."""


class Routes:
    """Answers requests: admits them by their head, then hands them to the data plane or the script."""

    def __init__(self, server: HttpServer, plane: DataPlane, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._server = server
        self._admission = server.admission
        self._plane = plane
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._readers = Readers(server, plane)
        self._packer = Packer(server, self._readers.pool)
        self._scoring = Scoring(server, plane, self._readers, self._packer)
        self._tasks = Tasks(server)
        self._loaded = False
        self._scripts = False
        """Whether a script answers in the model's place."""
        self.most_rows = 32
        """Rows of one run at most."""
        self.swagger: dict[str, Any] | None = None
        """The script's own description, where it has one."""
        self.example: dict[str, Any] | None = None
        """A feed that the model answers, as JSON values by input."""
        self._routes: dict[bytes, Route] = {
            b"/v2": Route(self._server_metadata),
            b"/v2/models": Route(lambda e: _json(e, {"models": [plane.name]})),
            b"/v2/models/stats": Route(self._statistics),
            b"/v2/repository/index": Route(self._index, (b"POST",)),
            b"/v2/health/live": Route(lambda e: _json(e, {"live": True}), public=True),
            b"/v2/health/ready": Route(self._ready, public=True),
            b"/metrics": Route(self._render_metrics, public=True),
            b"/score": Route(self._scoring.score, (b"POST",), "score", scoring=True),
            b"/invocations": Route(self._scoring.predict, (b"POST",), "score", scoring=True, of_model=True),
            b"/ping": Route(self._ready, public=True),
            b"/v1/models": Route(lambda e: _json(e, {"models": [plane.name]})),
            b"/v1/models/" + plane.name.encode(): Route(self._model_ready),
            b"/v1/models/" + plane.name.encode() + b":predict": Route(
                self._scoring.predict, (b"POST",), "score", scoring=True, of_model=True
            ),
            b"/swagger.json": Route(self._swagger),
            b"/openapi.json": Route(self._openapi),
        }
        model = b"/v2/models/" + plane.name.encode()
        for path in (model, model + b"/versions/" + plane.known_version.encode()):
            self._routes |= {
                path: Route(self._model_metadata, of_model=True),
                path + b"/config": Route(self._configuration, of_model=True),
                path + b"/stats": Route(self._statistics),
                path + b"/ready": Route(self._model_ready),
                path + b"/infer": Route(self._scoring.infer, (b"POST",), "rest", scoring=True, of_model=True),
            }
        server.use(self.admit, self.handle)

    def attach(self) -> None:
        """Begin to score: the data plane has its model."""
        self._scoring.attach()
        self._loaded = True

    def attach_script(self, script: Script, swagger: dict[str, Any] | None) -> None:
        """Begin to score with a script."""
        scripted = Scripted(script, self._server, self._plane, self._readers, self._packer, self._tasks)
        self._routes |= {p: replace(r, handler=self._scripted) for p, r in self._routes.items() if r.of_model}
        self._routes[b"/score"] = Route(scripted.score, (b"POST", b"GET", b"OPTIONS"), "score", scoring=True)
        self.swagger = swagger
        self._loaded = self._scripts = True

    def add_files(self, files: Mapping[str, Static]) -> None:
        """Serve files as they are."""
        for path, file in files.items():
            headers = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in file.headers.items())
            media_type = file.media_type.encode("latin-1")
            self._routes[path.encode()] = Route(
                lambda e, c=file.content, m=media_type, h=headers: e.answer(200, c, m, h),  # type: ignore[misc]
                public=True,
            )

    def add_json(self, path: str, value: object) -> None:
        """Serve a value as JSON."""
        content = encode(value)
        self._routes[path.encode()] = Route(lambda e: e.answer(200, content))

    def add_lazy(self, path: str, media_type: str, make: Callable[[], bytes]) -> None:
        """Serve what ``make`` gives, in a thread; it may raise :class:`RequestError`."""

        async def answer(exchange: Exchange) -> None:
            content = await asyncio.get_running_loop().run_in_executor(self._readers.pool, make)
            exchange.answer(200, content, media_type.encode("latin-1"))

        def handle(exchange: Exchange) -> None:
            self._tasks.start(exchange, answer(exchange))

        self._routes[path.encode()] = Route(handle)

    def close(self) -> None:
        """Let the threads end."""
        self._readers.close()

    # A request's head.

    def admit(self, exchange: Exchange) -> RequestError | None:
        """Find the route and refuse what its head says already."""
        route = self._routes.get(exchange.path)
        if route is None and b"%" in exchange.path:
            route = self._routes.get(unquote_to_bytes(exchange.path))
        server, admission = self._server, self._admission
        if route is None:
            return admission.check_token(exchange.headers.get(b"authorization", b"")) or self._missing(exchange)
        exchange.route = route
        exchange.unread = exchange.method != b"POST" and not route.scoring
        if exchange.method == b"OPTIONS" and server.cross_origin is not None:
            exchange.preflight = server.cross_origin.preflight(exchange.method, exchange.headers, route.methods)
            if exchange.preflight is not None:
                # Browsers send no token with it, and no body.
                exchange.unread = True
                return None
        exchange.protocol = route.protocol
        if admission.guarded and not route.public:
            refusal = admission.check_token(exchange.headers.get(b"authorization", b""))
            if refusal is not None:
                return refusal
        if exchange.method not in route.methods:
            method, path = exchange.method.decode("latin-1"), exchange.path[:200].decode("latin-1")
            return RequestError(f"{method} is not allowed at {path}", 405)
        if b"content-encoding" in exchange.headers and not exchange.unread:
            try:
                exchange.coding = coding_of(exchange.headers[b"content-encoding"])
            except RequestError as error:
                return error
        if route.scoring:
            if not self._loaded:
                return RequestError(f"model {self._plane.name} is still loading", 503)
            # Before its body is read, so that a full server holds few bodies.
            refusal = admission.take_place()
            exchange.admitted = refusal is None
            return refusal
        return None

    def _missing(self, exchange: Exchange) -> RequestError:
        path = exchange.path[:200].decode("utf-8", "replace")
        parts = unquote_to_bytes(exchange.path).decode("utf-8", "replace").split("/")
        if parts[:2] in (["", "v1"], ["", "v2"]) and parts[2:3] == ["models"] and len(parts) > 3 and parts[-1]:
            version = parts[5] if len(parts) > 5 and parts[4] == "versions" else None
            name = parts[3] if parts[1] == "v2" else parts[3].partition(":")[0]
            try:
                self._plane.check_name(name, version)
            except RequestError as error:
                return error
        return RequestError(f"there is nothing at {path}", 404)

    def handle(self, exchange: Exchange) -> None:
        """Answer a request that was admitted."""
        if exchange.preflight is not None:
            exchange.answer(200, b"", JSON, exchange.preflight)
        elif exchange.coding and exchange.body:
            self._readers.unpack(exchange, exchange.route.handler)
        else:
            exchange.route.handler(exchange)

    # Descriptions.

    def _ready(self, exchange: Exchange) -> None:
        ready = self._lifecycle.ready
        _json(exchange, {"ready": ready, "phase": self._lifecycle.state} | self._lifecycle.progress, _status(ready))

    def _model_ready(self, exchange: Exchange) -> None:
        ready = self._lifecycle.ready
        body = {"name": self._plane.name, "ready": ready, "phase": self._lifecycle.state}
        _json(exchange, body | self._lifecycle.progress, _status(ready))

    def _model_metadata(self, exchange: Exchange) -> None:
        self._packer.answer(exchange, encode(self._plane.model_metadata()))

    def _server_metadata(self, exchange: Exchange) -> None:
        described = self._plane.server_metadata()
        _json(exchange, described | {"extensions": [*described["extensions"], *EXTENSIONS]})

    def _configuration(self, exchange: Exchange) -> None:
        self._packer.answer(exchange, encode(configuration(self._plane, self.most_rows)))

    def _statistics(self, exchange: Exchange) -> None:
        _json(exchange, statistics(self._plane, self._metrics.scored()))

    def _index(self, exchange: Exchange) -> None:
        if len(exchange.body) > SHORT_BODY:
            raise RequestError('expected a short body such as {"ready": true}', 413)
        _json(exchange, index(self._plane, self._lifecycle, parse_value(exchange.body) if exchange.body else {}))

    def _render_metrics(self, exchange: Exchange) -> None:
        self._metrics.set_waiting(self._plane.waiting)
        exchange.answer(200, self._metrics.render(), self._metrics.content_type.encode())

    def _swagger(self, exchange: Exchange) -> None:
        self._packer.answer(exchange, encode(swagger(self._plane, self.example, self.swagger)))

    def _openapi(self, exchange: Exchange) -> None:
        self._packer.answer(exchange, encode(openapi(self._plane, self.example, self._scripts)))

    def _scripted(self, _: Exchange) -> None:
        raise RequestError(f"model {self._plane.name} is served by its scoring script; POST its input to /score", 404)


def _json(exchange: Exchange, value: object, status: int = 200) -> None:
    exchange.answer(status, encode(value), JSON, b"Retry-After: 1\r\n" if status == 503 else b"")


def _status(ready: bool) -> int:
    return 200 if ready else 503
