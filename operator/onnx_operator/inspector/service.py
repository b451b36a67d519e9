"""The inspector: HTTP over a Unix socket, as :mod:`wire` describes it, and ``GET /healthz``."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import InspectionRequest, InspectionResult
from onnx_operator.api.schemes import HTTPS_CREDENTIALS, HTTPS_HOSTS
from onnx_operator.inspector import wire
from onnx_operator.model.inspection.fair import FairPlaces
from onnx_operator.model.inspection.faults import ForbiddenCallError
from onnx_operator.model.inspection.inspection import inspect
from onnx_operator.model.inspection.isolation import Parser
from onnx_operator.model.inspection.sandbox import seal
from onnx_operator.model.inspection.stopwatch import Stopwatch
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.sources import SourceError

_LOG = logging.getLogger(__name__)
_MAX_REQUESTS = 1024
"""At the same time; the controller has far fewer."""
_THREADS_PER_INSPECTION = 4
"""For names that are looked up and bytes that are hashed: a slow name server of one tenant holds up no other."""
_LOOK_SECONDS = 1.0
_CROWDING_SECONDS = 120.0
"""For which a tenant may keep more than its share of the places from others, once they wait."""
_CREDENTIAL_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "GCLOUD_", "CLOUDSDK_", "HF_", "MLFLOW_")
_CREDENTIAL_NAMES = (*HTTPS_CREDENTIALS, HTTPS_HOSTS, "NETRC")


@dataclass(frozen=True)
class Policy:
    """What the platform team decided about this inspector."""

    operator_identity: bool = False
    """Whether models may be read with the operator's own cloud identity, which is then left in the environment."""
    signatures: bool = False
    """Whether models must be signed."""


def run(socket: Path, limits: InspectionLimits, policy: Policy) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when the socket cannot be used."""
    if not policy.operator_identity:
        scrub_environment(os.environ)
    seal()

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, stop.set)
        await serve(socket, limits, policy, stop)

    asyncio.run(until_signalled())


async def serve(socket: Path, limits: InspectionLimits, policy: Policy, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set; inspections that are under way then are cancelled."""
    threads = ThreadPoolExecutor(_THREADS_PER_INSPECTION * limits.inspections, thread_name_prefix="inspector")
    asyncio.get_running_loop().set_default_executor(threads)
    async with Parser(limits, signatures=policy.signatures) as parser:
        runner = web.AppRunner(
            application(limits, policy, parser),
            access_log=None,
            logger=_http_log(),
            handler_cancellation=True,
            shutdown_timeout=1.0,
        )
        await runner.setup()
        try:
            # Whoever shares the volume and the group may ask; nobody may between creation and a chmod.
            before = os.umask(0o117)
            try:
                await web.UnixSite(runner, str(socket)).start()
            finally:
                os.umask(before)
            _LOG.info("the inspector listens at %s", socket)
            await stop.wait()
        finally:
            await runner.cleanup()


def _http_log() -> logging.Logger:
    """A log without the bytes of requests that are no HTTP: they may hold credentials."""

    def without_content(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[0]:
            record.msg = f"{record.msg} ({record.exc_info[0].__name__})"
            record.exc_info = record.exc_text = None
        return True

    log = logging.getLogger(f"{__name__}.http")
    log.filters[:] = [without_content]
    return log


def application(limits: InspectionLimits, policy: Policy, parser: Parser) -> web.Application:
    """Build the service; ``parser`` belongs to the caller."""
    desk = _Desk(limits, parser)
    store = wire.CapabilityStore()

    async def inspect_model(request: web.Request) -> web.StreamResponse:
        if desk.requests >= _MAX_REQUESTS:
            return web.json_response({"error": "too many requests"}, status=503)
        try:
            asked = wire.read_request(await request.read(), store)
        except wire.WireError as error:
            return web.json_response({"error": str(error)}, status=400)
        except wire.UnknownCapabilitiesError:
            return web.json_response({"error": "send the capabilities first"}, status=424)
        if asked.workload_identity and not policy.operator_identity:
            asked = asked.model_copy(update={"workload_identity": False})
        return await desk.answer(request, asked)

    async def put_capabilities(request: web.Request) -> web.Response:
        body = await request.read()
        if len(body) > wire.MAX_CAPABILITIES_LENGTH:
            return web.json_response({"error": "the capabilities are too long"}, status=413)
        try:
            store.put(request.match_info["digest"], body)
        except wire.WireError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({})

    async def health(_: web.Request) -> web.Response:
        counts = wire.Counts(parser.forbidden_calls, parser.exceeded_limits)
        body = wire.write_health(counts, running=desk.running, queued=desk.queued)
        return web.Response(body=body, content_type="application/json")

    app = web.Application(client_max_size=wire.MAX_REQUEST_LENGTH)
    app.add_routes(
        [
            web.post("/inspect", inspect_model),
            web.put("/capabilities/{digest:[0-9a-f]{64}}", put_capabilities),
            web.get("/healthz", health),
        ]
    )
    return app


@dataclass
class _State:
    running: bool = False


class _Desk:
    """Takes requests, gives tenants their turns, and says while they wait that it is alive."""

    def __init__(self, limits: InspectionLimits, parser: Parser) -> None:
        self._limits = limits
        self._parser = parser
        self._slots = FairPlaces(limits.inspections, limits.inspections_per_tenant)
        self._giving_way: set[str] = set()
        self.requests = 0
        """Requests that are answered at this moment."""

    @property
    def running(self) -> int:
        """Inspections that are under way."""
        return self._slots.held

    @property
    def queued(self) -> int:
        """Inspections that wait for a slot."""
        return self._slots.waiting

    async def answer(self, request: web.Request, asked: InspectionRequest) -> web.StreamResponse:
        """Inspect, and tell the result. A connection that is closed ends the inspection."""
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        state = _State()
        self.requests += 1
        work = asyncio.create_task(self._inspect(asked, state))
        try:
            await response.prepare(request)
            await response.write(wire.write_state(state.running))
            while not (await asyncio.wait({work}, timeout=wire.KEEPALIVE_SECONDS))[0]:
                await response.write(wire.write_state(state.running))
            await response.write(self._last_line(work))
            await response.write_eof()
            return response
        finally:
            self.requests -= 1
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    @staticmethod
    def _last_line(work: asyncio.Task[InspectionResult]) -> bytes:
        try:
            line = wire.write_result(work.result())
        except ForbiddenCallError as error:
            # Told in the log where it is counted. The number says much to who has to find out.
            return wire.write_error(str(error))
        except Exception:
            _LOG.exception("the inspection failed by a fault of the inspector")
            return wire.write_error("the inspection failed, see the inspector's log")
        if len(line) > wire.MAX_LINE_LENGTH:
            return wire.write_error("the result is too long to be told")
        return line

    async def _inspect(self, asked: InspectionRequest, state: _State) -> InspectionResult:
        tenant = asked.tenant
        async with self._slots.hold(tenant):
            state.running = True
            # From here on: nobody's time runs while others are served.
            watch = Stopwatch()
            task = asyncio.create_task(
                inspect(asked, limits=self._limits, parser=self._parser, stopwatch=watch), name="inspection"
            )
            try:
                return await self._watch(task, tenant, watch)
            except SourceError as error:
                return error.result()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                self._giving_way.discard(tenant)

    async def _watch(self, task: asyncio.Task[InspectionResult], tenant: str, watch: Stopwatch) -> InspectionResult:
        """Wait for the result. Raises :class:`SourceError` where the time is over, or needed for others."""
        crowding = 0.0
        longest = self._limits.timeout_seconds
        while not task.done():
            left = longest - watch.seconds
            if left <= 0:
                raise _retried(f"the inspection took longer than {longest:g} s (setting inspection.timeoutSeconds)")
            crowds = self._slots.crowds(tenant)
            started = time.monotonic()
            await asyncio.wait({task}, timeout=min(left, _LOOK_SECONDS))
            if crowds:
                crowding += time.monotonic() - started
            # One after the other: the next one may be within the share again.
            if crowding > _CROWDING_SECONDS and tenant not in self._giving_way and self._slots.crowds(tenant):
                self._giving_way.add(tenant)
                raise _retried(
                    "so many models of this namespace are inspected, and their stores are so slow, that this one gave"
                    " way to those of other namespaces"
                )
        return task.result()


def _retried(message: str) -> SourceError:
    return SourceError(Reason.SOURCE_UNREACHABLE, message, retriable=True)


def scrub_environment(environment: MutableMapping[str, str]) -> None:
    """Remove cloud credentials: models are read with their own ones or with none."""
    for name in list(environment):
        if name.startswith(_CREDENTIAL_PREFIXES) or name in _CREDENTIAL_NAMES:
            del environment[name]
