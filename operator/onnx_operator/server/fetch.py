"""``onnx-server fetch``: bring exactly the inspected bytes to the pod's volume, or say why not."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import ValidationError

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import CREDENTIAL_VARIABLES, FetchPlan, Phase
from onnx_operator.api.names import ENV_FETCH_PLAN
from onnx_operator.api.sources import SourcePin
from onnx_operator.server.termination import TerminationLog

if TYPE_CHECKING:
    from onnx_operator.model.sources import Downloaded, Source

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_SECONDS = 2.0
_BLOCK_BYTES = 1 << 20


class FetchError(Exception):
    """The planned bytes could not be brought. ``reason`` is ``DownloadFailed`` or ``SourceChanged``."""

    def __init__(self, reason: Reason, message: str, observed: SourcePin | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.observed = observed


@dataclass(frozen=True)
class Retries:
    """How often an unreachable source is tried, and the seconds before the second try (then doubled)."""

    attempts: int = 5
    first_delay: float = 1.0


def take_credentials(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Remove all credential variables from ``environment``; return those of the plan's scheme.

    Nothing that runs afterwards, libraries included, finds them by looking around.
    """
    found = {
        name: environment.pop(name) for names in CREDENTIAL_VARIABLES.values() for name in names if name in environment
    }
    try:
        scheme = urlsplit(FetchPlan.model_validate_json(environment.get(ENV_FETCH_PLAN, "")).uri).scheme.lower()
    except ValueError:
        return {}
    return {name: found[name] for name in CREDENTIAL_VARIABLES.get(scheme, ()) if name in found}


def run(environment: MutableMapping[str, str], retries: Retries) -> int:
    """Carry out the plan in ``environment`` and return the exit code.

    The termination message tells what failed.
    """
    credentials = take_credentials(environment)
    log = TerminationLog.from_environment()
    log.enter(Phase.DOWNLOADING)
    try:
        plan = _read_plan(environment)
        asyncio.run(fetch(plan, credentials, retries))
    except FetchError as error:
        log.fail(error.reason, error.message, error.observed)
        logger.error("%s", error.message, extra={"fields": {"reason": error.reason}})
        return 1
    return 0


async def fetch(plan: FetchPlan, credentials: Mapping[str, str], retries: Retries) -> None:
    """Make ``plan.destination`` hold exactly the planned bytes. Raises :class:`FetchError`.

    The file appears under its name only when complete and verified. What an earlier try left in ``.partial``
    is continued where the pin makes sure that it is the same version.
    """
    destination = Path(plan.destination)
    partial = destination.with_name(destination.name + ".partial")
    try:
        if await asyncio.to_thread(_holds, destination, plan):
            logger.info("the model is already there", extra={"fields": {"path": plan.destination}})
            return
        destination.parent.mkdir(parents=True, exist_ok=True)
        if plan.pin.kind == "None":
            partial.unlink(missing_ok=True)
        resumed = partial.exists()
        downloaded = await _download(plan, credentials, partial, retries)
        if resumed and downloaded.sha256 != plan.sha256:
            # The beginning may stem from other bytes than the end; only a whole read accuses the source.
            partial.unlink(missing_ok=True)
            downloaded = await _download(plan, credentials, partial, retries)
        _verify(plan, downloaded, partial)
        partial.replace(destination)
    except OSError as error:
        raise FetchError(Reason.DOWNLOAD_FAILED, f"cannot write {plan.destination}: {error}") from None
    logger.info("the model is complete", extra={"fields": {"bytes": downloaded.size, "sha256": downloaded.sha256}})


def _read_plan(environment: Mapping[str, str]) -> FetchPlan:
    text = environment.get(ENV_FETCH_PLAN)
    if not text:
        raise FetchError(Reason.DOWNLOAD_FAILED, f"{ENV_FETCH_PLAN} is not set")
    try:
        return FetchPlan.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise FetchError(Reason.DOWNLOAD_FAILED, f"{ENV_FETCH_PLAN} is not a fetch plan: {faults}") from None


def _holds(path: Path, plan: FetchPlan) -> bool:
    if not path.is_file() or path.stat().st_size != plan.size_bytes:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest() == plan.sha256


def _verify(plan: FetchPlan, downloaded: "Downloaded", partial: Path) -> None:
    if downloaded.sha256 == plan.sha256 and downloaded.size == plan.size_bytes:
        return
    partial.unlink(missing_ok=True)
    raise FetchError(
        Reason.SOURCE_CHANGED,
        f"{_shown(plan.uri)} holds other bytes than were inspected: sha256 {downloaded.sha256} "
        f"({downloaded.size} bytes), expected {plan.sha256} ({plan.size_bytes} bytes)",
        SourcePin(kind="None", value=f"sha256:{downloaded.sha256}"),
    )


async def _download(plan: FetchPlan, credentials: Mapping[str, str], partial: Path, retries: Retries) -> "Downloaded":
    from onnx_operator.model.sources import SourceChangedError, SourceError, open_source

    progress = Progress(plan.size_bytes)
    for attempt in range(1, retries.attempts + 1):
        try:
            async with open_source(plan.uri, credentials=credentials, settings=plan.sources) as source:
                try:
                    return await source.download(
                        partial,
                        pin=plan.pin,
                        max_bytes=plan.size_bytes,
                        resume=plan.pin.kind != "None",
                        progress=progress,
                    )
                except SourceError as error:
                    if error.reason is Reason.TOO_LARGE:
                        raise await _grown(plan, source, partial) from None
                    raise
        except SourceChangedError as error:
            _discard(partial)
            # A pin without a value would tell the controller nothing.
            observed = error.observed if error.observed.value else None
            raise FetchError(Reason.SOURCE_CHANGED, error.message, observed) from None
        except SourceError as error:
            if not error.retriable or attempt == retries.attempts:
                raise FetchError(Reason.DOWNLOAD_FAILED, f"{error.reason}: {error.message}") from None
            delay = retries.first_delay * 2 ** (attempt - 1)
            logger.warning(
                "%s; trying again",
                error.message,
                extra={"fields": {"attempt": attempt, "delaySeconds": delay}},
            )
            await asyncio.sleep(delay)
    raise AssertionError("the last attempt returns or raises")


async def _grown(plan: FetchPlan, source: "Source", partial: Path) -> FetchError:
    """Describe a source that holds more bytes than were inspected."""
    from onnx_operator.model.sources import SourceError

    _discard(partial)
    try:
        stat = await source.stat()
    except SourceError:
        stat = None
    size = f"{stat.size} bytes" if stat and stat.size else "more"
    return FetchError(
        Reason.SOURCE_CHANGED,
        f"{_shown(plan.uri)} holds {size}, inspected were {plan.size_bytes} bytes",
        stat.pin if stat else None,
    )


def _discard(path: Path) -> None:
    path.unlink(missing_ok=True)


def _shown(uri: str) -> str:
    """The URI as it may appear in messages: a query can carry a signature."""
    return uri.split("?", 1)[0]


class Progress:
    """Logs how far a download is, at most every two seconds. ``clock`` counts seconds."""

    def __init__(self, expected: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._expected = expected
        self._clock = clock
        self._logged_at = clock()
        self._logged_bytes: int | None = None

    def __call__(self, received: int, total: int | None) -> None:
        """Take note of the bytes on disk so far."""
        now = self._clock()
        if self._logged_bytes is None:
            self._logged_bytes = received
        elapsed = now - self._logged_at
        if elapsed < PROGRESS_INTERVAL_SECONDS and received != self._expected:
            return
        rate = max(0, received - self._logged_bytes) / elapsed / 1e6 if elapsed > 0 else 0.0
        self._logged_at, self._logged_bytes = now, received
        expected = total or self._expected
        logger.info(
            "downloading",
            extra={
                "fields": {
                    "bytes": received,
                    "percent": round(100 * received / expected, 1) if expected else 100.0,
                    "megabytesPerSecond": round(rate, 1),
                }
            },
        )
