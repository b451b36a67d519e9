"""``onnx-operator inspect-once``: one request from the environment, one report in the log."""

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnx_operator.api.report import Capabilities, InspectionRequest, InspectionResult
from onnx_operator.api.sources import SourceSettings
from onnx_operator.common.variables import MAX_VARIABLE_LENGTH
from onnx_operator.controller.__main__ import main
from onnx_operator.inspector import once
from onnx_operator.inspector.report import find_report
from onnx_operator.model.limits import InspectionLimits
from tests import models as files

CAPABILITIES = Capabilities(onnx_runtime_version="1.32.0", ir_version=14, opsets={"ai.onnx": 28}, operators={})
LIMITS = InspectionLimits(parsers=1)


def request(uri: str = "pvc://claim/folder/model.onnx", **fields) -> InspectionRequest:
    return InspectionRequest(uri=uri, capabilities=CAPABILITIES, **fields)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.onnx").write_bytes(files.linear(1))
    (tmp_path / "note.onnx").write_text("This is no model.")
    return tmp_path


def run(asked: InspectionRequest, root: Path, limits: InspectionLimits = LIMITS) -> InspectionResult:
    out = io.StringIO()
    assert once.run(once.request_variables(asked), limits, root, out) == 0
    return find_report(out.getvalue(), asked, limits.max_model_bytes)


def test_a_model_on_a_volume_is_accepted_and_pinned_by_its_digest(volume: Path) -> None:
    result = run(request(), volume)
    assert result.outcome == "Accepted"
    assert result.files is not None
    assert [file.name for file in result.files.files] == ["model.onnx"]
    assert result.source is not None
    assert result.source.value == f"sha256:{result.files.files[0].sha256}"


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("pvc://claim/nothing.onnx", "SourceNotFound"),
        ("pvc://claim/note.onnx", "NotOnnx"),
        ("pvc://claim/../note.onnx", "SourceRefused"),
        ("https://127.0.0.1/model.onnx", "SourceRefused"),
    ],
)
def test_a_refusal_is_a_report_and_no_failure(volume: Path, uri: str, reason: str) -> None:
    result = run(request(uri), volume)
    assert result.refusal is not None
    assert result.refusal.reason == reason


def test_a_model_that_is_larger_than_the_settings_allow_is_refused(volume: Path) -> None:
    result = run(request(), volume, InspectionLimits(max_model_bytes=10))
    assert result.refusal is not None
    assert result.refusal.reason == "TooLarge"


def test_the_command_prints_one_line_that_is_the_report(volume: Path) -> None:
    arguments = ["inspect-once", "--max-model-bytes=1000000", f"--root={volume}"]
    done = CliRunner().invoke(main, arguments, env=once.request_variables(request()))
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["event"] == "inspected"


def test_a_request_that_is_missing_or_broken_is_our_fault_and_no_verdict(volume: Path) -> None:
    for environment in ({}, {once.ENV_REQUEST: '{"uri": 1}'}):
        out = io.StringIO()
        assert once.run(environment, LIMITS, volume, out) == 1
        assert out.getvalue() == ""


@pytest.mark.parametrize("identity", [True, False])
def test_the_clouds_variables_stay_exactly_where_its_identity_is_to_be_used(
    identity: bool, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    async def look(asked: InspectionRequest, **_: object) -> InspectionResult:
        seen["request"] = asked
        return InspectionResult(outcome="Refused")

    monkeypatch.setattr(once, "inspect", look)
    given = {"AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AZURE_CLIENT_ID": "id", "PATH": "/bin"}
    asked = request("s3://b/m.onnx", workload_identity=identity)
    environment = {**given, **once.request_variables(asked)}
    assert once.run(environment, LIMITS, volume, io.StringIO()) == 0
    assert environment == (given if identity else {"PATH": "/bin"})
    assert seen["request"] == asked


def test_a_request_of_any_length_survives_the_environment() -> None:
    asked = request(sources=SourceSettings.model_validate({"https": {"caBundle": "é" * 60_000}}))
    variables = once.request_variables(asked)
    assert len(variables) > 1
    assert all(len(value) <= MAX_VARIABLE_LENGTH for value in variables.values())
    environment = {**variables, "PATH": "/bin"}
    assert once.take_request(environment) == asked
    assert environment == {"PATH": "/bin"}


def test_progress_is_told_ever_more_seldom(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    tell = once.log_progress(lambda: now)
    with caplog.at_level("INFO"):
        for second in range(3600):
            now = float(second)
            tell(second, None)
    told = [record.__dict__["bytesRead"] for record in caplog.records]
    assert told[0] == 10
    assert 5 < len(told) < 30
