"""One inspection in a pod of its own: the request comes in the environment, the result goes to the log."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import TextIO

from onnx_operator.api.report import InspectionRequest, InspectionResult
from onnx_operator.common.variables import to_variables, variables_of
from onnx_operator.inspector.report import EVENT
from onnx_operator.inspector.service import scrub_environment
from onnx_operator.model.inspection.inspection import inspect
from onnx_operator.model.inspection.sandbox import seal
from onnx_operator.model.limits import InspectionLimits

_LOG = logging.getLogger(__name__)
ENV_REQUEST = "ONNX_INSPECTION_REQUEST"
"""JSON of the request; a long one goes on in ``ONNX_INSPECTION_REQUEST_2``, ``…_3``."""
PROGRESS_SECONDS = 10.0


def request_variables(request: InspectionRequest) -> dict[str, str]:
    """Environment variables that hold a request.

    Raises ValueError for one with credentials: whoever may read pods must not find any.
    """
    if request.credentials:
        raise ValueError("credentials never go into a pod's environment")
    text = json.dumps(request.model_dump(mode="json", by_alias=True, exclude={"credentials"}), separators=(",", ":"))
    return to_variables(ENV_REQUEST, text)


def take_request(environment: MutableMapping[str, str]) -> InspectionRequest:
    """Remove the request from the environment and return it. Raises ValueError where there is none, or a broken one."""
    parts = [environment.pop(name) for name in variables_of(ENV_REQUEST, environment)]
    if not parts:
        raise ValueError(f"{ENV_REQUEST} is not set; the operator sets it in the pods that it makes")
    return InspectionRequest.model_validate_json("".join(parts))


def report_line(result: InspectionResult) -> str:
    """The line of the log that tells the result."""
    return json.dumps({"event": EVENT, **result.model_dump(mode="json", by_alias=True, exclude_none=True)})


def run(environment: MutableMapping[str, str], limits: InspectionLimits, root: Path, out: TextIO) -> int:
    """Do what the environment asks for and write the report's line to ``out``; returns the exit code.

    0 whatever the verdict on the model; 1 for a fault of ours, which says nothing about the model.

    Args:
        environment: the process's own; the cloud's variables in it count only where the request says so.
        limits: of the inspection.
        root: folder at which the claim of a ``pvc`` source is mounted.
        out: where the report goes.
    """
    try:
        seal()
        request = take_request(environment)
        if not request.workload_identity:
            scrub_environment(environment)
        result = asyncio.run(inspect_once(request, limits, root))
    except Exception:
        _LOG.exception("the inspection failed by a fault of the inspector")
        return 1
    print(report_line(result), file=out, flush=True)
    return 0


async def inspect_once(request: InspectionRequest, limits: InspectionLimits, root: Path) -> InspectionResult:
    """Inspect: a ``pvc`` source in the folder ``root``, any other where its URI leads."""
    told = log_progress(time.monotonic)
    return await inspect(request, limits=limits, progress=told, claims=root)


def log_progress(clock: Callable[[], float]) -> Callable[[int, int | None], None]:
    """A receiver of progress that logs it now and then, and ever more seldom: the log is read up to some length."""
    pause, due = PROGRESS_SECONDS, clock() + PROGRESS_SECONDS

    def tell(read: int, size: int | None) -> None:
        nonlocal pause, due
        if clock() >= due:
            pause *= 1.5
            due = clock() + pause
            _LOG.info("reading", extra={"event": "progress", "bytesRead": read, "sizeBytes": size})

    return tell
