"""An inspection from URI to verdict: locate, look, read what the verdict needs, prove what can be proven."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import InspectionRequest, InspectionResult
from onnx_operator.api.signatures import SignedManifest
from onnx_operator.api.sources import ModelFiles, SourceFile, SourcePin
from onnx_operator.model.inspection.companions import companions
from onnx_operator.model.inspection.faults import ParserError
from onnx_operator.model.inspection.feed import Progress, SourceFeed
from onnx_operator.model.inspection.isolation import Parser
from onnx_operator.model.inspection.stopwatch import Stopwatch
from onnx_operator.model.inspection.testdata import find_test_data
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.signatures.signing import (
    MAX_SIGNATURE_BYTES,
    SignatureError,
    expected_digests,
    signature_names,
)
from onnx_operator.model.sources import Source, SourceChangedError, SourceError, open_source
from onnx_operator.model.sources.base import is_confined

_ATTEMPTS = 3


async def inspect(
    request: InspectionRequest,
    *,
    limits: InspectionLimits,
    parser: Parser | None = None,
    progress: Progress | None = None,
    stopwatch: Stopwatch | None = None,
    claims: Path | None = None,
) -> InspectionResult:
    """Inspect the model that ``request`` names.

    Whatever is wrong with the source or the model is a refusal. Raises ParserError for a fault of ours. Without
    ``parser``, one is started for this inspection alone. ``stopwatch`` stands still while others have the parser.
    ``claims`` is the folder where the claim of a ``pvc`` URI is mounted.
    """
    look = _Look(stopwatch)
    try:
        async with (
            open_source(
                request.uri,
                credentials=request.credentials,
                settings=request.sources,
                workload_identity=request.workload_identity,
                claims=claims,
            ) as source,
            _parser(parser, limits, request.signatures.required) as verify,
        ):
            result = await inspect_source(source, request, limits=limits, parser=verify, progress=progress, look=look)
        if request.test_data and result.refusal is None:
            return result.model_copy(update={"test_data": await find_test_data(request)})
        return result
    except SourceError as error:
        return error.result(look.pin)


@dataclass
class _Look:
    stopwatch: Stopwatch | None = None
    pin: SourcePin | None = None
    """What was found, once known: a refusal tells it too."""


async def inspect_source(
    source: Source,
    request: InspectionRequest,
    *,
    limits: InspectionLimits,
    parser: Parser,
    progress: Progress | None = None,
    look: _Look | None = None,
) -> InspectionResult:
    """Inspect what lies at an open source. Raises :class:`SourceError` and ParserError."""
    look = look or _Look()
    for _ in range(_ATTEMPTS):
        try:
            return await _inspect(source, request, limits, parser, progress, look)
        except SourceChangedError:
            # Somebody wrote it between two requests; what they wrote counts.
            continue
    raise SourceError(Reason.SOURCE_UNREACHABLE, f"{source.shown} changed while it was read.", retriable=True)


async def _inspect(
    source: Source,
    request: InspectionRequest,
    limits: InspectionLimits,
    parser: Parser,
    progress: Progress | None,
    look: _Look,
) -> InspectionResult:
    names = await source.locate()
    for name in names:
        last = name == names[-1]
        async with SourceFeed(source, limits.max_model_bytes, progress) as feed:
            stat = await feed.find(name)
            look.pin = stat.pin
            if stat.sha256 is not None:
                if not last and _wanted(request) not in ("", stat.sha256):
                    continue
                _check_digest(request, source, stat.sha256)
            verdict = await parser.verify(
                feed,
                name,
                size=stat.size,
                capabilities=request.capabilities,
                tenant=request.tenant,
                stopwatch=look.stopwatch,
            )
            if not last and verdict.refusal and verdict.refusal.reason is Reason.NOT_ONNX:
                # Of several archives, this one holds no model.
                continue
            if verdict.files is None or verdict.report is None:
                return await _refusal(feed, name, verdict, request, source)
            _check_claims(verdict.files, name)
            files = [await feed.finish(file.name) for file in verdict.files.files]
            if files[0].sha256:
                _check_digest(request, source, files[0].sha256)
            elif request.sha256:
                files[0] = files[0].model_copy(update={"sha256": _wanted(request), "claimed": True})
            signed = signature_names(files[0].name) if request.signatures.required else ()
            if request.whole_folder and not verdict.files.archive:
                files += await companions(feed, [file.name for file in files], signed)
            signer = ""
            if request.signatures.required:
                signature, manifest = await _signed(feed, parser, request, files[0].name, look.stopwatch)
                files = _prove(files, manifest, signature, source)
                signer = manifest.signer
            return _accepted(verdict, verdict.files.model_copy(update={"files": files}), signer)
    raise SourceError(Reason.SOURCE_NOT_FOUND, f"{source.shown} holds nothing that may be a model.")


def _check_claims(files: ModelFiles, name: str) -> None:
    """Hold what a child says of files, which it may have been made to say, against what it was asked."""
    names = [file.name for file in files.files]
    if not names or names[0] != name or not all(map(is_confined, (*names, *files.folders, files.model))):
        raise ParserError(f"the parsing child speaks of the files {names!r:.200} instead of {name}")


async def _refusal(
    feed: SourceFeed, name: str, verdict: InspectionResult, request: InspectionRequest, source: Source
) -> InspectionResult:
    """The verdict, with the pin of what was refused; a digest that does not fit explains more than the verdict."""
    stat = await feed.find(name)
    found = feed.hashed(name)
    if found:
        _check_digest(request, source, found)
    pin = stat.pin or (SourcePin(kind="None", value=f"sha256:{found}") if found else None)
    return verdict.model_copy(update={"source": pin})


def _accepted(verdict: InspectionResult, files: ModelFiles, signer: str) -> InspectionResult:
    assert verdict.report is not None
    pin = pin_of(files.files)
    digest = files.files[0].sha256
    report = verdict.report.model_copy(
        update={"source": pin, "digest": f"sha256:{digest}" if digest else "", "signer": signer}
    )
    return verdict.model_copy(update={"source": pin, "report": report.bounded(), "files": files})


def pin_of(files: list[SourceFile]) -> SourcePin:
    """The pin of a whole model: its file's; of several files the weakest kind, and a hash over what pins each."""
    if len(files) == 1:
        return files[0].pin
    kinds = {file.pin.kind for file in files}
    rows = sorted([file.name, file.pin.kind, file.pin.value, file.size_bytes] for file in files)
    digest = hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()
    value = f"sha256:{digest}"
    if "None" in kinds:
        return SourcePin(kind="None", value=value)
    return SourcePin(kind="Conditional" if "Conditional" in kinds else "Immutable", value=value)


def _wanted(request: InspectionRequest) -> str:
    return request.sha256.lower().removeprefix("sha256:")


def _check_digest(request: InspectionRequest, source: Source, found: str) -> None:
    wanted = _wanted(request)
    if wanted and wanted != found:
        raise SourceError(
            Reason.DIGEST_MISMATCH,
            f"{source.shown} has the sha256 {found}, but spec.model.sha256 asks for {wanted}. Correct"
            " spec.model.sha256, or restore the file.",
        )


async def _signed(
    feed: SourceFeed, parser: Parser, request: InspectionRequest, name: str, stopwatch: Stopwatch | None
) -> tuple[str, SignedManifest]:
    shown = feed.source.shown
    tried = signature_names(name)
    for candidate in tried:
        size = await feed.size(candidate)
        if size is None:
            continue
        if size > MAX_SIGNATURE_BYTES:
            raise SourceError(
                Reason.SIGNATURE_INVALID,
                f"{shown}: the signature {candidate} has {size} bytes, of which at most {MAX_SIGNATURE_BYTES} are"
                " read. Sign a folder with fewer files, or the model's file alone.",
            )
        content = await feed.read(candidate, 0, size)
        try:
            manifest = await parser.verify_signature(
                content, request.signatures, tenant=request.tenant, stopwatch=stopwatch
            )
            return candidate, manifest
        except SignatureError as error:
            raise SourceError(Reason.SIGNATURE_INVALID, f"{shown}: the signature {candidate}: {error}") from None
    raise SourceError(
        Reason.SIGNATURE_INVALID,
        f"{shown} is not signed: there is no {' or '.join(tried)}, and the setting signatures.required asks for a"
        " signature. Sign the model with the model_signing tool, and upload the signature beside it.",
    )


def _prove(files: list[SourceFile], manifest: SignedManifest, signature: str, source: Source) -> list[SourceFile]:
    """Tie the files to what was signed; what nobody vouches for yet, the pod proves before the server starts."""
    model, *others = [file.name for file in files]
    try:
        signed = expected_digests(manifest, model, others, signature_name=signature)
    except SignatureError as error:
        raise SourceError(Reason.SIGNATURE_INVALID, f"{source.shown}: {error}") from None
    for file in files:
        if file.sha256 and file.sha256 != signed[file.name]:
            raise SourceError(
                Reason.SIGNATURE_INVALID,
                f"{source.shown}: {file.name} has the sha256 {file.sha256}, but {signed[file.name]} was signed. Restore"
                " the signed file, or sign the new one.",
            )
    return [
        file.model_copy(update={"sha256": signed[file.name], "claimed": not file.sha256 or file.claimed})
        for file in files
    ]


@asynccontextmanager
async def _parser(given: Parser | None, limits: InspectionLimits, signatures: bool) -> AsyncIterator[Parser]:
    if given is not None:
        yield given
        return
    async with Parser(limits, signatures=signatures) as own:
        yield own
