"""The script as the server sees it: requests in, answers out, whatever the script does."""

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from onnx_operator.common.backoff import Backoff
from onnx_operator.server.script.answers import FAILED, NO_ANSWER, NOT_FAILED, ScriptAnswer, failure
from onnx_operator.server.script.settings import ScriptError, ScriptSettings, entry_script
from onnx_operator.server.script.worker import Worker, WorkerGoneError, WorkerTimeoutError

logger = logging.getLogger(__name__)

_METHODS = ("GET", "POST")
_MAX_ID_LENGTH = 100
"""Characters of a request's id."""


@dataclass(frozen=True)
class ScriptFacts:
    """What is known of the script once it is ready."""

    script: str
    """The file's name."""
    swagger: dict[str, Any] | None
    """The document for ``/swagger.json``; None where the schema fits neither version 2 nor 3."""
    init_seconds: float


class ScriptHost:
    """Keeps ``workers`` processes with the script alive and gives each one request at a time.

    All methods belong to one event loop.
    """

    def __init__(self, settings: ScriptSettings) -> None:
        self._settings = settings
        self._idle: list[Worker] = []
        self._alive: set[Worker] = set()
        self._waiting: deque[asyncio.Future[Worker]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: set[asyncio.Task[ScriptAnswer]] = set()
        self._stopping = False
        self._crashes = 0
        self._next_start = 0.0
        self._last_failure = ""
        self._raw = False
        self.restarts = 0
        """How often a process was started in place of one that ended or hung."""

    @property
    def ready(self) -> bool:
        """Whether at least one process can answer."""
        return bool(self._alive) and not self._stopping

    @property
    def processes(self) -> list[int]:
        """The ids of the processes that live."""
        return [worker.pid for worker in self._alive]

    async def start(self) -> ScriptFacts:
        """Start the processes and wait for ``init()`` in each. Raises :class:`ScriptError`; nothing is left then."""
        self._script = entry_script(self._settings.script, self._settings.entry_script)
        try:
            for _ in range(self._settings.workers):
                self._admit(worker := await Worker.start(self._settings, self._script))
        except ScriptError as error:
            if error.traceback:
                logger.error("the script cannot be used", extra={"fields": {"traceback": error.traceback}})
            await self.stop(0)
            raise
        except BaseException:
            await self.stop(0)
            raise
        self._raw = bool(worker.facts.get("raw"))
        return ScriptFacts(self._script.name, worker.facts.get("swagger"), float(worker.facts.get("initSeconds", 0)))

    async def score(
        self,
        body: bytes,
        headers: Mapping[str, str] | list[tuple[str, str]],
        method: str = "POST",
        target: str = "/score",
        seconds: float = 5.0,
        released: Callable[[], None] = lambda: None,
    ) -> ScriptAnswer:
        """Answer a request; every failure is an answer too. ``target`` is the path with its query.

        400 and 415: the script cannot take this body. 500: ``run()`` raised. 502: its process ended. 503 with
        ``Retry-After``: it is being restarted. 504: ``seconds`` have passed; a ``run()`` that takes longer
        than that is ended. Cancelling leaves ``run()`` to finish by itself. ``released`` is called once nobody
        holds the body any more.
        """
        handed = False

        def hand(run: asyncio.Task[ScriptAnswer]) -> None:
            nonlocal handed
            handed = True
            run.add_done_callback(lambda _: released())

        try:
            return await self._score(body, headers, method, target, seconds, hand)
        finally:
            if not handed:
                released()

    async def _score(
        self,
        body: bytes,
        headers: Mapping[str, str] | list[tuple[str, str]],
        method: str,
        target: str,
        seconds: float,
        hand: Callable[[asyncio.Task[ScriptAnswer]], None],
    ) -> ScriptAnswer:
        if method == "OPTIONS" and not self._raw:
            return ScriptAnswer(200, (("Content-Type", "text/html; charset=utf-8"), NOT_FAILED), b"")
        if method not in _METHODS and not self._raw:
            return failure(
                405, f"the method {method} is not answered here; expected GET or POST", ("Allow", "GET, POST, OPTIONS")
            )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                worker = await self._take()
        except TimeoutError:
            return failure(504, f"the script was busy with other requests for {seconds:g} s", ("Retry-After", "1"))
        if worker is None:
            return self._unavailable()
        pairs = list(headers.items()) if isinstance(headers, Mapping) else headers
        header = {"method": method, "target": target, "headers": pairs}
        # On its own: a caller who leaves must not leave a process behind that still computes.
        run = asyncio.create_task(self._run(worker, header, body, seconds))
        self._running.add(run)
        run.add_done_callback(self._running.discard)
        hand(run)
        done, _ = await asyncio.wait([run], timeout=max(0.0, deadline - loop.time()) + 0.01)
        return _identified(run.result() if done else self._too_slow(seconds), pairs)

    async def stop(self, grace: float = 20.0) -> None:
        """Refuse new requests, give running ones ``grace`` seconds, end the processes."""
        self._stopping = True
        self._refuse_waiting()
        if self._running and grace > 0:
            await asyncio.wait(set(self._running), timeout=grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        workers = list(self._alive)
        self._alive.clear()
        self._idle.clear()
        busy = bool(self._running)
        await asyncio.gather(*(worker.kill() if busy or grace <= 0 else worker.stop() for worker in workers))
        if self._running:
            await asyncio.wait(set(self._running))

    async def _take(self) -> Worker | None:
        if self._stopping or not self._alive:
            return None
        if self._idle:
            return self._idle.pop()
        turn: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._release(turn.result())
            raise
        except WorkerGoneError:
            return None
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(turn)

    async def _run(self, worker: Worker, header: dict[str, Any], body: bytes, seconds: float) -> ScriptAnswer:
        try:
            reply, content = await worker.ask(header, body, seconds)
            given = _answer(reply, content)
        except WorkerTimeoutError:
            logger.error("run() took longer than %g s; its process is ended and started again", seconds)
            self._replace(worker, f"run() took longer than {seconds:g} s")
            return self._too_slow(seconds)
        except WorkerGoneError as gone:
            logger.error("%s during a request; it is started again", gone)
            self._replace(worker, str(gone))
            return failure(502, str(gone), FAILED)
        except Exception:
            # Whatever is wrong with it, its process is not to be asked again, and another takes its place.
            self._replace(worker, "the script wrote into the server's channel")
            return failure(502, self._last_failure, FAILED)
        self._crashes = 0
        self._release(worker)
        return given

    def _release(self, worker: Worker) -> None:
        if worker not in self._alive:
            return
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(worker)
                return
        self._idle.append(worker)

    def _admit(self, worker: Worker) -> None:
        self._alive.add(worker)
        self._spawn(self._watch(worker))
        self._release(worker)

    async def _watch(self, worker: Worker) -> None:
        """Notice a process that ends between two requests."""
        how = await worker.ended()
        if worker in self._idle:
            logger.error("%s between two requests; it is started again", how)
            self._replace(worker, how)

    def _replace(self, worker: Worker, cause: str) -> None:
        self._alive.discard(worker)
        with contextlib.suppress(ValueError):
            self._idle.remove(worker)
        self._last_failure = cause
        if not self._alive:
            self._refuse_waiting()
        self._spawn(self._restart(worker))

    async def _restart(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        self._plan_start()
        await worker.kill()
        while not self._stopping:
            await asyncio.sleep(max(0.0, self._next_start - loop.time()))
            self.restarts += 1
            try:
                fresh = await Worker.start(self._settings, self._script)
            except (ScriptError, OSError) as error:
                self._last_failure = str(error)
                self._plan_start()
                delay = self._next_start - loop.time()
                logger.error("the script could not be started again, next try in %.1f s: %s", delay, error)
                continue
            logger.info("the script is started again", extra={"fields": {"restarts": self.restarts}})
            self._admit(fresh)
            return

    def _plan_start(self) -> None:
        backoff = Backoff(self._settings.first_restart_delay, self._settings.longest_restart_delay, spread=0)
        delay = backoff.after(self._crashes) if self._crashes else 0.0
        self._crashes += 1
        self._next_start = asyncio.get_running_loop().time() + delay

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refuse_waiting(self) -> None:
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(WorkerGoneError(self._last_failure))

    def _unavailable(self) -> ScriptAnswer:
        if self._stopping:
            return failure(503, "the server is shutting down", ("Retry-After", "1"))
        seconds = max(1, math.ceil(self._next_start - asyncio.get_running_loop().time()))
        return failure(503, f"the script is being restarted: {self._last_failure}", ("Retry-After", str(seconds)))

    @staticmethod
    def _too_slow(seconds: float) -> ScriptAnswer:
        return failure(504, f"run() did not return in {seconds:g} s", FAILED)


def _identified(answer: ScriptAnswer, asked: list[tuple[str, str]]) -> ScriptAnswer:
    """The answer with what its caller will know it by, as Azure ML repeats it."""
    told = {name.lower(): value for name, value in asked if len(value) <= _MAX_ID_LENGTH}
    ids = {name: told[name] for name in ("x-ms-request-id", "x-ms-client-request-id", "traceid") if name in told}
    if "x-ms-client-request-id" in ids:
        ids.setdefault("x-ms-request-id", ids["x-ms-client-request-id"])
    return replace(answer, headers=(*answer.headers, *ids.items())) if ids else answer


def _answer(reply: dict[str, Any], body: bytes) -> ScriptAnswer:
    if reply["kind"] == "answer":
        headers = tuple((str(name), str(value)) for name, value in reply["headers"])
        took = ("x-ms-run-fn-exec-ms", f"{reply['seconds'] * 1000:.3f}")
        return ScriptAnswer(int(reply["status"]), (*headers, took), body)
    if reply["kind"] == "refused":
        return failure(int(reply["status"]), str(reply["message"]), azure=str(reply["azure"]))
    fields = {name: reply[name] for name in ("line", "traceback") if reply.get(name)}
    logger.error("run() failed: %s", reply["message"], extra={"fields": fields})
    # As on Azure ML a result of which nothing can be made is no failure of run() itself.
    marks = () if reply["azure"] == NO_ANSWER else (FAILED,)
    return failure(500, str(reply["message"]), *marks, azure=str(reply["azure"]))
