"""The page of scoring benchmarks, as Markdown."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from benchmarks.measure import Spread
from benchmarks.serving.measure import Result, Side
from benchmarks.serving.parts import FLOOR
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
*start* from starting the process to the first answer; those of the bare run are the floor of whoever serves a model
with Python and ONNX Runtime.
"""

_UNLIKE = """\
As above, but {rows} bodies take turns whose numbers have 1 to 8 digits and whose `id` has another length each, and no
two requests have the same `traceparent` and `x-request-id`. Calls of gRPC come from ghz. With two processes, server
and load share both cores, and the share is of a bare run on one. Neither KServe nor MLServer takes CSV.
"""
_LOADED = """\
A process that loads the parts of the server one after the other, on one core. What a server holds under load beyond
their sum are its threads' stacks and the memory of requests under way.
"""
_ALIKE = {
    "unlike-json-8": "mlp-json-8",
    "unlike-json-32": "mlp-json-32",
    "unlike-binary-32": "mlp-binary-32",
    "unlike-grpc-32": "mlp-grpc-32",
}
"""Which case of the first table has the same model, form and number of clients."""


def document(
    command: str,
    machine: Sequence[str],
    repeats: int,
    rows: int,
    unlike_rows: int,
    results: Sequence[Result],
    steps: Mapping[str, Mapping[str, float]],
    loaded: Sequence[tuple[str, float, int]],
) -> str:
    """The whole page."""
    versions = sorted({side.versions for result in results for side in result.sides})
    lines = [f"{datetime.now(UTC):%Y-%m-%d}", *machine, ", ".join(versions)]
    alike, unlike = [r for r in results if not r.case.unlike], [r for r in results if r.case.unlike]
    parts = [
        "# Benchmarks of scoring",
        _METHOD.format(command=command, repeats=repeats, rows=rows),
        "\n".join(f"- {line}" for line in lines),
    ]
    if alike:
        parts += ["## Share of bare runs", _table(alike), "## Against the aims", _aims(alike)]
    if unlike:
        parts += ["## Callers that do not resemble each other", _UNLIKE.format(rows=unlike_rows), _table(unlike)]
        parts += [_beside(alike, unlike)]
    for title, found in steps.items():
        parts += [f"## Where a request's time goes: {title}", _steps(found)]
    if loaded:
        parts += ["## Where memory and the start go", _LOADED, _loaded(loaded)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _table(results: Sequence[Result]) -> str:
    rows = ["| case | server | share | per second | p50 / p99 ms | processor µs | memory MiB | start s |"]
    rows.append("| --- " * 8 + "|")
    for result in results:
        name = (
            f"{result.case.title}, {result.case.clients} {'streams' if result.case.protocol == 'grpc' else 'clients'}"
        )
        if result.case.processes > 1:
            name += f", {result.case.processes} processes"
        rows.append(
            f"| {name} | bare run | 1 | {result.bare_rate:,.0f} | | {1e6 / result.bare_rate:.1f} "
            f"| {result.bare_resident_bytes / 2**20:.0f} | {result.bare_start_seconds:.2f} |"
        )
        for side in result.sides:
            latency = f"{side.p50 * 1e3:.2f} / {side.p99 * 1e3:.2f}" if side.p99 else ""
            rows.append(
                f"| | {side.name} | {_spread(side.share)} | {side.rate:,.0f} | {latency} "
                f"| {side.core_microseconds:.1f} | {side.resident_bytes / 2**20:.0f} | {side.start_seconds:.2f} |"
            )
    return "\n".join(rows)


def _beside(alike: Sequence[Result], unlike: Sequence[Result]) -> str:
    """Processor time for an answer to callers that do not resemble each other, over that to those who do."""
    first = {result.case.name: result.sides[0] for result in alike}
    rows = ["| case | µs alike | µs unlike | aim: at most 1.1 × |", "| --- " * 4 + "|"]
    for result in unlike:
        if (twin := first.get(_ALIKE.get(result.case.name, ""))) is None:
            continue
        own, its = result.sides[0].core_microseconds, twin.core_microseconds
        met = "met" if own <= 1.1 * its else "**missed**"
        rows.append(
            f"| {result.case.title}, {result.case.clients} | {its:.1f} | {own:.1f} | {own / its:.2f} ×, {met} |"
        )
    return "\n".join(rows) if len(rows) > 2 else ""


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
            add("gRPC: ≥ 3 × KServe's", times, f"{times:.1f} ×", times >= 3)
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


def _loaded(parts: Sequence[tuple[str, float, int]]) -> str:
    rows = ["| part | memory MiB | seconds |", "| --- " * 3 + "|"]
    rows += [f"| {title} | {size / 2**20:.1f} | {seconds:.3f} |" for title, seconds, size in parts]
    for title, among in (("the floor: the first four", parts[:FLOOR]), ("in all", parts)):
        size, seconds = sum(part[2] for part in among), sum(part[1] for part in among)
        rows.append(f"| **{title}** | {size / 2**20:.1f} | {seconds:.3f} |")
    return "\n".join(rows)
