"""Stands between an operator and the API server, and does to their calls what a plan says."""

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from onnx_operator.api.contract import StartFacts
from tests.chaos.api import Api

_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "host", "keep-alive", "authorization"}
_REASONS = {
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
_LOG = re.compile(r"/pods/[^/]+/log$")
FACTS = StartFacts(
    execution_providers=["CPUExecutionProvider"],
    load_seconds=0.1,
    warm_up_seconds=0.1,
    resident_memory_bytes=50_000_000,
    intra_op_threads=1,
    processes=1,
).model_dump_json(by_alias=True)
"""What each pod's log says: there are no pods that could."""


@dataclass
class Fault:
    """What is done to the next few calls of a kind."""

    which: str
    """``any``, ``read``, ``list``, ``write``, or ``status`` for writes of a model's status."""
    times: int
    status: int = 0
    """What is answered instead of passing the call on; 0 where nothing is."""
    passes: bool = False
    """Whether the call is passed on, and only its answer is lost."""
    seconds: float = 0.0
    """By how much the call is late; then it is passed on and answered."""
    lasting: bool = False
    """Whether it waits for its call even when everything else is over."""


@dataclass
class Trap:
    """Ends the operator at a write."""

    at: int
    """1: the next."""
    moment: str
    """``before`` the API server has it, or ``after``, when the operator has no answer yet."""
    spring: Callable[[], None]


@dataclass
class _Call:
    method: str
    path: str
    query: str

    @property
    def is_lease(self) -> bool:
        return "/leases" in self.path

    @property
    def is_watch(self) -> bool:
        return "watch=1" in self.query or "watch=true" in self.query

    @property
    def is_write(self) -> bool:
        return self.method != "GET"

    @property
    def is_log(self) -> bool:
        return bool(_LOG.search(self.path))

    def is_of(self, which: str) -> bool:
        if self.is_watch or self.is_log:
            # Watches have faults of their own; a log that cannot be read three times is never asked for again.
            return which == "list" and self.is_watch
        if which == "status":
            return self.is_write and self.path.endswith("/status")
        if which == "list":
            return self.method == "GET" and not self.is_lease
        return which == "any" or (which == "write") == self.is_write


@dataclass
class Proxy:
    """One operator's way to the API server."""

    api: Api
    kubeconfig: Path
    calls: int = 0
    """But for leases, watches and logs."""
    writes: int = 0
    faults: list[Fault] = field(default_factory=list)
    traps: list[Trap] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)
    """Faults that calls have met, by kind."""
    last: float = 0.0
    """When the last such call came, by the loop's clock."""
    _watches: set[asyncio.Transport] = field(default_factory=set)
    _flows: asyncio.Event = field(default_factory=asyncio.Event)
    _within: bool = False
    _expired: bool = False
    _called: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._flows.set()

    # --- what a plan does ---------------------------------------------------------------------------------------------

    async def more(self, calls: int, patience: float) -> None:
        """Wait until the operator has made so many more calls, or for so many seconds without one."""
        wanted = self.calls + calls
        while self.calls < wanted:
            self._called.clear()
            try:
                await asyncio.wait_for(self._called.wait(), patience)
            except TimeoutError:
                return

    def cut(self) -> None:
        """Every watch breaks off."""
        self.met["watch cut"] += len(self._watches)
        for transport in list(self._watches):
            transport.abort()

    def cut_within(self) -> None:
        """Watches break off in the middle of their next event."""
        self._within = True

    async def stall(self, seconds: float) -> None:
        """Nothing comes through a watch for a while, then all of it."""
        self.met["watch stalled"] += len(self._watches)
        self._flows.clear()
        await asyncio.sleep(seconds)
        self._flows.set()

    def expire(self) -> None:
        """What was watched is too old to go on with: watches end with 410."""
        self._expired = True

    def calm(self) -> None:
        """From now on everything is passed on as it is, but for faults that last."""
        self.faults = [fault for fault in self.faults if fault.lasting]
        self.traps.clear()
        self._within = self._expired = False
        self._flows.set()

    # --- calls --------------------------------------------------------------------------------------------------------

    def _fault(self, call: _Call) -> Fault | None:
        found = next((f for f in self.faults if call.is_of(f.which)), None)
        if found:
            found.times -= 1
            if found.times <= 0:
                self.faults.remove(found)
        return found

    def _sprung(self, call: _Call) -> Trap | None:
        """The trap that this call springs; of several the first."""
        if not call.is_write or call.is_lease:
            return None
        for trap in self.traps:
            trap.at -= 1
        due = [trap for trap in self.traps if trap.at <= 0]
        self.traps = [trap for trap in self.traps if trap.at > 0]
        return due[0] if due else None

    def _spring(self, trap: Trap) -> None:
        self.met[f"kill {trap.moment} a write"] += 1
        trap.spring()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        call = _Call(request.method, request.path, request.query_string)
        if not (call.is_lease or call.is_watch or call.is_log):
            self.calls += 1
            self.writes += call.is_write
            self.last = asyncio.get_running_loop().time()
            self._called.set()
        if call.is_log:
            return web.Response(text=FACTS + "\n")
        trap = self._sprung(call)
        if trap and trap.moment == "before":
            self._spring(trap)
            _break(request)
        fault = self._fault(call)
        if fault and fault.seconds:
            self.met["delayed"] += 1
            await asyncio.sleep(fault.seconds)
        elif fault and not fault.passes:
            if not fault.status:
                self.met["dropped"] += 1
                _break(request)
            self.met[f"answered {fault.status}"] += 1
            return _refusal(fault.status)
        if call.is_watch:
            return await self._watch(request)
        answer = await self._pass_on(request)
        if trap:
            self._spring(trap)
            _break(request)
        if fault and fault.passes:
            self.met["answer lost"] += 1
            _break(request)
        return answer

    async def _pass_on(self, request: web.Request) -> web.Response:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        try:
            async with self.api._session.request(
                request.method, request.rel_url, data=await request.read(), headers=headers
            ) as answer:
                kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP}
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)
        except (aiohttp.ClientError, OSError):
            _break(request)
            raise AssertionError("unreachable") from None

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        try:
            async with self.api._session.get(
                request.rel_url, headers=headers, timeout=aiohttp.ClientTimeout(total=None)
            ) as answer:
                told = web.StreamResponse(status=answer.status)
                told.headers["Content-Type"] = answer.headers.get("Content-Type", "application/json")
                await told.prepare(request)
                self._watches.add(transport)
                async for chunk in answer.content.iter_any():
                    await self._flows.wait()
                    if self._expired:
                        self._expired = False
                        self.met["watch ended by 410"] += 1
                        await told.write(json.dumps({"type": "ERROR", "object": _status(410)}).encode() + b"\n")
                        return told
                    if self._within:
                        self._within = False
                        self.met["watch cut within an event"] += 1
                        await told.write(chunk[: len(chunk) // 2])
                        break
                    await told.write(chunk)
                else:
                    return told
        except (aiohttp.ClientError, OSError):
            pass
        finally:
            self._watches.discard(transport)
        _break(request)
        raise AssertionError("unreachable")


def _break(request: web.Request) -> None:
    if request.transport:
        request.transport.abort()
    raise asyncio.CancelledError


def _status(code: int) -> dict[str, object]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": _REASONS[code],
        "message": f"chaos answers {code}",
        "code": code,
    }


def _refusal(code: int) -> web.Response:
    later = {"Retry-After": "1"} if code == 429 else {}
    return web.json_response(_status(code), status=code, headers=later)


def _kubeconfig(folder: Path, url: str) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "chaos",
        "clusters": [{"name": "chaos", "cluster": {"server": url}}],
        "users": [{"name": "chaos", "user": {"token": "unused"}}],
        "contexts": [{"name": "chaos", "context": {"cluster": "chaos", "user": "chaos"}}],
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


@asynccontextmanager
async def proxied(api: Api, folder: Path) -> AsyncIterator[Proxy]:
    """A proxy, with a kubeconfig that leads to it."""
    made = Proxy(api, folder / "kubeconfig")
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    _kubeconfig(folder, f"http://127.0.0.1:{port}")
    try:
        yield made
    finally:
        made.cut()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(runner.cleanup(), 5)
