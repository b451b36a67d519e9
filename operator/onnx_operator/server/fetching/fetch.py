"""``onnx-server fetch``: bring exactly the inspected files to the pod's volume, or say why not."""

import asyncio
import hashlib
import logging
import shutil
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import FetchPlan, Phase
from onnx_operator.api.names import SOURCE_DIRECTORY
from onnx_operator.api.sources import SourceFile, SourcePin
from onnx_operator.api.urls import shown_uri
from onnx_operator.common.backoff import Backoff
from onnx_operator.server.fetching.plan import (
    WORK_FOLDER,
    FetchError,
    Part,
    credentials_for,
    parts_of,
    read_plan,
    take_credentials,
)
from onnx_operator.server.fetching.progress import Progress
from onnx_operator.server.termination import TerminationLog

if TYPE_CHECKING:
    from onnx_operator.model.sources.base import Source
    from onnx_operator.model.sources.transfer import Downloaded

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Retries:
    """How often an unreachable source is tried, and the seconds before the second try (then doubled)."""

    attempts: int = 5
    first_delay: float = 1.0


def run(environment: MutableMapping[str, str], retries: Retries, root: Path = Path(SOURCE_DIRECTORY)) -> int:
    """Carry out the plan in ``environment`` and return the exit code.

    The termination message tells what failed. ``root`` is where the claim of a ``pvc`` source is mounted.
    """
    credentials = take_credentials(environment)
    log = TerminationLog.from_environment()
    log.enter(Phase.DOWNLOADING)
    try:
        plan = read_plan(environment)
        asyncio.run(fetch(plan, credentials, retries, root))
    except FetchError as error:
        log.fail(error.reason, error.message, error.observed)
        logger.error("%s", error.message, extra={"fields": {"reason": error.reason}})
        return 1
    return 0


async def fetch(plan: FetchPlan, credentials: Mapping[str, str], retries: Retries, root: Path) -> None:
    """Make the plan's folders hold exactly the planned files. Raises :class:`FetchError`.

    A file appears under its name only when it is complete and verified, those of an archive all at once. What an
    earlier try left unfinished is continued where the pin makes sure that it is the same version. The model comes
    first: what is wrong with it is told before what is wrong with its test data.
    """
    try:
        write_scoring(plan)
    except OSError as error:
        raise FetchError(Reason.DOWNLOAD_FAILED, f"cannot write to {plan.scoring_directory}: {error}") from None
    for part in parts_of(plan):
        try:
            await _Work(part, plan, credentials, retries, root).fetch()
        except FetchError as error:
            if part.entry:
                raise
            # A pin that was observed would be taken for the model's.
            raise FetchError(error.reason, f"test data: {error.message}") from None
        except OSError as error:
            raise FetchError(Reason.DOWNLOAD_FAILED, f"cannot write to {part.directory}: {error}") from None


def write_scoring(plan: FetchPlan) -> None:
    """Write the scoring script's files, which the plan holds. Raises OSError."""
    for name, text in plan.scoring.items():
        Path(plan.scoring_directory, name).write_text(text)


class _Work:
    """One run of a part of a plan."""

    def __init__(
        self, part: Part, plan: FetchPlan, credentials: Mapping[str, str], retries: Retries, root: Path
    ) -> None:
        self._part = part
        self._plan = plan
        self._credentials = credentials_for(part.uri, credentials)
        self._retries = retries
        self._root = root
        self._directory = Path(part.directory)
        self._work = self._directory / WORK_FOLDER
        self._unpacked = self._work / "unpacked"
        self._mismatch = self._work / "mismatch"
        self._archive = self._work / "archive"
        self._progress = Progress(part.downloading, part.size_bytes)

    async def fetch(self) -> None:
        part = self._part
        if self._mismatch.exists():
            # A plan never changes: the same bytes need not be downloaded again to be refused again.
            raise FetchError(Reason.DIGEST_MISMATCH, self._mismatch.read_text())
        path = self._directory / part.entry
        if part.archive and self._unpacked.exists() and path.is_file():
            self._archive.unlink(missing_ok=True)
            logger.info("%s is already there", part.what, extra={"fields": {"path": str(path)}})
            return
        await self._fetch_files()
        if part.archive:
            await asyncio.to_thread(self._unpack)
        else:
            shutil.rmtree(self._work, ignore_errors=True)
        for folder in part.folders:
            (self._directory / folder).mkdir(parents=True, exist_ok=True)
        logger.info("%s is complete", part.what, extra={"fields": {"path": str(path), "bytes": part.size_bytes}})

    def _target(self, file: SourceFile) -> Path:
        return self._archive if self._part.archive else self._directory / file.name

    def _shown(self, file: SourceFile) -> str:
        """The file as messages may name it: a query can carry a signature."""
        uri = shown_uri(self._part.uri)
        return f"{uri} (file {file.name})" if len(self._part.files) > 1 else uri

    def _of(self, file: SourceFile, message: str) -> str:
        """A message of the source, with the file that it is about."""
        return message if len(self._part.files) == 1 or file.name in message else f"file {file.name}: {message}"

    async def _fetch_files(self) -> None:
        missing = []
        for number, file in enumerate(self._part.files):
            if await asyncio.to_thread(_holds, self._target(file), file):
                _log_file("the file is already there", self._target(file), file.size_bytes, file.sha256)
                self._progress.advance(file.size_bytes)
            else:
                missing.append((number, file))
        if not missing:
            return

        async with self._source() as source:
            for number, file in missing:
                await self._fetch_file(source, file, self._work / f"file-{number}")

    def _source(self) -> "Source":
        from onnx_operator.model.sources.base import SourceError
        from onnx_operator.model.sources.opening import open_source

        plan, uri = self._plan, self._part.uri
        try:
            return open_source(
                uri,
                credentials=self._credentials,
                settings=plan.sources,
                workload_identity=plan.workload_identity,
                claims=self._root,
            )
        except SourceError as error:
            raise FetchError(Reason.DOWNLOAD_FAILED, f"{error.reason}: {error.message}") from None

    async def _fetch_file(self, source: "Source", file: SourceFile, folder: Path) -> None:
        partial, target = folder / "partial", self._target(file)
        if file.pin.kind == "None":
            _discard(folder)
        resumed = partial.exists()
        downloaded = await self._download(source, file, partial)
        expected = _expected(file)
        if resumed and expected and downloaded.sha256 != expected:
            # The beginning may stem from other bytes than the end; only a whole read accuses the source.
            _discard(folder)
            downloaded = await self._download(source, file, partial)
        pointer = _pointer(partial)
        if downloaded.size != file.size_bytes or downloaded.sha256 != (expected or downloaded.sha256):
            _discard(folder)
            raise self._other_bytes(file, downloaded, f"; it is {pointer}" if pointer else "")
        # What lies beside the model for a script may be one: only the script knows what it needs.
        if pointer and not self._plan.scoring:
            _discard(folder)
            raise FetchError(Reason.DOWNLOAD_FAILED, f"{self._shown(file)} is {pointer}")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)
        _discard(folder)
        self._progress.advance(file.size_bytes)
        _log_file("the file is complete", target, downloaded.size, downloaded.sha256)

    def _other_bytes(self, file: SourceFile, downloaded: "Downloaded", remark: str) -> FetchError:
        shown, found = self._shown(file), f"sha256 {downloaded.sha256} ({downloaded.size} bytes)"
        same_version = file.pin.kind == "Immutable" or (file.pin.kind == "Conditional" and file.claimed)
        if file.sha256 and same_version and downloaded.size == file.size_bytes:
            message = (
                f"{shown} has {found}, but must have {file.sha256} by spec.model.sha256, its signature or the store's "
                f"own word; correct the digest, or upload the right file{remark}"
            )
            self._mismatch.write_text(message)
            return FetchError(Reason.DIGEST_MISMATCH, message)
        expected = (
            f"sha256 {_expected(file)} ({file.size_bytes} bytes)" if _expected(file) else f"{file.size_bytes} bytes"
        )
        return FetchError(
            Reason.SOURCE_CHANGED,
            f"{shown} holds other bytes than were inspected: {found}, expected {expected}{remark}",
            SourcePin(kind="None", value=f"sha256:{downloaded.sha256}"),
        )

    async def _download(self, source: "Source", file: SourceFile, partial: Path) -> "Downloaded":
        from onnx_operator.model.sources.base import SourceChangedError, SourceError
        from onnx_operator.model.sources.transfer import download

        partial.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, self._retries.attempts + 1):
            try:
                return await download(
                    source,
                    file.name,
                    partial,
                    pin=file.pin,
                    max_bytes=file.size_bytes,
                    resume=file.pin.kind != "None",
                    progress=self._progress,
                )
            except SourceChangedError as error:
                _discard(partial.parent)
                # A pin without a value would tell the controller nothing.
                observed = error.observed if error.observed.value else None
                raise FetchError(Reason.SOURCE_CHANGED, self._of(file, error.message), observed) from None
            except SourceError as error:
                if error.reason is Reason.TOO_LARGE:
                    _discard(partial.parent)
                    raise await self._grown(source, file) from None
                if not error.retriable or attempt == self._retries.attempts:
                    message = f"{error.reason}: {self._of(file, error.message)}"
                    raise FetchError(Reason.DOWNLOAD_FAILED, message) from None
                delay = Backoff(self._retries.first_delay, spread=0).after(attempt)
                fields = {"attempt": attempt, "delaySeconds": delay}
                logger.warning("%s; trying again", error.message.rstrip("."), extra={"fields": fields})
                await asyncio.sleep(delay)
        raise AssertionError("the last attempt returns or raises")

    async def _grown(self, source: "Source", file: SourceFile) -> FetchError:
        """Describe a file that has more bytes than were inspected."""
        from onnx_operator.model.sources.base import SourceError

        try:
            stat = await source.stat(file.name)
        except SourceError:
            stat = None
        size = f"{stat.size} bytes" if stat and stat.size else "more"
        return FetchError(
            Reason.SOURCE_CHANGED,
            f"{self._shown(file)} holds {size}, inspected were {file.size_bytes} bytes",
            stat.pin if stat else None,
        )

    def _unpack(self) -> None:
        from onnx_operator.model.archive import ArchiveError, ArchiveLimits, extract

        part = self._part
        shown = self._shown(part.files[0])
        progress = Progress("unpacking", part.unpacked_bytes)
        try:
            extract(self._archive, self._directory, ArchiveLimits(unpacked_bytes=part.unpacked_bytes), progress)
        except ArchiveError as error:
            raise FetchError(Reason.DOWNLOAD_FAILED, f"{shown}: {error.reason}: {error.message}") from None
        if not (self._directory / part.entry).is_file():
            raise FetchError(Reason.DOWNLOAD_FAILED, f"{shown} holds no {part.entry}")
        self._work.mkdir(exist_ok=True)
        self._unpacked.touch()
        self._archive.unlink(missing_ok=True)


def _expected(file: SourceFile) -> str:
    """The digest that a file must have; empty where only its pin ties it."""
    return file.sha256 or (file.pin.value.removeprefix("sha256:") if file.pin.kind == "None" else "")


def _holds(path: Path, file: SourceFile) -> bool:
    if not path.is_file() or path.stat().st_size != file.size_bytes:
        return False
    expected = _expected(file)
    if not expected:
        # Under its name a file is only ever complete and verified.
        return True
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest() == expected


def _pointer(path: Path) -> str:
    """What a small file stands for; empty for one that is no pointer of Git LFS."""
    from onnx_operator.model.lfs import MAX_POINTER_BYTES, pointer_text

    return pointer_text(path.read_bytes()) if path.stat().st_size <= MAX_POINTER_BYTES else ""


def _log_file(what: str, path: Path, size: int, sha256: str) -> None:
    logger.info(what, extra={"fields": {"path": str(path), "bytes": size, "sha256": sha256}})


def _discard(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
