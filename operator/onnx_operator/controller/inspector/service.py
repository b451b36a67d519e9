"""The inspector: HTTP over a Unix socket, ``POST /inspect`` and ``GET /healthz``."""

import asyncio
import logging
import os
import signal
from collections import defaultdict
from collections.abc import MutableMapping
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from onnx_operator.api.report import InspectionRequest
from onnx_operator.model.budget import ByteBudget
from onnx_operator.model.inspection import FILE_PREFIX, inspect
from onnx_operator.model.isolation import Parser
from onnx_operator.model.limits import InspectionLimits

_LOG = logging.getLogger(__name__)
_REQUEST_BYTES = 4 << 20
_CREDENTIAL_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "GCLOUD_", "CLOUDSDK_", "HF_", "HTTPS_BEARER_", "MLFLOW_")
_CREDENTIAL_NAMES = ("HTTPS_USERNAME", "HTTPS_PASSWORD", "NETRC")


def run(socket: Path, workdir: Path, limits: InspectionLimits) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when the socket or ``workdir`` cannot be used."""
    scrub_environment(os.environ)

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, stop.set)
        await serve(socket, workdir, limits, stop)

    asyncio.run(until_signalled())


async def serve(socket: Path, workdir: Path, limits: InspectionLimits, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set; inspections that are under way then are cancelled."""
    remove_leftovers(workdir)
    async with Parser(limits) as parser:
        runner = web.AppRunner(
            application(workdir, limits, parser),
            access_log=None,
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


def application(workdir: Path, limits: InspectionLimits, parser: Parser) -> web.Application:
    """Build the service; ``parser`` belongs to the caller."""
    slots = asyncio.Semaphore(limits.inspections)
    # One tenant's slow sources never take all places.
    shares: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(limits.inspections_per_tenant))
    budget = ByteBudget(limits.workdir_bytes)

    async def inspect_model(request: web.Request) -> web.Response:
        try:
            asked = InspectionRequest.model_validate_json(await request.read())
        except ValidationError as error:
            # The input may hold credentials: it is neither sent back nor logged.
            details = error.errors(include_input=False, include_url=False, include_context=False)
            return web.json_response({"errors": details}, status=400)
        try:
            async with shares[asked.tenant], slots:
                result = await inspect(asked, workdir=workdir, limits=limits, parser=parser, budget=budget)
        except Exception:
            _LOG.exception("the inspection failed by a fault of the inspector")
            return web.json_response({"error": "the inspection failed, see the inspector's log"}, status=500)
        return web.Response(text=result.model_dump_json(by_alias=True), content_type="application/json")

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    app = web.Application(client_max_size=_REQUEST_BYTES)
    app.add_routes([web.post("/inspect", inspect_model), web.get("/healthz", health)])
    return app


def scrub_environment(environment: MutableMapping[str, str]) -> None:
    """Remove cloud credentials: models are read with their own ones or with none."""
    for name in list(environment):
        if name.startswith(_CREDENTIAL_PREFIXES) or name in _CREDENTIAL_NAMES:
            del environment[name]


def remove_leftovers(workdir: Path) -> None:
    """Make the folder, and remove the temporary files of an inspector that was killed."""
    workdir.mkdir(parents=True, exist_ok=True)
    for path in workdir.glob(f"{FILE_PREFIX}*"):
        path.unlink(missing_ok=True)
