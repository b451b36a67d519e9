"""Running coroutines so that whoever interrupts them is never kept waiting."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

GRACE_SECONDS = 2.0
"""What is left of an interrupted command has so long to end: connections that close, requests that are given up."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Like :func:`asyncio.run`, which waits for all that an interrupt leaves behind, without end.

    Raises KeyboardInterrupt as it does, ``GRACE_SECONDS`` after the interrupt at the latest.
    """
    runner = asyncio.Runner()
    try:
        result = runner.run(main)
    except KeyboardInterrupt:
        _abandon(runner.get_loop())
        raise
    except BaseException:
        runner.close()
        raise
    runner.close()
    return result


def _abandon(loop: asyncio.AbstractEventLoop) -> None:
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    # What is still there when the process ends is nobody's news.
    loop.set_exception_handler(lambda *_: None)
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=GRACE_SECONDS))
