"""The page of scoring benchmarks, as Markdown."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from benchmarks.measure import Spread
from benchmarks.serving.measure import Result, Side
from benchmarks.serving.steps import TITLES

_METHOD = """\
Made by `{command}`.

Each server runs alone on one core with one intra-op thread, the load generator (wrk for HTTP/1.1, h2load for gRPC) on
the other. The baseline calls `InferenceSession.run` with a ready array in a loop, one thread, on the servers' core.
Baseline and servers take turns {repeats} times; a *share* is a server's answers a second over the baseline's runs a
second in the same round, and the table gives the median with the least and the greatest. {rows} different rows take
turns, numbers in JSON are written as Python's `array.tolist()` gives them (about 20 characters each). Before anything
is measured the answer of each server is compared with ONNX Runtime's own; an answer other than 200 ends the
measurement.

KServe and MLServer are their own Python servers from their packages, around an ONNX Runtime session of the same kind.
*Processor* is the time on the core for one answer, *memory* what all processes of the server hold after the load,
*start* from starting the process to the first answer.
"""


def document(
    command: str,
    machine: Sequence[str],
    repeats: int,
    rows: int,
    results: Sequence[Result],
    steps: Mapping[str, Mapping[str, float]],
) -> str:
    """The whole page."""
    versions = sorted({side.versions for result in results for side in result.sides})
    lines = [f"{datetime.now(UTC):%Y-%m-%d}", *machine, ", ".join(versions)]
    parts = [
        "# Benchmarks of scoring",
        _METHOD.format(command=command, repeats=repeats, rows=rows),
        "\n".join(f"- {line}" for line in lines),
        "## Share of bare runs",
        _table(results),
        "## Against the aims",
        _aims(results),
    ]
    for title, found in steps.items():
        parts += [f"## Where a request's time goes: {title}", _steps(found)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _table(results: Sequence[Result]) -> str:
    rows = ["| case | server | share | per second | p50 / p99 ms | processor µs | memory MiB | start s |"]
    rows.append("| --- " * 8 + "|")
    for result in results:
        name = (
            f"{result.case.title}, {result.case.clients} {'streams' if result.case.protocol == 'grpc' else 'clients'}"
        )
        rows.append(f"| {name} | bare run | 1 | {result.bare_rate:,.0f} | | {1e6 / result.bare_rate:.1f} | | |")
        for side in result.sides:
            latency = f"{side.p50 * 1e3:.2f} / {side.p99 * 1e3:.2f}" if side.p99 else ""
            rows.append(
                f"| | {side.name} | {_spread(side.share)} | {side.rate:,.0f} | {latency} "
                f"| {side.core_microseconds:.1f} | {side.resident_bytes / 2**20:.0f} | {side.start_seconds:.2f} |"
            )
    return "\n".join(rows)


def _spread(spread: Spread) -> str:
    return f"**{spread.median:.3f}** ({spread.least:.3f}–{spread.greatest:.3f})"


def _aims(results: Sequence[Result]) -> str:
    rows = ["| aim | reached | |", "| --- | --- | --- |"]

    def add(text: str, reached: float, shown: str, met: bool) -> None:
        rows.append(f"| {text} | {shown} | {'met' if met else '**missed**'} |")

    for result in results:
        ours, case = result.sides[0], result.case
        if case.aim is not None:
            share = ours.share.median
            add(f"{case.title}, {case.clients}: share ≥ {case.aim}", share, f"{share:.3f}", share >= case.aim)
        peer = _peer(result, "KServe")
        if peer is None:
            continue
        if case.protocol == "grpc":
            times = ours.rate / peer.rate
            add("gRPC: ≥ 2 × KServe's", times, f"{times:.1f} ×", times >= 2)
        if case.clients == 8 and ours.p99 and peer.p99 and case.protocol == "json":
            part = ours.p99 / peer.p99
            add(f"{case.title}, 8: p99 ≤ 1/15 of KServe's", part, f"1/{1 / part:.0f}", part <= 1 / 15)
        if case.name == "mlp-json-8":
            part = ours.resident_bytes / peer.resident_bytes
            add("memory ≤ .5 × KServe's", part, f"{part:.2f} ×", part <= 0.5)
            part = ours.start_seconds / peer.start_seconds
            add("start to first answer ≤ .3 × KServe's", part, f"{part:.2f} ×", part <= 0.3)
    return "\n".join(rows)


def _peer(result: Result, name: str) -> Side | None:
    return next((side for side in result.sides if side.name == name), None)


def _steps(found: Mapping[str, float]) -> str:
    rows = ["| step | µs of the core | part |", "| --- | --- | --- |"]
    for step in sorted(TITLES, key=lambda step: -found[step]):
        rows.append(f"| {TITLES[step]} | {found[step]:.1f} | {found[step] / found['all']:.0%} |")
    rows.append(f"| in all, without the socket | {found['all']:.1f} | 100% |")
    return "\n".join(rows)
