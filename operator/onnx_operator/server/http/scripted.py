"""``/score`` of a scoring script: its memory is counted, and what it answers goes out as it says."""

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Protocol

from onnx_operator.server.dataplane.budget import Account
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.dataplane.sizes import thorough_bytes
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.exchange import Exchange
from onnx_operator.server.http.packing import Packer
from onnx_operator.server.http.readers import LARGE_BODY, Readers
from onnx_operator.server.http.responses import JSON
from onnx_operator.server.http.server import HttpServer
from onnx_operator.server.http.tasks import Tasks

SCRIPT_FACTOR = 40
"""Bytes that a script may make of a byte of JSON."""
_NOT_THE_SCRIPTS = ("content-length", "transfer-encoding", "connection", "date")
_CORS = "access-control-"
"""What begins so is the setting's where there is one: together the two could allow what neither does, such as
credentials for the setting's origins."""


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


class Scripted:
    """Hands requests to the script."""

    def __init__(
        self, script: Script, server: HttpServer, plane: DataPlane, readers: Readers, packer: Packer, tasks: Tasks
    ) -> None:
        self._script = script
        self._server = server
        self._plane = plane
        self._readers = readers
        self._packer = packer
        self._tasks = tasks

    def score(self, exchange: Exchange) -> None:
        """Answer one request."""
        body = exchange.body
        if len(body) > LARGE_BODY:
            self._estimate(exchange, body)
            return
        account = Account(self._server.budget, self._server.take_charge_of(exchange))
        try:
            account.reserve(SCRIPT_FACTOR * len(body))
        except RequestError:
            account.keep(0)
            raise
        self._start(exchange, body, account)

    def _estimate(self, exchange: Exchange, body: bytes) -> None:
        """Run the script with a large body if there is memory for what it makes of it, should that be JSON."""

        def start(_: None, account: Account) -> None:
            # Of its own: that of the reading ends with it.
            own = Account(self._server.budget, account.held)
            account.held = 0
            self._start(exchange, body, own)

        self._readers.read(exchange, lambda reserve: reserve(4 * len(body) + thorough_bytes(body)), start)

    def _start(self, exchange: Exchange, body: bytes, account: Account) -> None:
        handed = False

        def release() -> None:
            account.keep(0)

        async def run() -> None:
            nonlocal handed
            handed = True
            await self._run(exchange, body, release)

        task = self._tasks.start(exchange, run())
        # A task that is cancelled before it begins runs nothing at all.
        task.add_done_callback(lambda _: None if handed else release())

    async def _run(self, exchange: Exchange, body: bytes, release: Callable[[], None]) -> None:
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in exchange.headers.items()
            # The body is what it was before; one of no bytes has not even been unpacked.
            if name != b"content-encoding"
        ]
        target = exchange.path + (b"?" + exchange.query if exchange.query else b"")
        exchange.body = b""
        answer = await self._script.score(
            body,
            headers,
            exchange.method.decode("latin-1"),
            target.decode("latin-1"),
            max(0.0, exchange.started + self._plane.timeout - monotonic()),
            release,
        )
        media_type, lines, plain = JSON, b"", True
        for name, value in answer.headers:
            small = name.lower()
            plain = plain and small != "content-encoding"
            if small == "content-type":
                media_type = value.encode("latin-1", "replace")
            elif small in _NOT_THE_SCRIPTS or (small.startswith(_CORS) and self._server.cross_origin is not None):
                continue
            else:
                lines += f"{name}: {value}\r\n".encode("latin-1", "replace")
        if plain and media_type.startswith(JSON):
            self._packer.answer(exchange, answer.body, media_type, lines, answer.status)
        else:
            exchange.answer(answer.status, answer.body, media_type, lines)
