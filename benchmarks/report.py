"""Results as Markdown, for the terminal and for docs/benchmarks.md."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from benchmarks.download import Row, lines
from benchmarks.measure import InspectionResult, ServingResult, Spread, StepsResult

_METHOD = """\
Made by {command}. `make bench` measures the same, with fewer repeats, and only prints.

Absolute figures say more about a machine than about a program, so each measurement is a ratio against a baseline: the
two take turns {repeats} times, a ratio is formed from each pair of turns, and the tables give the median with the
least and the greatest. Models and requests come from a fixed seed.
"""

_SERVING = """\
The server (`onnx-server serve`, one intra-op thread) and the baseline are pinned to one core, the load generator to
another. The baseline calls `InferenceSession.run` with a ready array in a loop, one thread. *Share* is the server's
answers a second over the baseline's runs a second: 1 would mean that HTTP and JSON cost nothing. *Share by processor
time* is the processor time of one bare run over that of one answer; on a quiet machine the two agree, on a busy one
the first also tells how long server and load generator waited for a core. Each client keeps a
connection and sends its next request, of one row, when it has its answer; numbers are written as `array.tolist()`
gives them (about 20 characters each). The first answer is compared with the baseline's output.
"""

_AIM = """\
The aim for the MLP is what a bare protocol server with a vectorised JSON parser and batching per event-loop turn
reached when the design was made: .34 with 8 clients and .475 with 32. Measured then, with other versions and other
requests: KServe .015/.016, MLServer .022/.025, FastAPI .033, Starlette on uvicorn .104/.126, raw ASGI on uvicorn
.137/.17. Those servers are not part of this run.
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

_DOWNLOAD = """\
`transfer.download` of one object of 1 GB from a local S3 server, four ranges at a time and hashed on the way, against
`curl` of the same object, both into memory; they take turns. The aim is at least curl's speed.

With two cores, which the store shares, the aim is **missed**. Hashing, which curl does not do, is what `openssl dgst`
takes beside: two fifths of our processor time. The store spends more on ranges than on one request for all (0.35 s of
its processor against 0.13 s when the parts were tuned). Against `curl` and `openssl dgst` one after the other, which is
the same work, it is about level.
"""

_STEPS = {
    "run": "`InferenceSession.run`",
    "options": "run options, so that a request that nobody waits for can be stopped",
    "parse": "JSON text to Python objects",
    "arrays": "checks, Python numbers to an array, the output to numbers",
    "encode": "the answer to JSON text",
    "hop": "to a worker thread and back",
    "http": "HTTP, ASGI, routing and counters (an empty `GET /v2/health/live`)",
    "rest": "not accounted for: reading the body, admission, timeout, threads waiting for each other",
}


def document(
    command: str,
    machine: Sequence[str],
    repeats: int,
    serving: Sequence[ServingResult],
    inspection: Sequence[InspectionResult],
    steps: Sequence[tuple[str, StepsResult]],
    more: Mapping[str, str],
) -> str:
    """The whole page; sections without a result are left out."""
    parts = ["# Benchmarks", _METHOD.format(command=f"`{command}`", repeats=repeats)]
    parts.append("\n".join(f"- {line}" for line in (f"{datetime.now(UTC):%Y-%m-%d}", *machine)))
    if serving:
        parts += ["## Scoring", _SERVING, serving_table(serving), _AIM, _verdict(serving)]
    for title, result in steps:
        parts += [f"## Where a request's time goes: {title}", steps_table(result)]
    if inspection:
        parts += ["## Inspecting", _INSPECTION, inspection_table(inspection)]
    for heading, text in more.items():
        parts += [f"## {heading}", text]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def serving_table(results: Sequence[ServingResult]) -> str:
    """One row a case."""
    rows = [
        (
            f"{r.case.title}, {r.case.clients} clients",
            _spread(r.share),
            _spread(r.share_of_core),
            f"{r.served_rate:,.0f} of {r.bare_rate:,.0f}",
            f"{r.p50 * 1e3:.2f} / {r.p99 * 1e3:.2f}",
            f"{r.answers:,}",
            f"{r.body_bytes / 1000:,.1f}",
            f"{r.resident_bytes / 2**20:.0f} ({r.bare_resident_bytes / 2**20:.0f})",
            f"{r.start_seconds:.2f} ({r.bare_start_seconds:.2f})",
        )
        for r in results
    ]
    heads = (
        "case",
        "share",
        "share by processor time",
        "per second",
        "p50 / p99 ms",
        "answers",
        "request kB",
        "resident MiB",
        "start s",
    )
    note = "In brackets the baseline's process. *Start* is from starting the process to the first answer."
    return f"{_table(heads, rows)}\n\n{note}"


def download_section(rows: Sequence[Row]) -> str:
    """The parallel download, and why it is not as fast as curl."""
    table = "\n".join(lines(rows))
    return f"{_DOWNLOAD}\n```\n{table}\n```"


def _verdict(results: Sequence[ServingResult]) -> str:
    aims = {"mlp-8": 0.34, "mlp-32": 0.475}
    lines = []
    for result in results:
        aim = aims.get(result.case.name)
        if aim is not None:
            word = "reached" if result.share.median >= aim else "missed"
            lines.append(f"- {result.case.clients} clients: {result.share.median:.3f}, aim {aim}: **{word}**")
    return "\n".join(lines)


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


def steps_table(result: StepsResult) -> str:
    """Steps from the most to the least expensive."""
    ordered = sorted(result.steps.items(), key=lambda step: (step[0] == "rest", -step[1]))
    rows = [(_STEPS[name], f"{spent:.0f}", f"{spent / result.total:.0%}") for name, spent in ordered]
    rows.append(("whole request", f"{result.total:.0f}", "100%"))
    return _table(("step", "µs of the server's core", "part"), rows)


def _spread(value: Spread) -> str:
    digits = 3 if value.median < 10 else 1
    return f"**{value.median:.{digits}f}** ({value.least:.{digits}f}–{value.greatest:.{digits}f})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
