"""``onnx-server serve``: listen, load, warm up, answer, drain."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import uvicorn

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import Phase, StartFacts
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.http.rest import Limits, Rest
from onnx_operator.server.lifecycle import Lifecycle
from onnx_operator.server.metrics import Metrics
from onnx_operator.server.termination import TerminationLog

if TYPE_CHECKING:
    from onnx_operator.server.runtime.session import Model

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServeSettings:
    """Everything ``serve`` is told. ``host`` ``::`` also listens on IPv4."""

    model: Path
    name: str
    version: str = ""
    host: str = "::"
    port: int = 8080
    providers: tuple[str, ...] = ("CPU",)
    intra_op_threads: int = 1
    inter_op_threads: int = 1
    limits: Limits = field(default_factory=Limits)
    drain_delay: float = 1.0
    """Seconds after SIGTERM in which new requests are still answered, while the word spreads."""
    drain_timeout: float = 20.0
    """Seconds that running requests then get."""


class _QuietServer(uvicorn.Server):
    """Leaves the process's signals to us: readiness has to fall before connections do."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Serving:
    """One run of the server, from listening to its exit code."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._lifecycle = Lifecycle()
        self._metrics = Metrics()
        self._plane = DataPlane(settings.name, settings.version)
        self._rest = Rest(self._plane, self._lifecycle, self._metrics, settings.limits)
        self._log = TerminationLog.from_environment()

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code. Raises OSError if it cannot listen."""
        listener = listen(self._settings.host, self._settings.port)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        self._enter(Phase.LOADING)
        server = _QuietServer(
            uvicorn.Config(
                self._rest.application,
                http="httptools",
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=max(1, round(self._settings.drain_timeout)),
            )
        )
        serving = asyncio.create_task(server.serve([listener]))
        logger.info("listening", extra={"fields": {"port": listener.getsockname()[1]}})
        stopping = asyncio.create_task(stop.wait())
        loading = asyncio.create_task(self._load())
        try:
            done, _ = await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if loading in done and not loading.result():
                return 1
            await asyncio.wait((stopping, serving), return_when=asyncio.FIRST_COMPLETED)
            await self._drain()
            return 0
        finally:
            for task in (stopping, loading):
                task.cancel()
            server.should_exit = True
            await serving
            self._rest.close()

    def _enter(self, phase: Phase) -> None:
        self._lifecycle.phase = phase
        self._log.enter(phase)

    async def _drain(self) -> None:
        self._lifecycle.draining = True
        logger.info("draining", extra={"fields": {"inFlight": self._rest.in_flight}})
        if self._lifecycle.phase is Phase.SERVING:
            await asyncio.sleep(self._settings.drain_delay)

    async def _load(self) -> bool:
        """Load and warm up in a thread of its own; false when the model cannot be served."""
        try:
            model, facts = await asyncio.wrap_future(_in_daemon(self._load_blocking))
        except Exception as error:
            cause = str(error) or type(error).__name__
            self._log.fail(Reason.LOAD_FAILED, cause)
            logger.error("the model cannot be served: %s", cause)
            return False
        self._metrics.load_seconds.set(facts.load_seconds)
        self._metrics.warm_up_seconds.set(facts.warm_up_seconds)
        providers = ",".join(facts.execution_providers)
        self._metrics.model_info.labels(self._settings.name, self._settings.version, providers).set(1)
        self._plane.attach(model)
        self._enter(Phase.SERVING)
        print(facts.model_dump_json(by_alias=True), file=sys.stdout, flush=True)
        return True

    def _load_blocking(self) -> tuple["Model", StartFacts]:
        # Imported here: the port answers before ONNX Runtime is in memory.
        from onnx_operator.server.runtime.session import SessionSettings, load
        from onnx_operator.server.runtime.warmup import warm_up

        settings = self._settings
        started = time.perf_counter()
        model = load(
            settings.model,
            SessionSettings(settings.providers, settings.intra_op_threads, settings.inter_op_threads),
        )
        loaded = time.perf_counter()
        self._enter(Phase.WARMING_UP)
        warm_up(model)
        facts = StartFacts(
            execution_providers=model.assignment.providers,
            fallback_operators=model.assignment.fallback_operators,
            load_seconds=round(loaded - started, 6),
            warm_up_seconds=round(time.perf_counter() - loaded, 6),
            resident_memory_bytes=resident_memory_bytes(),
        )
        return model, facts


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket. ``::`` serves both families, and IPv4 alone on a node without IPv6."""
    if host == "::" and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"  # noqa: S104 - a pod's own network namespace
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=host == "::")


def resident_memory_bytes() -> int:
    """Memory of this process as the kernel counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _in_daemon(function: Callable[[], T]) -> Future[T]:
    """Run in a thread that does not keep the process alive: a load cannot be interrupted."""
    future: Future[T] = Future()

    def target() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=target, name="load", daemon=True).start()
    return future
