"""The HTTP layer: routes, limits and status codes around the data plane."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onnx_operator.server.dataplane.admission import Admission
from onnx_operator.server.dataplane.call import Call, Cancelled
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.jsonbody import encode, parse_object
from onnx_operator.server.http.score import score
from onnx_operator.server.lifecycle import Lifecycle
from onnx_operator.server.metrics import Metrics

Work = Callable[[dict[str, Any], Call], dict[str, Any]]


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may take."""

    max_body_bytes: int = 64 << 20
    request_timeout: float = 60.0
    """Seconds from a request's head to its answer, waiting included."""
    workers: int = 1
    """Inferences that run at once."""
    queue: int = 128
    """Requests that may wait for a worker."""


class Rest:
    """The server's ASGI application, its worker threads and its counters."""

    def __init__(self, plane: DataPlane, lifecycle: Lifecycle, metrics: Metrics, limits: Limits) -> None:
        self._plane = plane
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._limits = limits
        self._admission = Admission(limits.workers + limits.queue)
        self._pool = ThreadPoolExecutor(limits.workers, thread_name_prefix="inference")
        metrics.in_flight.set_function(lambda: self._admission.present)
        metrics.ready.set_function(lambda: float(lifecycle.ready))
        model = "/v2/models/{name}"
        versioned = model + "/versions/{version}"
        routes = [
            Route("/v2", self._server_metadata),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            Route("/score", self._score, methods=["POST"]),
            Route("/metrics", self._render_metrics),
        ]
        for path in (model, versioned):
            routes += [
                Route(path, self._model_metadata),
                Route(path + "/ready", self._model_ready),
                Route(path + "/infer", self._infer, methods=["POST"]),
            ]
        application = Starlette(
            routes=routes,
            exception_handlers={
                RequestError: _answer_request_error,
                HTTPException: _answer_http_error,
                Exception: _answer_bug,
            },
        )
        application.router.redirect_slashes = False
        self.application: ASGIApp = _Observed(application, metrics, lifecycle)

    @property
    def in_flight(self) -> int:
        """Scoring requests that have no answer yet."""
        return self._admission.present

    def close(self) -> None:
        """Let the worker threads end; what still runs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _server_metadata(self, request: Request) -> Response:
        return _json(self._plane.server_metadata())

    async def _live(self, request: Request) -> Response:
        return _json({"live": True})

    async def _ready(self, request: Request) -> Response:
        ready = self._lifecycle.ready
        return _json({"ready": ready, "phase": self._lifecycle.state}, 200 if ready else 503)

    async def _model_ready(self, request: Request) -> Response:
        self._plane.check_name(**request.path_params)
        ready = self._lifecycle.ready
        body = {"name": self._plane.name, "ready": ready, "phase": self._lifecycle.state}
        return _json(body, 200 if ready else 503)

    async def _model_metadata(self, request: Request) -> Response:
        self._plane.check_name(**request.path_params)
        return _json(self._plane.model_metadata())

    async def _render_metrics(self, request: Request) -> Response:
        return Response(self._metrics.render(), media_type=self._metrics.content_type)

    async def _infer(self, request: Request) -> Response:
        self._plane.check_name(**request.path_params)
        if "inference-header-content-length" in request.headers:
            raise RequestError("binary tensors are not supported; send the data as JSON")
        return await self._answer(request, self._plane.infer)

    async def _score(self, request: Request) -> Response:
        return await self._answer(request, lambda body, call: score(self._plane.model, body, call))

    async def _answer(self, request: Request, work: Work) -> Response:
        _ = self._plane.model  # 503 while loading, before the body is read
        try:
            with self._admission.place():
                return await self._within_time(request, work)
        except RequestError as error:
            if error.status == 503:
                self._metrics.rejected.inc()
            raise

    async def _within_time(self, request: Request, work: Work) -> Response:
        call = Call()

        def job(body: bytes) -> bytes:
            call.begin(lambda: None)
            return encode(work(parse_object(body), call))

        try:
            async with asyncio.timeout(self._limits.request_timeout):
                body = await _read(request, self._limits.max_body_bytes)
                # Parsing happens there too: a large body must not hold up the probes.
                answer = await asyncio.get_running_loop().run_in_executor(self._pool, job, body)
        except TimeoutError:
            raise RequestError(f"no answer within {self._limits.request_timeout:g} s", 504) from None
        except Cancelled:
            raise RequestError("the request was given up", 503) from None
        finally:
            # Without effect on a call that has ended.
            call.cancel()
        return Response(answer, media_type="application/json")


async def _read(request: Request, limit: int) -> bytes:
    too_large = RequestError(f"the body is larger than {limit} bytes", 413)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise too_large
    except ClientDisconnect:
        raise RequestError("the client went away", 499) from None
    return bytes(body)


def _json(value: object, status: int = 200) -> Response:
    return Response(encode(value), status, media_type="application/json")


def _error(message: str, status: int) -> Response:
    response = _json({"error": message}, status)
    if status == 503:
        response.headers["Retry-After"] = "1"
    if status == 413:
        # The rest of the body is never read.
        response.headers["Connection"] = "close"
    return response


async def _answer_request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _error(error.message, error.status)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {
        404: f"there is nothing at {request.url.path[:200]}",
        405: f"{request.method} is not allowed at {request.url.path[:200]}",
    }
    response = _error(messages.get(error.status_code, error.detail), error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _answer_bug(request: Request, error: Exception) -> Response:
    return _error("internal error; the server's log tells more", 500)


class _Observed:
    """Counts and times requests, and asks connections to close while the server drains."""

    def __init__(self, application: ASGIApp, metrics: Metrics, lifecycle: Lifecycle) -> None:
        self._application = application
        self._metrics = metrics
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        started = time.perf_counter()
        code = 500

        async def observe(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                if self._lifecycle.draining:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        inner: Callable[..., Awaitable[None]] = self._application
        try:
            await inner(scope, receive, observe)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(code)).inc()
            self._metrics.latency.labels(route).observe(time.perf_counter() - started)
