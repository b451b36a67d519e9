"""What people see in a terminal, however wide it is."""

import io

import pytest
from rich.console import RenderableType

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import (
    InspectionResult,
    MemoryEstimate,
    ModelReport,
    ProviderCoverage,
    Refusal,
    TensorSpec,
)
from onnx_operator.api.sources import SourcePin
from onnx_operator.cli import tables
from onnx_operator.cli.output import console
from onnx_operator.model.comparison import Change

DIGEST = "sha256:" + "0123456789abcdef" * 4


def sample(**different: object) -> ModelReport:
    report = ModelReport(
        source=SourcePin(kind="Immutable", value="v1"),
        digest=DIGEST,
        size_bytes=5 << 20,
        ir_version=9,
        opsets={"ai.onnx": 17},
        inputs=[TensorSpec(name="[red]x[/red]", datatype="FP32", shape=["batch", 4])],
        outputs=[TensorSpec(name="y", datatype="FP32", shape=["batch", 3])],
        memory=MemoryEstimate(weights_bytes=60, activations_bytes=272, resident_bytes=90 << 20),
        operators={"MatMul": 1},
        coverage=[
            ProviderCoverage(
                provider="CUDA",
                covered_nodes=1,
                total_nodes=2,
                fallback_operators=["Add"],
                fallback_flops_share=0.25,
            )
        ],
    )
    return report.model_copy(update=different)


def seen(renderable: RenderableType, columns: int) -> str:
    out = io.StringIO()
    console(file=out, width=columns).print(renderable)
    return out.getvalue()


def shown(columns: int, **different: object) -> str:
    found = InspectionResult(outcome="Accepted", report=sample(**different), interface="776834fcc580")
    return seen(tables.report("m.onnx", found), columns)


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_nothing_is_cut_off_however_narrow_the_terminal(columns: int) -> None:
    text = shown(columns)
    assert max(map(len, text.splitlines())) <= columns
    assert "…" not in text
    assert DIGEST in "".join(text.split())
    differences = seen(tables.changes([], [("digest", DIGEST, DIGEST.upper())]), columns)
    assert "…" not in differences


def test_names_of_a_model_are_shown_as_they_are_and_not_as_colours() -> None:
    assert "[red]x[/red]" in shown(80)


def test_what_falls_back_is_named_with_its_share() -> None:
    assert "25% of FLOPs: Add" in shown(80)


def test_an_unknown_digest_is_not_left_to_guesses() -> None:
    assert "not known" in shown(80, digest="")


def test_a_cut_report_says_so_and_notes_are_shown() -> None:
    text = shown(80, truncated=True, notes=["the first dimension is fixed"])
    assert "Not all tensors" in text
    assert "note: the first dimension is fixed" in text


def test_changes_tell_which_of_them_break() -> None:
    found = [Change('input "x" is gone', breaking=True), Change('output "z" (FP32 [1]) is new')]
    lines = seen(tables.changes(found, []), 80).splitlines()
    assert lines == ["Callers would break.", 'breaks  input "x" is gone', 'changes output "z" (FP32 [1]) is new']


@pytest.mark.parametrize(("uri", "variable"), [("s3://b/m.onnx", "AWS_ACCESS_KEY_ID"), ("hf://a/b", "HF_TOKEN")])
def test_who_lacks_credentials_is_told_where_the_command_takes_them_from(uri: str, variable: str) -> None:
    missing = Refusal(reason=Reason.SOURCE_UNAUTHORIZED, message="who are you?")
    found = InspectionResult(outcome="Refused", refusal=missing)
    assert variable in seen(tables.refusal(uri, found, True), 80)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 30, "5.0 GiB"), (3 << 50, "3072.0 TiB")]
)
def test_sizes_are_told_in_units_of_1024(count: int, text: str) -> None:
    assert tables.size_text(count) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (999, "999"), (25_600_000, "25.6 M"), (4 * 10**18, "4000.0 P")])
def test_counts_are_told_in_units_of_1000(count: int, text: str) -> None:
    assert tables.count_text(count) == text
