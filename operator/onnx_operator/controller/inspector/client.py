"""The controller's way to the inspector."""

from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from pydantic import ValidationError

from onnx_operator.api.report import InspectionRequest, InspectionResult


class InspectorUnavailableError(Exception):
    """The inspector is not there, is broken, or took too long. Says nothing about the model; try again later."""


class InspectorClient:
    """Asks the inspector behind a Unix socket; may be used by many tasks at once.

    ``timeout_seconds`` bounds one inspection.
    """

    def __init__(self, socket: Path, *, timeout_seconds: float = 3600.0) -> None:
        self._socket = socket
        self._timeout = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def inspect(self, request: InspectionRequest) -> InspectionResult:
        """Have a model inspected; cancelling the call cancels the inspection.

        Raises :class:`InspectorUnavailableError`.
        """
        body = request.model_dump_json(by_alias=True)
        try:
            async with self._open().post(
                "http://inspector/inspect", data=body, headers={"Content-Type": "application/json"}
            ) as response:
                text = await response.text()
                if response.status != 200:
                    raise InspectorUnavailableError(f"the inspector answered {response.status}: {text[:200]}")
        except TimeoutError:
            raise InspectorUnavailableError(
                f"the inspection took longer than {self._timeout:g} s (setting inspection.timeoutSeconds)"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise InspectorUnavailableError(f"the inspector does not answer at {self._socket}: {error}") from error
        try:
            return InspectionResult.model_validate_json(text)
        except ValidationError as error:
            raise InspectorUnavailableError(f"the inspector answered something else: {error}") from None

    async def healthy(self) -> bool:
        """Tell whether the inspector answers."""
        try:
            async with self._open().get("http://inspector/healthz") as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # As many as there may be models: waiting for a slot is the inspector's business.
                connector=aiohttp.UnixConnector(path=str(self._socket), limit=0),
                timeout=aiohttp.ClientTimeout(total=self._timeout),
            )
        return self._session
