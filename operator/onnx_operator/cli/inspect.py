"""``kubectl onnx inspect``: the controller's own inspection, on this machine."""

import asyncio
import hashlib
import os
import tempfile
from pathlib import Path

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import CREDENTIAL_VARIABLES
from onnx_operator.api.report import InspectionRequest, InspectionResult, Refusal, TensorSpec
from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.model.inspection import inspect
from onnx_operator.model.isolation import Parser
from onnx_operator.model.limits import InspectionLimits

UNREADABLE = frozenset(
    {Reason.SOURCE_UNREACHABLE, Reason.SOURCE_NOT_FOUND, Reason.SOURCE_UNAUTHORIZED, Reason.SOURCE_REFUSED}
)


def exit_code(result: InspectionResult) -> int:
    """0 valid, 1 refused, 2 could not be read."""
    if result.refusal is None:
        return 0
    return 2 if result.refusal.reason in UNREADABLE else 1


def inspect_model(uri: str, sha256: str, settings: SourceSettings) -> InspectionResult:
    """Inspect a file of this machine, or a source."""
    return asyncio.run(_remote(uri, sha256, settings) if "://" in uri else _local(Path(uri), sha256))


async def _remote(uri: str, sha256: str, settings: SourceSettings) -> InspectionResult:
    variables = CREDENTIAL_VARIABLES.get(uri.split("://", 1)[0], ())
    request = InspectionRequest(
        uri=uri,
        sha256=sha256,
        credentials={name: os.environ[name] for name in variables if os.environ.get(name)},
        sources=settings,
        capabilities=load_capabilities(),
    )
    with tempfile.TemporaryDirectory() as folder:
        return await inspect(request, workdir=Path(folder), limits=InspectionLimits())


async def _local(path: Path, sha256: str) -> InspectionResult:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}. Give the path of an .onnx file, https://… or s3://…"
        return InspectionResult(outcome="Refused", refusal=Refusal(reason=Reason.SOURCE_NOT_FOUND, message=message))
    if sha256 and found != sha256.lower():
        message = f"{path} has the sha256 {found}, but {sha256} is asked for"
        return InspectionResult(outcome="Refused", refusal=Refusal(reason=Reason.DIGEST_MISMATCH, message=message))
    pin = SourcePin(kind="None", value=f"sha256:{found}")
    async with Parser(InspectionLimits()) as parser:
        return await parser.judge(path, source=pin, sha256=found, capabilities=load_capabilities())


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.datatype}[{', '.join(map(str, spec.shape))}]"


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


def describe(uri: str, result: InspectionResult) -> str:
    """The result for people."""
    if result.refusal or result.report is None:
        refusal = result.refusal
        verdict = "could not be read" if exit_code(result) == 2 else "refused"
        return f"{uri}: {verdict}" + (f"\n{refusal.reason}: {refusal.message}" if refusal else "")
    report = result.report
    opsets = ", ".join(f"{domain} {version}" for domain, version in sorted(report.opsets.items()))
    rows = [
        ("digest", report.digest),
        ("size", _size(report.size_bytes)),
        ("producer", report.producer or "not said"),
        ("IR version", str(report.ir_version)),
        ("opsets", opsets),
        ("memory", f"about {_size(report.memory.resident_bytes)} to serve"),
        ("weights", _size(report.memory.weights_bytes)),
        ("interface", result.interface),
        *(("input", _tensor(t)) for t in report.inputs),
        *(("output", _tensor(t)) for t in report.outputs),
    ]
    return "\n".join([f"{uri}: valid", *(f"  {name:<11} {text}" for name, text in rows)])
