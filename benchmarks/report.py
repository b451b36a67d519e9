"""Results as Markdown, for the terminal and for docs/benchmarks.md."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from benchmarks.measure import InspectionResult, Spread

_METHOD = """\
Made by {command}. `make bench` measures the same, with fewer repeats, and only prints.

Scoring has [a page of its own](benchmarks-serving.md).

Absolute figures say more about a machine than about a program, so each measurement is a ratio against a baseline: the
two take turns {repeats} times, a ratio is formed from each pair of turns, and the tables give the median with the
least and the greatest. Models and requests come from a fixed seed.
"""

_INSPECTION = """\
The verdict that `kubectl onnx inspect` and the controller give on a file on the local disk, against `onnx.load`,
`onnx.checker.check_model` and strict `onnx.shape_inference.infer_shapes` (types checked, data propagated). Each runs
in a warm process of its own on the same core; times are processor times. *Memory* is what the first inspection added
at its peak. The aim for ResNet-50 is .25 of the baseline's time. The verdict does more than the baseline: it compares
versions, operators and kernels at their types with what the server image runs, names the node at fault, counts
operations, estimates memory and tells what six execution providers cover; it skips over the weights.
Not in it: the SHA-256 of the file and a process for parsing. The *whole command* is `kubectl onnx inspect` with these
and the start of Python, against the start of Python, the import of onnx and one round of the baseline.
"""


def document(
    command: str,
    machine: Sequence[str],
    repeats: int,
    inspection: Sequence[InspectionResult],
    more: Mapping[str, str],
) -> str:
    """The whole page; sections without a result are left out."""
    parts = ["# Benchmarks", _METHOD.format(command=f"`{command}`", repeats=repeats)]
    parts.append("\n".join(f"- {line}" for line in (f"{datetime.now(UTC):%Y-%m-%d}", *machine)))
    if inspection:
        parts += ["## Inspecting", _INSPECTION, inspection_table(inspection)]
    for heading, text in more.items():
        parts += [f"## {heading}", text]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def inspection_table(results: Sequence[InspectionResult]) -> str:
    """One row a file."""
    rows = [
        (
            f"{r.title}, {r.file_bytes / 1e6:,.2f} MB",
            _spread(r.ratio),
            f"{r.judge_seconds * 1e3:.1f} / {r.checker_seconds * 1e3:.1f}",
            f"{r.command_seconds:.2f} / {r.checker_command_seconds:.2f}",
            f"{r.judge_peak_bytes / 2**20:.0f} / {r.checker_peak_bytes / 2**20:.0f}",
        )
        for r in results
    ]
    return _table(
        ("file", "time over baseline", "ms, ours / baseline", "whole command s", "memory MiB, ours / baseline"), rows
    )


def _spread(value: Spread) -> str:
    digits = 3 if value.median < 10 else 1
    return f"**{value.median:.{digits}f}** ({value.least:.{digits}f}–{value.greatest:.{digits}f})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
