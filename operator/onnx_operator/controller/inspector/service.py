"""The inspector: HTTP over a Unix socket, ``POST /inspect`` and ``GET /healthz``."""

import asyncio
import logging
import os
import signal
from collections import defaultdict
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from onnx_operator.api.contract import HTTPS_CREDENTIALS, HTTPS_HOSTS
from onnx_operator.api.report import InspectionRequest
from onnx_operator.model.inspection.inspection import inspect
from onnx_operator.model.inspection.isolation import ForbiddenCallError, Parser
from onnx_operator.model.inspection.limits import InspectionLimits
from onnx_operator.model.inspection.sandbox import seal

_LOG = logging.getLogger(__name__)
_REQUEST_BYTES = 4 << 20
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
    async with Parser(limits, signatures=policy.signatures) as parser:
        runner = web.AppRunner(
            application(limits, policy, parser),
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


def application(limits: InspectionLimits, policy: Policy, parser: Parser) -> web.Application:
    """Build the service; ``parser`` belongs to the caller."""
    slots = asyncio.Semaphore(limits.inspections)
    # One tenant's slow sources never take all places.
    shares: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(limits.inspections_per_tenant))

    async def inspect_model(request: web.Request) -> web.Response:
        try:
            asked = InspectionRequest.model_validate_json(await request.read())
        except ValidationError as error:
            # The input may hold credentials: it is neither sent back nor logged.
            details = error.errors(include_input=False, include_url=False, include_context=False)
            return web.json_response({"errors": details}, status=400)
        if asked.workload_identity and not policy.operator_identity:
            asked = asked.model_copy(update={"workload_identity": False})
        try:
            async with shares[asked.tenant], slots:
                result = await inspect(asked, limits=limits, parser=parser)
        except ForbiddenCallError as error:
            # Told in the log where it is counted. The number says much to who has to find out.
            return web.json_response({"error": str(error)}, status=500)
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
