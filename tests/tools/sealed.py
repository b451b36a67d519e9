"""A pytest plugin: what tests judge or verify in their own process is judged in a sealed child instead.

``python -m pytest -p tests.tools.sealed tests/unit/model`` shows that the list of allowed system calls has all that
the tests' models, archives and signatures take. It is slow: each verdict takes a process.
"""

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

import pytest

import onnx_operator.model.verdict as judging
from onnx_operator.api.report import Capabilities, InspectionResult
from onnx_operator.api.signatures import SignatureSettings, SignedManifest
from onnx_operator.model.archive import ArchiveLimits
from onnx_operator.model.inspection.isolation import Parser
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.reading.folder import Folder
from onnx_operator.model.signatures import signing
from tests.unit.model.feedkit import FolderFeed

_T = TypeVar("_T")
_LOOP = asyncio.new_event_loop()
_LIMITS = InspectionLimits(answer_seconds=300, cpu_seconds=120)
_PARSER = Parser(_LIMITS, signatures=True)
_VERIFY = signing.verify_signature
_COUNTS = {"models": 0, "signatures": 0}


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run_coroutine_threadsafe(work, _LOOP).result()


def _verify_model(
    folder: Folder, name: str, *, capabilities: Capabilities, archives: ArchiveLimits | None = None, **_: object
) -> InspectionResult:
    _COUNTS["models"] += 1
    unpacked = (archives or ArchiveLimits()).unpacked_bytes
    _PARSER._limits = replace(_LIMITS, max_model_bytes=unpacked)
    result = _run(_PARSER.verify(FolderFeed(folder), name, size=None, capabilities=capabilities))
    if result.report is None:
        return result
    # The capabilities of tests are not those of the runtime, which therefore is not asked.
    notes = [note for note in result.report.notes if not note.startswith("Judged by tables")]
    return result.model_copy(update={"report": result.report.model_copy(update={"notes": notes})})


def _verify_signature(signature: bytes, settings: SignatureSettings, *, now: datetime | None = None) -> SignedManifest:
    if now is not None:
        return _VERIFY(signature, settings, now=now)
    _COUNTS["signatures"] += 1
    return _run(_PARSER.verify_signature(signature, settings))


# Before any test or conftest imports these by their names.
judging.verify = _verify_model  # type: ignore[assignment]
signing.verify_signature = _verify_signature


def pytest_configure() -> None:
    threading.Thread(target=_LOOP.run_forever, daemon=True).start()
    _PARSER.start()


def pytest_unconfigure() -> None:
    _run(_PARSER.aclose())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = " and ".join(f"{count} {what}" for what, count in _COUNTS.items())
    terminalreporter.write_line(f"sealed: {counts}; forbidden calls: {_PARSER.forbidden_calls}")
