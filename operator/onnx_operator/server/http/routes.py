"""What is at which address: the Open Inference Protocol, ``/score``, its descriptions, metrics, and the page."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import local
from time import monotonic
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from onnx_operator.server.dataplane.budget import Account
from onnx_operator.server.dataplane.inference import Inference
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.dataplane.sizes import feed_bytes, strings_of, thorough_bytes, written_bytes
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.connection import Exchange
from onnx_operator.server.http.jsonbody import encode, parse_object
from onnx_operator.server.http.openapi import openapi, swagger
from onnx_operator.server.http.openinference import Codec, Form, Reserve
from onnx_operator.server.http.responses import JSON
from onnx_operator.server.http.score import read_score, write_score
from onnx_operator.server.http.server import HttpServer
from onnx_operator.server.lifecycle import Lifecycle
from onnx_operator.server.metrics import Metrics
from onnx_operator.server.runtime.malloc import release_memory

LARGE_BODY = 256 * 1024
"""Bytes from which a body is parsed in a thread: parsing it on the loop would hold up the probes."""
HUGE_BODY = 4 << 20
"""Bytes from which bodies have a thread of their own: those that are read in a moment need not wait for them."""
PARSERS = 2
"""Threads for the large ones that are not huge."""
TRIMMED = 4 << 20
"""Bytes of memory from which what a request has taken is given back to the system at once."""
LARGE_ANSWER = 64 * 1024
"""Elements from which the memory for writing an answer is counted."""
SCRIPT_FACTOR = 40
"""Bytes that a script may make of a byte of JSON."""
T = TypeVar("T")


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


class Script(Protocol):
    """A scoring script in its own process; see :class:`onnx_operator.server.script.host.ScriptHost`."""

    async def score(
        self,
        body: bytes,
        headers: Mapping[str, str] | list[tuple[str, str]],
        method: str = "POST",
        target: str = "/score",
        seconds: float = 5.0,
        released: Callable[[], None] = lambda: None,
    ) -> Any:
        """Its answer, whatever happens: ``status``, ``headers`` (pairs) and ``body``.

        ``released`` is called once the script has let go of the body, which may be later.
        """


@dataclass(frozen=True)
class Route:
    """One address. ``scoring`` requests are counted and limited; ``public`` ones need no token."""

    handler: Callable[[Exchange], None]
    methods: tuple[bytes, ...] = (b"GET", b"HEAD")
    protocol: str = "other"
    scoring: bool = False
    public: bool = False


class Routes:
    """Answers requests: admits them by their head, then hands them to the data plane or the script."""

    def __init__(self, server: HttpServer, plane: DataPlane, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._server = server
        self._plane = plane
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._codec: Codec | None = None
        self._budget = server.budget
        self._of_thread = local()
        self._parsers = ThreadPoolExecutor(PARSERS, thread_name_prefix="parsing")
        self._huge = ThreadPoolExecutor(1, thread_name_prefix="parsing-huge")
        self._strings = False
        self._numeric = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._script: Script | None = None
        self.swagger: dict[str, Any] | None = None
        """The script's own description, where it has one."""
        self.example: dict[str, Any] | None = None
        """A feed that the model answers, as JSON values by input."""
        self._routes: dict[bytes, Route] = {
            b"/v2": Route(lambda e: _json(e, plane.server_metadata())),
            b"/v2/health/live": Route(lambda e: _json(e, {"live": True}), public=True),
            b"/v2/health/ready": Route(self._ready, public=True),
            b"/metrics": Route(self._render_metrics, public=True),
            b"/score": Route(self._score, (b"POST",), "score", scoring=True),
            b"/swagger.json": Route(self._swagger),
            b"/openapi.json": Route(self._openapi),
        }
        model = b"/v2/models/" + plane.name.encode()
        for path in (model, model + b"/versions/" + plane.version.encode()) if plane.version else (model,):
            self._routes |= {
                path: Route(self._model_metadata),
                path + b"/ready": Route(self._model_ready),
                path + b"/infer": Route(self._infer, (b"POST",), "rest", scoring=True),
            }
        server.use(self.admit, self.handle)

    def attach(self) -> None:
        """Begin to score: the data plane has its model."""
        model = self._plane.model
        self._codec = Codec(model, self._plane.name, self._plane.version)
        # Threads make codecs of their own, which must be of this model as well.
        self._of_thread = local()
        self._numeric = all(info.datatype not in (None, "BYTES") for info in model.outputs)
        self._strings = any(info.datatype == "BYTES" for info in model.inputs)

    def attach_script(self, script: Script, swagger: dict[str, Any] | None) -> None:
        """Begin to score with a script."""
        self._script = script
        self.swagger = swagger
        self._routes[b"/score"] = Route(self._score, (b"POST", b"GET", b"OPTIONS"), "score", scoring=True)

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
            content = await asyncio.get_running_loop().run_in_executor(self._parsers, make)
            exchange.answer(200, content, media_type.encode("latin-1"))

        def handle(exchange: Exchange) -> None:
            self._in_task(exchange, answer(exchange))

        self._routes[path.encode()] = Route(handle)

    def close(self) -> None:
        """Let the threads end."""
        self._parsers.shutdown(wait=False, cancel_futures=True)
        self._huge.shutdown(wait=False, cancel_futures=True)

    # A request's head.

    def admit(self, exchange: Exchange) -> RequestError | None:
        """Find the route and refuse what its head says already."""
        route = self._routes.get(exchange.path)
        if route is None and b"%" in exchange.path:
            route = self._routes.get(unquote_to_bytes(exchange.path))
        server = self._server
        if route is None:
            return server.check_token(exchange.headers.get(b"authorization", b"")) or self._missing(exchange)
        exchange.route = route
        exchange.protocol = route.protocol
        if server.guarded and not route.public:
            refusal = server.check_token(exchange.headers.get(b"authorization", b""))
            if refusal is not None:
                return refusal
        if exchange.method not in route.methods:
            method, path = exchange.method.decode("latin-1"), exchange.path[:200].decode("latin-1")
            return RequestError(f"{method} is not allowed at {path}", 405)
        if route.scoring:
            if b"content-encoding" in exchange.headers and exchange.headers[b"content-encoding"] != b"identity":
                return RequestError("compressed bodies (Content-Encoding) are not understood; send it as it is", 415)
            if self._codec is None and self._script is None:
                return RequestError(f"model {self._plane.name} is still loading", 503)
            return server.take_place(exchange)
        return None

    def _missing(self, exchange: Exchange) -> RequestError:
        path = exchange.path[:200].decode("utf-8", "replace")
        parts = unquote_to_bytes(exchange.path).decode("utf-8", "replace").split("/")
        if parts[:3] == ["", "v2", "models"] and len(parts) > 3 and parts[-1]:
            version = parts[5] if len(parts) > 5 and parts[4] == "versions" else None
            try:
                self._plane.check_name(parts[3], version)
            except RequestError as error:
                return error
        return RequestError(f"there is nothing at {path}", 404)

    def handle(self, exchange: Exchange) -> None:
        """Answer a request that was admitted."""
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
        if self._script is not None:
            raise self._scripted()
        _json(exchange, self._plane.model_metadata())

    def _render_metrics(self, exchange: Exchange) -> None:
        self._metrics.set_present(self._server.in_flight, self._plane.waiting)
        exchange.answer(200, self._metrics.render(), self._metrics.content_type.encode())

    def _swagger(self, exchange: Exchange) -> None:
        _json(exchange, swagger(self._plane, self.example, self.swagger if self._script is not None else None))

    def _openapi(self, exchange: Exchange) -> None:
        _json(exchange, openapi(self._plane, self.example, self._script is not None))

    # Scoring.

    def _infer(self, exchange: Exchange) -> None:
        codec = self._codec
        if codec is None:
            raise self._scripted()
        header_length = exchange.headers.get(b"inference-header-content-length")
        body = exchange.body
        if len(body) > LARGE_BODY:

            def start(read: tuple[Inference, Form], account: Account) -> None:
                inference, form = read
                inference.budget, inference.charged = self._budget, account.keep(feed_bytes(inference.feed))
                self._start_infer(exchange, inference, form)

            self._read_apart(
                exchange, lambda reserve: self._own_codec().read_large(body, header_length, reserve), start
            )
            return
        inference, form = codec.read(body, header_length)
        if self._strings:
            self._hand_over(exchange, inference)
        self._start_infer(exchange, inference, form)

    def _own_codec(self) -> Codec:
        """A codec of this thread's own."""
        codec: Codec | None = getattr(self._of_thread, "codec", None)
        if codec is None:
            codec = self._of_thread.codec = Codec(self._plane.model, self._plane.name, self._plane.version)
        return codec

    def _hand_over(self, exchange: Exchange, inference: Inference) -> None:
        """Let the inference hold what the request holds of the budget, and what its strings take besides."""
        extra = strings_of(inference.feed)
        if not self._budget.take(extra):
            raise self._budget.refusal(extra)
        inference.budget, inference.charged = self._budget, extra + self._server.settle(exchange)

    def _read_apart(self, exchange: Exchange, read: Callable[[Reserve], T], then: Callable[[T, Account], None]) -> None:
        """Read a body in a thread and go on with ``then`` on the event loop, or refuse it when its time is over.

        What the body holds of the budget stays held until the thread has let go of it, whatever became of the caller.
        """
        account = Account(self._budget, self._server.settle(exchange))
        loop = asyncio.get_running_loop()
        pool = self._huge if len(exchange.body) > HUGE_BODY else self._parsers
        exchange.body = b""

        def work() -> T | RequestError:
            outcome: T | RequestError
            try:
                outcome = read(account.reserve) if not exchange.answered else RequestError("the caller has gone", 499)
            except RequestError as error:
                # Without the frames that it passed, which hold all that was read.
                error.__context__ = None
                outcome = error.with_traceback(None)
            if account.held > TRIMMED:
                # What is given back to the budget is given back to the system first: the next one may take it in
                # another thread, whose heap is another.
                release_memory()
            return outcome

        def ended(done: "Future[T | RequestError]") -> None:
            # What is cancelled lets go of its callback: no circle of references keeps the feed until garbage is
            # collected.
            timer.cancel()
            exchange.call = None
            self._go_on(exchange, done, account, then)

        def late() -> None:
            future.cancel()
            exchange.fail(RequestError("the body could not be read in time; try again shortly, or send less", 503))

        future = pool.submit(work)
        timer = loop.call_later(max(0.0, exchange.started + self._plane.timeout - monotonic()), late)
        exchange.call = future

        def tell(done: "Future[T | RequestError]") -> None:
            # The loop may be closed: then nobody waits for this.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(ended, done)

        future.add_done_callback(tell)

    def _go_on(
        self,
        exchange: Exchange,
        future: "Future[T | RequestError]",
        account: Account,
        then: Callable[[T, Account], None],
    ) -> None:
        try:
            if not exchange.answered and not future.cancelled():
                outcome = future.result()
                if isinstance(outcome, RequestError):
                    raise outcome
                then(outcome, account)
        except RequestError as error:
            exchange.fail(error)
        except Exception as fault:
            self._server.report(fault)
            exchange.fail(RequestError("the server failed on this request", 500))
        finally:
            account.keep(0)

    def _start_infer(self, exchange: Exchange, inference: Inference, form: Form) -> None:
        codec = self._codec
        assert codec is not None

        def write(results: list[Any]) -> None:
            body, header_length = codec.write(form, results)
            if header_length is None:
                exchange.answer(200, body)
            else:
                length = b"Inference-Header-Content-Length: %d\r\n" % header_length
                exchange.answer(200, body, b"application/octet-stream", length)

        self._start(exchange, inference, write, form.binary)

    def _write(self, results: list[Any], write: Callable[[list[Any]], None], raw: Sequence[bool]) -> None:
        """Write an answer that is not small, with its memory counted."""
        amount = written_bytes(results, raw=bool(raw) and all(raw))
        if not self._budget.take(amount):
            raise self._budget.refusal(amount)
        try:
            write(results)
        finally:
            self._budget.give(amount)

    def _start(
        self, exchange: Exchange, inference: Inference, write: Callable[[list[Any]], None], raw: Sequence[bool] = ()
    ) -> None:
        numeric = self._numeric

        def done(results: list[Any] | None, error: RequestError | None) -> None:
            try:
                if error is not None:
                    exchange.fail(error)
                else:
                    assert results is not None
                    elements = 0 if numeric else LARGE_ANSWER
                    if numeric:
                        for result in results:
                            elements += result.size
                    if elements < LARGE_ANSWER:
                        write(results)
                    else:
                        self._write(results, write, raw)
            except RequestError as refused:
                exchange.fail(refused)
            except Exception as fault:
                self._server.report(fault)
                exchange.fail(RequestError("the server failed on this request", 500))

        if exchange.answered:
            inference.release()
        else:
            exchange.call = self._plane.start(inference, done, exchange.started + self._plane.timeout)

    def _score(self, exchange: Exchange) -> None:
        if self._script is not None:
            if len(exchange.body) <= LARGE_BODY:
                account = Account(self._budget, self._server.settle(exchange))
                try:
                    account.reserve(SCRIPT_FACTOR * len(exchange.body))
                except RequestError:
                    account.keep(0)
                    raise
                self._start_script(exchange, self._script, exchange.body, account)
            else:
                self._estimate_script(exchange, self._script, exchange.body)
        elif len(exchange.body) > LARGE_BODY:
            body = exchange.body

            def read(reserve: Reserve) -> Inference:
                reserve(thorough_bytes(body))
                return read_score(self._plane.model, parse_object(body))

            def start(inference: Inference, account: Account) -> None:
                inference.budget, inference.charged = self._budget, account.keep(feed_bytes(inference.feed))
                self._start_score(exchange, inference)

            self._read_apart(exchange, read, start)
        else:
            inference = read_score(self._plane.model, parse_object(exchange.body))
            if self._strings:
                self._hand_over(exchange, inference)
            self._start_score(exchange, inference)

    def _start_score(self, exchange: Exchange, inference: Inference) -> None:
        self._start(
            exchange,
            inference,
            lambda results: exchange.answer(200, encode(write_score(inference.outputs, results))),
        )

    def _estimate_script(self, exchange: Exchange, script: Script, body: bytes) -> None:
        """Run the script with a large body if there is memory for what it makes of it, should that be JSON."""

        def start(_: None, account: Account) -> None:
            # Of its own: that of the reading ends with it.
            own = Account(self._budget, account.held)
            account.held = 0
            self._start_script(exchange, script, body, own)

        self._read_apart(exchange, lambda reserve: reserve(4 * len(body) + thorough_bytes(body)), start)

    def _start_script(self, exchange: Exchange, script: Script, body: bytes, account: Account) -> None:
        handed = False

        def release() -> None:
            account.keep(0)

        async def run() -> None:
            nonlocal handed
            handed = True
            await self._run_script(exchange, script, body, release)

        task = self._in_task(exchange, run())
        # A task that is cancelled before it begins runs nothing at all.
        task.add_done_callback(lambda _: None if handed else release())

    async def _run_script(self, exchange: Exchange, script: Script, body: bytes, release: Callable[[], None]) -> None:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in exchange.headers.items()]
        target = exchange.path + (b"?" + exchange.query if exchange.query else b"")
        exchange.body = b""
        answer = await script.score(
            body,
            headers,
            exchange.method.decode("latin-1"),
            target.decode("latin-1"),
            max(0.0, exchange.started + self._plane.timeout - monotonic()),
            release,
        )
        media_type, lines = JSON, b""
        for name, value in answer.headers:
            if name.lower() == "content-type":
                media_type = value.encode("latin-1", "replace")
            elif name.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                lines += f"{name}: {value}\r\n".encode("latin-1", "replace")
        exchange.answer(answer.status, answer.body, media_type, lines)

    def _in_task(self, exchange: Exchange, work: Any) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                await work
            except RequestError as error:
                exchange.fail(error)
            except Exception as fault:
                self._server.report(fault)
                exchange.fail(RequestError("the server failed on this request", 500))

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        exchange.call = exchange.call or task
        return task

    def _scripted(self) -> RequestError:
        return RequestError(f"model {self._plane.name} is served by its scoring script; POST its input to /score", 404)


def _json(exchange: Exchange, value: object, status: int = 200) -> None:
    exchange.answer(status, encode(value), JSON, b"Retry-After: 1\r\n" if status == 503 else b"")


def _status(ready: bool) -> int:
    return 200 if ready else 503
