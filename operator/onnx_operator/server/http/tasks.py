"""Requests that are answered by a task of the event loop: whatever ends it is an answer."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from onnx_operator.server.http.exchange import Exchange
from onnx_operator.server.http.server import HttpServer


class Tasks:
    """The tasks under way: the event loop itself does not hold them."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do ``work``, which answers; a caller who goes cancels it."""

        async def run() -> None:
            try:
                await work
            except Exception as error:
                self._server.fail(exchange, error)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        exchange.call = exchange.call or task
        return task
