"""``kubectl onnx inspect``: the controller's own inspection, on this machine."""

import os
from collections.abc import Callable

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import InspectionRequest, InspectionResult
from onnx_operator.api.schemes import scheme_of
from onnx_operator.api.signatures import SignatureSettings
from onnx_operator.api.sources import SourceSettings
from onnx_operator.cli import interrupts
from onnx_operator.cli.credentials import credentials_of
from onnx_operator.cli.proof import prove
from onnx_operator.model.inspection.inspection import inspect_source
from onnx_operator.model.inspection.isolation import Parser
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.sources import Source, SourceError, open_source
from onnx_operator.model.sources.files import FileSource

UNREADABLE = frozenset(
    {
        Reason.SOURCE_UNREACHABLE,
        Reason.SOURCE_NOT_FOUND,
        Reason.SOURCE_UNAUTHORIZED,
        Reason.SOURCE_REFUSED,
        Reason.SOURCE_CHANGED,
        Reason.CREDENTIALS_NOT_FOUND,
    }
)
Progress = Callable[[int, int | None], None]


def exit_code(result: InspectionResult) -> int:
    """0 valid, 1 refused, 2 could not be read."""
    if result.refusal is None:
        return 0
    return 2 if result.refusal.reason in UNREADABLE else 1


def inspect_model(
    uri: str,
    sha256: str = "",
    settings: SourceSettings | None = None,
    signatures: SignatureSettings | None = None,
    *,
    workload_identity: bool = False,
    typed: bool = True,
    whole_folder: bool = False,
    progress: Progress | None = None,
) -> InspectionResult:
    """Inspect a file or folder of this machine, or a source; credentials are the store's standard variables.

    ``typed`` tells that a person gave the URI, not a manifest, ``whole_folder`` that what lies beside the model counts.
    """
    try:
        credentials = credentials_of(uri, os.environ, typed=typed)
    except SourceError as error:
        return error.result()
    request = InspectionRequest(
        uri=uri,
        sha256=sha256,
        credentials=credentials,
        workload_identity=workload_identity,
        sources=settings or SourceSettings(),
        signatures=signatures or SignatureSettings(),
        whole_folder=whole_folder,
        capabilities=load_capabilities(),
    )
    return interrupts.run(_inspect(request, progress))


async def _inspect(request: InspectionRequest, progress: Progress | None) -> InspectionResult:
    limits = InspectionLimits()
    try:
        async with _open(request) as source, Parser(limits, signatures=request.signatures.required) as parser:
            result = await inspect_source(source, request, limits=limits, parser=parser, progress=progress)
            if result.files is not None:
                await prove(source, result.files, progress)
            return result
    except SourceError as error:
        return error.result()


def _open(request: InspectionRequest) -> Source:
    # A name that looks like a scheme may be a file's all the same. Path.exists raises for one that is too long.
    if scheme_of(request.uri) in ("", "file") or os.path.exists(request.uri):  # noqa: PTH110
        return FileSource(request.uri, credentials={}, settings=request.sources)
    return open_source(
        request.uri,
        credentials=request.credentials,
        settings=request.sources,
        workload_identity=request.workload_identity,
    )
