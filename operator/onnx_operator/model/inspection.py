"""An inspection from URI to verdict: look, download, compare, judge."""

import errno
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import InspectionRequest, InspectionResult, Refusal
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.budget import ByteBudget
from onnx_operator.model.isolation import Parser
from onnx_operator.model.limits import LARGEST_FILE_BYTES, InspectionLimits
from onnx_operator.model.sources import (
    Downloaded,
    Source,
    SourceChangedError,
    SourceError,
    SourceStat,
    open_source,
)

FILE_PREFIX = "inspect-"
"""Names of temporary files begin so; what a crash left behind may be removed by it."""
_ATTEMPTS = 3
_SPARE_BYTES = 16 << 20
"""Disk that is left free for everybody else."""


async def inspect(
    request: InspectionRequest,
    *,
    workdir: Path,
    limits: InspectionLimits,
    parser: Parser | None = None,
    budget: ByteBudget | None = None,
) -> InspectionResult:
    """Inspect the model that ``request`` names, with a temporary file in ``workdir``.

    Whatever is wrong with the source or the model is a refusal. Raises
    :class:`~onnx_operator.model.isolation.ParserError` for a fault of ours, and OSError when ``workdir`` cannot
    be used. Without ``parser``, one is started for this inspection alone.
    """
    look = _Look()
    try:
        async with (
            open_source(request.uri, credentials=request.credentials, settings=request.sources) as source,
            _parser(parser, limits) as judge,
            AsyncExitStack() as held,
        ):
            # Entered first, so that the file is gone before its bytes are given back.
            stat = await _stat(source, request, workdir, limits, look)
            if budget:
                await held.enter_async_context(budget.take(min(stat.size or _limit(limits), _limit(limits))))
            path = held.enter_context(_temporary(workdir))
            downloaded = await _download(source, request, stat, path, workdir, limits, look)
            # A store without versions pins nothing but what the bytes themselves say.
            look.pin = pin = downloaded.pin or SourcePin(kind="None", value=f"sha256:{downloaded.sha256}")
            _check_digest(request, downloaded.sha256)
            return await judge.judge(path, source=pin, sha256=downloaded.sha256, capabilities=request.capabilities)
    except SourceError as error:
        refusal = Refusal(reason=error.reason, message=error.message, retriable=error.retriable)
        return InspectionResult(outcome="Refused", source=look.pin, refusal=refusal)


@dataclass
class _Look:
    pin: SourcePin | None = None
    """What was found, once known: a refusal tells it too."""


def _limit(limits: InspectionLimits) -> int:
    return min(limits.max_model_bytes, LARGEST_FILE_BYTES)


async def _stat(
    source: Source, request: InspectionRequest, workdir: Path, limits: InspectionLimits, look: _Look
) -> SourceStat:
    stat = await source.stat()
    look.pin = stat.pin
    if stat.sha256 is not None:
        _check_digest(request, stat.sha256)
    if stat.size is not None:
        _check_size(request, stat.size, limits)
        _check_space(request, stat.size, workdir)
    return stat


async def _download(
    source: Source,
    request: InspectionRequest,
    stat: SourceStat,
    path: Path,
    workdir: Path,
    limits: InspectionLimits,
    look: _Look,
) -> Downloaded:
    limit = _limit(limits)
    for attempt in range(_ATTEMPTS):
        if attempt:
            stat = await _stat(source, request, workdir, limits, look)
        try:
            return await source.download(path, pin=stat.pin, max_bytes=limit)
        except SourceChangedError:
            # Somebody wrote it between the two requests; what they wrote counts.
            continue
        except SourceError as error:
            if error.reason is Reason.TOO_LARGE:
                _check_size(request, limit + 1, limits)
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                _check_space(request, None, workdir)
            raise
    raise SourceError(
        Reason.SOURCE_UNREACHABLE,
        f"{_shown(request)} changes while it is read. It is tried again.",
        retriable=True,
    )


def _check_digest(request: InspectionRequest, found: str) -> None:
    wanted = request.sha256.lower().removeprefix("sha256:")
    if wanted and wanted != found:
        raise SourceError(
            Reason.DIGEST_MISMATCH,
            f"{_shown(request)} has the sha256 {found}, but spec.model.sha256 asks for {wanted}. Correct"
            " spec.model.sha256, or restore the file.",
        )


def _check_size(request: InspectionRequest, size: int, limits: InspectionLimits) -> None:
    if size > limits.max_model_bytes:
        raise SourceError(
            Reason.TOO_LARGE,
            f"{_shown(request)} is larger than the {limits.max_model_bytes} bytes that the setting"
            " inspection.maxModelBytes allows.",
        )
    if size > LARGEST_FILE_BYTES:
        raise SourceError(
            Reason.TOO_LARGE,
            f"{_shown(request)} is larger than 2 GiB, which no runtime reads as one ONNX file. Quantize the model,"
            " or store its weights as external data.",
        )


def _check_space(request: InspectionRequest, size: int | None, workdir: Path) -> None:
    free = shutil.disk_usage(workdir).free
    if size is None or size > free - _SPARE_BYTES:
        needs = "" if size is None else f" needs {size} bytes, and"
        raise SourceError(
            Reason.TOO_LARGE,
            f"{_shown(request)}{needs} is too large for the inspector's volume, which has {free} bytes left. Enlarge"
            " it, or lower inspection.maxModelBytes.",
            retriable=True,
        )


def _shown(request: InspectionRequest) -> str:
    uri = request.uri
    return uri if uri.startswith("s3://") else uri.partition("?")[0].partition("#")[0]


@contextmanager
def _temporary(workdir: Path) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(dir=workdir, prefix=FILE_PREFIX, suffix=".onnx") as file:
        yield Path(file.name)


@asynccontextmanager
async def _parser(given: Parser | None, limits: InspectionLimits) -> AsyncIterator[Parser]:
    if given is not None:
        yield given
        return
    async with Parser(limits) as own:
        yield own
