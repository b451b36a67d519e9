"""The controller's way to the inspector."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import InspectionRequest, InspectionResult
from onnx_operator.common.closing import Closing
from onnx_operator.inspector import wire
from onnx_operator.inspector.report import ReportError, checked
from onnx_operator.model.inspection.fair import FairPlaces
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.refusal import RefusedError

SILENCE_SECONDS = 30.0
_ATTEMPTS = 2


class InspectorClient(Closing):
    """Asks the inspector behind a Unix socket; may be used by many tasks at once.

    No more requests are on the socket than the inspector has places for; the others wait here, tenants in turn.

    Args:
        socket: the inspector's.
        silence_seconds: after which it is taken for dead; it says every few seconds that it works. How long an
            inspection takes is the inspector's business.
        requests: on the socket at the same time.
        per_tenant: of these, how many may be of one tenant.
        max_model_bytes: largest model that the settings allow.
    """

    def __init__(
        self,
        socket: Path,
        *,
        silence_seconds: float = SILENCE_SECONDS,
        requests: int = InspectionLimits.inspections,
        per_tenant: int = InspectionLimits.inspections_per_tenant,
        max_model_bytes: int = InspectionLimits.max_model_bytes,
    ) -> None:
        self._socket = socket
        self._silence = silence_seconds
        self._max_model_bytes = max_model_bytes
        self._places = FairPlaces(requests, per_tenant)
        self._texts = wire.CapabilityTexts()
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def inspect(self, request: InspectionRequest) -> InspectionResult:
        """Have a model inspected; cancelling the call cancels the inspection.

        Raises :class:`RefusedError` (``SourceUnreachable``) where it is not there, is broken, or fell silent: that says
        nothing about the model.
        """
        async with self._places.hold(request.tenant):
            digest, capabilities = self._texts.text(request.capabilities)
            body = wire.write_request(request, digest)
            for _ in range(_ATTEMPTS):
                result = await self._ask(body)
                if result is not None:
                    return self._believed(result, request)
                await self._send(digest, capabilities)
        raise _unavailable("the inspector does not keep the capabilities that it is sent")

    async def healthy(self) -> bool:
        """Tell whether the inspector answers."""
        try:
            async with asyncio.timeout(self._silence), self._open().get("http://inspector/healthz") as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return False

    async def counts(self) -> wire.Counts | None:
        """What the inspector has counted since it began; None where it does not say."""
        try:
            async with asyncio.timeout(self._silence), self._open().get("http://inspector/healthz") as response:
                body = await response.content.read(wire.MAX_HEALTH_LENGTH)
                return wire.read_counts(body) if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, LookupError, wire.WireError):
            return None

    def _believed(self, result: InspectionResult, request: InspectionRequest) -> InspectionResult:
        """What reads untrusted bytes may be taken over by them: its result is held to the form of an honest one."""
        try:
            return checked(result, request, self._max_model_bytes)
        except ReportError as error:
            raise _unavailable(f"the inspector's result does not count: {error!s:.500}") from None

    async def _ask(self, body: bytes) -> InspectionResult | None:
        """The result; None where the inspector lacks the capabilities that are named."""
        async with self._request("POST", "/inspect", body) as response:
            if response.status == 424:
                return None
            await self._expect_ok(response)
            lines = wire.Lines()
            async for data in response.content.iter_any():
                for line in lines.feed(data):
                    result = wire.read_line(line)
                    if result is not None:
                        return result
        raise _unavailable("the inspector ended in the middle of an inspection")

    async def _send(self, digest: str, capabilities: bytes) -> None:
        async with self._request("PUT", f"/capabilities/{digest}", capabilities) as response:
            await self._expect_ok(response)

    @staticmethod
    async def _expect_ok(response: aiohttp.ClientResponse) -> None:
        if response.status != 200:
            told = await response.content.read(200)
            raise _unavailable(f"the inspector answered {response.status}: {told!r:.200}")

    @asynccontextmanager
    async def _request(self, method: str, path: str, body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Content-Type": "application/json"}
        try:
            async with self._open().request(
                method, f"http://inspector{path}", data=body, headers=headers, allow_redirects=False
            ) as response:
                yield response
        except TimeoutError:
            raise _unavailable(f"the inspector has said nothing for {self._silence:g} s") from None
        except wire.WireError as error:
            raise _unavailable(f"the inspector answers: {error}") from None
        # A peer that does not speak HTTP makes the client raise any of these.
        except (aiohttp.ClientError, OSError, ValueError, LookupError) as error:
            raise _unavailable(f"the inspector does not answer at {self._socket}: {error}") from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path=str(self._socket), limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._silence, sock_read=self._silence),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session


def _unavailable(told: str) -> RefusedError:
    message = f"the operator's inspector cannot be asked: {told}"
    return RefusedError(Reason.SOURCE_UNREACHABLE, message, retriable=True)
