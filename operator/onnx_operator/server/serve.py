"""``onnx-server serve``: listen, load, warm up, test, answer, drain."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import Phase, StartFacts, WarmUpFacts
from onnx_operator.api.warm_up import WarmUpInputs
from onnx_operator.common.cgroups import memory_limit
from onnx_operator.common.listening import listen
from onnx_operator.common.text import visible_json
from onnx_operator.server.dataplane.admission import Admission
from onnx_operator.server.dataplane.batching import Batcher, BatchPolicy
from onnx_operator.server.dataplane.budget import UNLIMITED, Budget, request_bytes
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.errors import StartError
from onnx_operator.server.http.cors import CrossOrigin
from onnx_operator.server.http.hosts import host_check, is_loopback
from onnx_operator.server.http.limits import Limits
from onnx_operator.server.http.routes import Routes
from onnx_operator.server.http.server import HttpServer
from onnx_operator.server.lifecycle import Lifecycle, log_progress
from onnx_operator.server.processes import Shared, Siblings, end_with_parent, further_processes
from onnx_operator.server.runtime.memory import Resident, forget_peak, peak_memory_bytes, resident_memory_bytes
from onnx_operator.server.runtime.threads import available_cpus
from onnx_operator.server.termination import TerminationLog
from onnx_operator.server.tls import TlsFiles, server_context
from onnx_operator.server.tracing import Tracer, tracer

if TYPE_CHECKING:
    from onnx_operator.server.rpc.server import GrpcServer
    from onnx_operator.server.runtime.finding import Sources
    from onnx_operator.server.runtime.session import Model
    from onnx_operator.server.runtime.warmup import WarmUp
    from onnx_operator.server.script.host import ScriptHost

T = TypeVar("T")

logger = logging.getLogger(__name__)

WORTHWHILE = 0.95
"""A larger batch is used where a row then takes at most this share of its time in half the batch."""


@dataclass(frozen=True)
class ServeSettings:
    """Everything ``serve`` is told. ``host`` ``::`` also listens on IPv4."""

    model: Path
    name: str
    version: str = ""
    host: str = "::"
    port: int = 8080
    grpc_port: int | None = None
    """None: no gRPC."""
    providers: tuple[str, ...] = ("CPU",)
    fail_on_fallback: bool = False
    intra_op_threads: int | None = None
    """None: the CPUs of this container."""
    inter_op_threads: int = 1
    processes: int | None = None
    """None: one for each CPU where the model is fast enough for that and memory allows it."""
    max_batch_size: int = 32
    assume_independent_rows: bool = False
    """Whether the model's owner says that rows do not meet where the graph does not prove it."""
    max_delay: float = 0.0
    """Seconds that a request may wait for others to run with."""
    limits: Limits = field(default_factory=Limits)
    test_data: Path | None = None
    warm_up: WarmUpInputs | None = None
    """Shapes and values of inputs that cannot be guessed."""
    kept_inputs: WarmUpInputs | None = None
    """What warmed up the revision that serves."""
    require_warm_up: bool = False
    """Whether the model must not serve unless it was warmed up."""
    state: Path | None = None
    """A folder that outlives a restart, for notes of made-up inputs that killed the process; None: nothing is noted."""
    script: Path | None = None
    entry_script: str = ""
    """The script's path in its folder; where empty it is looked for."""
    model_directory: Path | None = None
    """What lies beside the model, for a script; None is what was fetched in a pod, else the model's own folder."""
    requirements: Path | None = None
    page: bool = False
    allowed_hosts: tuple[str, ...] | None = None
    """The hosts that requests may name besides those of the loopback; None: any."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may ask and read the answers."""
    memory_budget: int | None = None
    """Bytes of memory for the requests of one process; None: what the container's limit leaves."""
    tls: TlsFiles | None = None
    token: str = ""
    access_log: bool = False
    drain_delay: float = 1.0
    """Seconds after SIGTERM in which new requests are still answered, while the word spreads."""
    drain_timeout: float = 20.0
    """Seconds that running requests then get."""


class Serving:
    """One run of the server, from listening to its exit code."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._lifecycle = Lifecycle()
        self._shared = Shared(os.environ)
        self._metrics = self._shared.metrics
        self._metrics.ready = lambda: float(self._lifecycle.ready)
        self._budget = Budget()
        self._plane = DataPlane(settings.name, settings.version, settings.limits.request_timeout)
        self._log = TerminationLog.from_environment() if self._shared.first else TerminationLog(None)
        self._siblings = Siblings(self._shared)
        self._grpc: GrpcServer | None = None
        self._script: ScriptHost | None = None
        self._http: HttpServer
        self._routes: Routes
        self._tls: ssl.SSLContext | None = None
        self._tracer: Tracer | None = None

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code.

        Raises OSError if it cannot listen, ValueError where the TLS files are wrong.
        """
        settings = self._settings
        if not self._shared.first:
            end_with_parent(self._shared.parent)
        self._tls = server_context(settings.tls) if settings.tls else None
        limit = memory_limit()
        # Nothing is scored before the model is there, when it is known what is left.
        self._budget.total = limit // 8 if limit else UNLIMITED
        if limit:
            self._metrics.set("memory_limit_bytes", limit)
        self._tracer = tracer(settings.name, settings.version)
        self._http = HttpServer(self._lifecycle, self._admission(), settings.limits, self._budget)
        if settings.cors_origins:
            self._http.cross_origin = CrossOrigin(settings.cors_origins)
        if settings.allowed_hosts is not None:
            addresses = not is_loopback(settings.host)
            self._http.check_host = host_check(
                settings.allowed_hosts, addresses=addresses, cross_origin=self._http.cross_origin
            )
        self._routes = Routes(self._http, self._plane, self._lifecycle, self._metrics)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        self._enter(Phase.LOADING)
        if self._shared.first:
            # A further process gets no connection before it can answer.
            await self._listen()
            self._probe_grpc_port()
        stopping = asyncio.create_task(stop.wait())
        loading = asyncio.create_task(self._start())
        telling = asyncio.create_task(log_progress(self._lifecycle))
        try:
            done, _ = await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if loading in done and not loading.result():
                return 1
            await stopping
            await self._drain()
            return 0
        finally:
            for task in (stopping, loading, telling):
                task.cancel()
            await self._http.close(settings.drain_timeout)
            if self._script is not None:
                await self._script.stop()
            if self._tracer is not None:
                await asyncio.to_thread(self._tracer.close)
            self._routes.close()
            self._plane.close()

    def _admission(self) -> Admission:
        """Who may come in by one of the ports."""
        settings = self._settings
        return Admission(
            self._metrics,
            settings.limits.places,
            settings.token,
            access_log=settings.access_log,
            on_answered=self._tracer.record if self._tracer is not None else None,
        )

    async def _listen(self) -> None:
        port = self._shared.port or self._settings.port
        if self._settings.processes != 1 and self._shared.first and port:
            # Sharing a port is for our own processes: a port that somebody else has is refused.
            listen(self._settings.host, port).close()
        listener = listen(self._settings.host, port, reuse=self._settings.processes != 1)
        self._shared.port = listener.getsockname()[1]
        await self._http.listen(listener, self._tls)
        logger.info("listening", extra={"fields": {"port": listener.getsockname()[1]}})

    def _probe_grpc_port(self) -> None:
        """See that the port is free while there is nothing to lose yet: gRPC itself starts with the model."""
        port = self._settings.grpc_port
        if port:
            try:
                listen(self._settings.host, port).close()
            except OSError as error:
                raise OSError(error.errno, f"the gRPC port {port}: {error.strerror}") from None

    def _enter(self, phase: Phase) -> None:
        self._lifecycle.enter(phase)
        self._log.enter(phase)

    async def _drain(self) -> None:
        self._lifecycle.draining = True
        logger.info("draining", extra={"fields": {"inFlight": self._http.admission.present}})
        siblings = asyncio.create_task(self._siblings.stop(self._settings.drain_delay + self._settings.drain_timeout))
        if self._lifecycle.phase is Phase.SERVING:
            await asyncio.sleep(self._settings.drain_delay)
        if self._grpc is not None:
            await asyncio.gather(
                self._grpc.drain(self._settings.drain_timeout), self._http.close(self._settings.drain_timeout)
            )
        else:
            await self._http.close(self._settings.drain_timeout)
        await siblings

    async def _start(self) -> bool:
        """Everything up to the first request; false when the model cannot be served."""
        try:
            facts = await (self._start_script() if self._settings.script else self._start_model())
        except Exception as error:
            cause = str(error) or type(error).__name__
            reason = error.reason if isinstance(error, StartError) else Reason.LOAD_FAILED
            self._log.fail(reason, cause)
            logger.error("the model cannot be served: %s", cause, extra={"fields": {"reason": reason}})
            if not isinstance(error, StartError):
                self._http.report(error)
            return False
        # What is here now stays: collecting garbage need not look at it again, nor at every few requests.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        self._enter(Phase.SERVING)
        if self._shared.first:
            print(visible_json(facts.model_dump_json(by_alias=True)), file=sys.stdout, flush=True)
        return True

    async def _start_script(self) -> StartFacts:
        from onnx_operator.server.script.host import ScriptHost
        from onnx_operator.server.script.settings import ScriptSettings, model_folder

        settings = self._settings
        assert settings.script is not None
        cpus = settings.intra_op_threads or available_cpus()
        started = time.perf_counter()
        self._script = ScriptHost(
            ScriptSettings(
                script=settings.script,
                entry_script=settings.entry_script,
                model_directory=model_folder(settings.model, settings.model_directory),
                requirements=settings.requirements,
                name=settings.name,
                version=settings.version,
                cpus=cpus,
            )
        )
        facts = await self._script.start()
        resident = resident_memory_bytes() + sum(map(resident_memory_bytes, self._script.processes))
        self._set_budget(resident, 0, 1)
        self._routes.attach_script(self._script, facts.swagger)
        self._add_page([], [], ["CPUExecutionProvider"])
        self._metrics.info = {"model": settings.name, "version": settings.version, "execution_providers": "script"}
        seconds = round(time.perf_counter() - started, 6)
        return StartFacts(
            execution_providers=[],
            load_seconds=seconds,
            warm_up_seconds=0,
            resident_memory_bytes=resident_memory_bytes(),
            intra_op_threads=cpus,
            processes=1,
        )

    async def _start_model(self) -> StartFacts:
        settings = self._settings
        model, warm, facts, data_sets, run_bytes = await asyncio.wrap_future(_in_daemon(self._load_blocking))
        further, threads = 0, settings.intra_op_threads or available_cpus()
        cpus = available_cpus()
        if self._shared.first and settings.processes != 1 and (warm.inline or settings.processes):
            further = (settings.processes or 1 + further_processes(cpus, facts.resident_memory_bytes)) - 1
            self._shared.count = 1 + further
        policy = batch_policy(settings, warm)
        if settings.intra_op_threads is None and (further or not self._shared.first):
            # Each process has a CPU of its own now.
            threads = 1
            model, _ = await asyncio.wrap_future(_in_daemon(lambda: self._load(threads)))
        if policy.pad:
            model.fill_up()
        self._plane.attach(model, Batcher(model, policy, settings.limits.workers, self._metrics.run))
        self._routes.example = example_of(model, warm) if warm.inline else None
        self._routes.most_rows = settings.max_batch_size
        self._routes.attach()
        self._add_page(model.inputs, model.outputs, facts.execution_providers)
        self._metrics.set("model_load_seconds", facts.load_seconds)
        self._metrics.set("model_warm_up_seconds", facts.warm_up_seconds)
        self._metrics.set("proof_contradicted", float(warm.contradicted))
        self._metrics.set("golden_tests", data_sets)
        self._metrics.info = {
            "model": settings.name,
            "version": settings.version,
            "execution_providers": ",".join(facts.execution_providers),
        }
        if settings.grpc_port is not None:
            # Its memory counts as well.
            import onnx_operator.server.rpc.server  # noqa: F401
        self._set_budget(resident_memory_bytes(), run_bytes, 1 if warm.inline else settings.limits.workers)
        if settings.grpc_port is not None:
            await self._serve_grpc(self._shared.grpc_port or settings.grpc_port)
        if not self._shared.first:
            await self._listen()
        self._siblings.start(further)
        return facts.model_copy(update={"intra_op_threads": threads, "processes": self._shared.count})

    def _set_budget(self, resident: int, run_bytes: int, runs: int) -> None:
        """Give requests the memory that is left, now that it is known what everything else takes."""
        total = self._settings.memory_budget
        if total is None:
            total = request_bytes(memory_limit(), self._shared.count, resident, run_bytes, runs)
        self._budget.total = total
        self._budget.memory = Resident(resident_memory_bytes())
        logger.info("memory for requests", extra={"fields": {"bytes": total, "resident": resident, "run": run_bytes}})
        self._metrics.set("request_memory_bytes", total)

    async def _serve_grpc(self, port: int) -> None:
        from onnx_operator.server.rpc.server import serve_grpc

        settings = self._settings
        self._grpc = await serve_grpc(
            self._plane,
            self._lifecycle,
            self._admission(),
            max_body_bytes=settings.limits.max_body_bytes,
            host=settings.host,
            port=port,
            tls=settings.tls,
            reuse_port=settings.processes != 1,
            budget=self._budget,
        )
        self._shared.grpc_port = self._grpc.port
        logger.info("listening for gRPC", extra={"fields": {"grpcPort": self._grpc.port}})

    def _add_page(self, inputs: list[Any], outputs: list[Any], providers: list[str]) -> None:
        if not self._settings.page:
            return
        from onnx_operator.server.page.facts import facts
        from onnx_operator.server.page.site import site
        from onnx_operator.server.page.structure import structure

        settings = self._settings
        self._routes.add_files(site())
        described = facts(settings.name, settings.version, inputs, outputs, providers, scripted=bool(settings.script))
        described |= {"example": self._routes.example, "graph": settings.model.is_file()}
        self._routes.add_json("/page/facts.json", described)
        if settings.model.is_file():
            self._routes.add_lazy("/page/model.onnx", "application/octet-stream", lambda: structure(settings.model))

    def _load(self, intra_op_threads: int) -> tuple["Model", float]:
        # Imported here: the port answers before ONNX Runtime is in memory.
        from onnx_operator.server.runtime.session import SessionSettings, load

        settings = self._settings
        started = time.perf_counter()
        model = load(
            settings.model,
            SessionSettings(
                settings.providers,
                intra_op_threads,
                settings.inter_op_threads,
                fail_on_fallback=settings.fail_on_fallback,
            ),
        )
        # Read from the file here: the first table that somebody sends is read on the event loop.
        _ = model.categories
        return model, time.perf_counter() - started

    def _sources(self) -> "Sources":
        from onnx_operator.server.runtime.attempts import Attempts
        from onnx_operator.server.runtime.finding import Sources

        settings = self._settings
        return Sources(
            settings.test_data,
            settings.warm_up,
            settings.kept_inputs,
            settings.require_warm_up,
            Attempts(settings.state, self._log.guess, record=self._shared.first),
        )

    def _load_blocking(self) -> tuple["Model", "WarmUp", StartFacts, int, int]:
        from onnx_operator.server.runtime.warmup import warm_up

        settings = self._settings
        model, load_seconds = self._load(settings.intra_op_threads or (available_cpus() if self._shared.first else 1))
        loaded = time.perf_counter()
        self._enter(Phase.WARMING_UP)
        before = resident_memory_bytes()
        forget_peak()
        warm = warm_up(
            model,
            settings.max_batch_size,
            self._lifecycle.note,
            sources=self._sources(),
            assume_independent_rows=settings.assume_independent_rows,
        )
        run_bytes = max(0, peak_memory_bytes() - before)
        warmed = time.perf_counter()
        data_sets = 0
        if settings.test_data is not None and self._shared.first:
            from onnx_operator.server.runtime.testdata import check_test_data

            self._enter(Phase.TESTING)
            data_sets = check_test_data(model, settings.test_data, self._lifecycle.note).data_sets
        facts = StartFacts(
            execution_providers=model.assignment.providers,
            fallback_operators=model.assignment.fallback_operators,
            fallback_causes=[f"{provider}: {cause}" for provider, cause in model.assignment.causes.items()],
            load_seconds=round(load_seconds, 6),
            warm_up_seconds=round(warmed - loaded, 6),
            warm_up=WarmUpFacts(
                warmed=warm.warmed,
                message=warm.message,
                inputs=warm.recipe,
                request_cpu_seconds=None if warm.cpu_seconds is None else round(warm.cpu_seconds, 6),
            ),
            resident_memory_bytes=resident_memory_bytes(),
        )
        return model, warm, facts, data_sets, run_bytes


def batch_policy(settings: ServeSettings, warm: "WarmUp") -> BatchPolicy:
    """How requests run together, by what the warm-up has measured: as far as a row gets cheaper by it."""
    if not warm.batchable or settings.max_batch_size == 1:
        return BatchPolicy(inline=warm.inline, largest=warm.largest_elements)
    if warm.fixed_batch:
        # A run takes the same time however many of its rows are wanted.
        return BatchPolicy(warm.fixed_batch, settings.max_delay, warm.fixed_batch, warm.inline, warm.largest_elements)
    size, best = 1, warm.seconds[1]
    for rows, seconds in sorted(warm.seconds.items()):
        if rows > 1 and seconds / rows <= best * WORTHWHILE:
            size, best = rows, seconds / rows
    return BatchPolicy(size, settings.max_delay, 0, warm.inline, warm.largest_elements)


def example_of(model: "Model", warm: "WarmUp") -> dict[str, Any] | None:
    """A feed that the model answers, as JSON values, where it is small and JSON can carry it."""
    from onnx_operator.server.dataplane.tensors import DTYPES, encode_nested

    feed = warm.feed
    if any(model.input_by_name[name].datatype not in DTYPES for name in feed):
        return None
    if sum(value.size for value in feed.values()) > 4096:
        return None
    return {name: encode_nested(value) for name, value in feed.items()}


def _in_daemon(function: Callable[[], T]) -> Future[T]:
    """Run in a thread that does not keep the process alive: a load cannot be interrupted."""
    future: Future[T] = Future()

    def target() -> None:
        with contextlib.suppress(Exception):
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

    threading.Thread(target=target, name="load", daemon=True).start()
    return future
