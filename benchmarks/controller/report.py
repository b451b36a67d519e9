"""The page of the controller's benchmarks, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from benchmarks.controller.aims import Aim, aims
from benchmarks.controller.calls import Tally
from benchmarks.controller.measure import Burst, Profiles, Restart, Turns, p50, p99
from benchmarks.controller.sampler import Profile
from benchmarks.controller.system import Memory

_METHOD = """\
Made by `{command}`.

A bare control plane on this machine (etcd without flushing to disk, API server, controller manager, scheduler) with
nodes and pods that kwok pretends: pods download, load and get ready in 0.2 s, and have the log of a server. Controller
and inspector run as processes with the arguments of the chart; models are small ONNX files, each with other bytes, at a
web server over TLS. The floor is a raw client in the same run, which creates copies of the operator's Deployment and
waits for the watch to tell of them, with the same controllers at work: one at a time in turns with models, or
{concurrency} calls at a time.

Calls are counted by the API server's audit log, those of the operator's service account; renewals of the Lease are left
out, and dry runs are calls but no writes. Processor time is from `/proc/PID/stat`, of the controller, and of the
inspector with its children. Resident is RssAnon and RssShmem (`/proc/PID/status`) of the controller, which no file
backs; *with the inspector* adds that of the inspector and its children, where pages that several share count once
(`smaps_rollup`). VmRSS, with the pages of libraries that all Python processes of a machine share, stands beside it.
KServe and *before* were measured on a machine of this kind by the same rules, KServe's controller with its own kind.
"""
_KNOWN = """\
*New* models have a file that nobody has looked at. *Known* ones have the file of another model of their namespace,
which is Ready. p50 and p99 are of {count} turns each.
"""
_TIMELINE = """\
The new model whose time was in the middle: the Deployment was told of after {seconds:.0f} ms. What lies between two
calls is the operator's own time, the inspector's included.
"""
_SAMPLED = """\
{count} models at once, 200 samples a second of processor time, in {seconds:.1f} s of it. A function counts with all
that it calls; calls that several coroutines wait for count where they run.
"""
_SHARDS = """\
One process leads, and there are no shards: [decision 14](decisions/0014-one-process-no-shards.md).
"""


_ALL = 0.95


@dataclass
class Results:
    """All that was measured; what is None was not."""

    turns: Turns | None = None
    floor_at_once: float | None = None
    burst: Burst | None = None
    empty: Memory | None = None
    idle: Tally | None = None
    idle_seconds: float = 60.0
    restart: Restart | None = None
    profiles: Profiles | None = None
    large: dict[int, Burst | str] = field(default_factory=dict)
    """By number of namespaces; or why it was not measured to its end."""


def document(command: str, machine: Sequence[str], concurrency: int, results: Results) -> str:
    """The whole page."""
    parts = [
        "# Benchmarks of the controller",
        _METHOD.format(command=command, concurrency=concurrency),
        "\n".join(f"- {line}" for line in (f"{datetime.now(UTC):%Y-%m-%d}", *machine)),
        "## Against the aims",
        _aims(aims(results)),
    ]
    if results.turns:
        parts += ["## One at a time", _KNOWN.format(count=len(results.turns.new)), _turns(results.turns)]
    if results.burst:
        parts += ["## Many at once", _bursts(results)]
    if results.restart:
        parts += ["## A restart", _restart(results.restart)]
    if results.turns:
        parts += ["## Where the time of one model goes", _timeline(results.turns)]
    if results.turns and results.burst:
        parts += ["## Which calls a model costs", _calls(results.turns, results.burst)]
    if results.profiles:
        parts += ["## Where processor time goes", _profiles(results.profiles)]
    parts += ["## Shards", _SHARDS]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _aims(rows: Sequence[Aim]) -> str:
    lines = ["| work | KServe | before | aim | reached | |", "| --- " * 6 + "|"]
    for row in rows:
        met = "met" if row.met else "not measured" if row.met is None else "**missed**"
        lines.append(f"| {row.work} | {row.kserve} | {row.before} | {row.aim} | {row.reached} | {met} |")
    return "\n".join(lines)


def _turns(found: Turns) -> str:
    lines = ["| until the Deployment is told of | p50 ms | p99 ms | over the floor |", "| --- " * 4 + "|"]
    for title, values in (("raw client (the floor)", found.floor), ("new", found.new), ("known", found.known)):
        times = f"{p50(values) / p50(found.floor):.1f} × / {p99(values) / p99(found.floor):.1f} ×"
        lines.append(f"| {title} | {p50(values) * 1e3:.1f} | {p99(values) * 1e3:.1f} | {times} |")
    lines.append(f"| new, until Ready | {p50(found.ready) * 1e3:.0f} | {p99(found.ready) * 1e3:.0f} | |")
    return "\n".join(lines)


def _bursts(results: Results) -> str:
    heads = "models | namespaces | Deployments s | Ready s | ms of the controller, inspector, its children, each model"
    lines = [f"| {heads} | resident MiB, with the inspector, at the peak |", "| --- " * 6 + "|"]
    bursts = [results.burst, *results.large.values()]
    for burst in bursts:
        if isinstance(burst, Burst):
            each = burst.processor
            shares = (seconds / burst.count * 1e3 for seconds in (each.controller, each.inspector, each.parsers))
            sizes = (size / 2**20 for size in (burst.memory.controller, burst.memory.both, burst.peak))
            lines.append(
                f"| {burst.count:,} | {burst.namespaces} | {burst.deployments:.1f} | {burst.ready:.1f} "
                f"| {' / '.join(f'{share:.1f}' for share in shares)} | {' / '.join(f'{size:.0f}' for size in sizes)} |"
            )
    parts = ["\n".join(lines)]
    if results.floor_at_once and results.burst:
        parts.append(f"The floor for {results.burst.count:,}: {results.floor_at_once:.2f} s.")
    parts += [_fifths(burst) for burst in bursts if isinstance(burst, Burst)]
    parts += [f"{many} namespaces: {why}." for many, why in results.large.items() if isinstance(why, str)]
    return "\n\n".join(parts)


def _fifths(burst: Burst) -> str:
    steps, before = [], (0, 0.0, 0.0)
    for part in burst.parts:
        count = part[0] - before[0]
        steps.append(f"{(part[1] - before[1]) / count * 1e3:.0f} ({(part[2] - before[2]) / count * 1e3:.0f})")
        before = part
    told = "; ".join(f"{judged:.1f} s and {there:.1f} s" for judged, there in burst.probes)
    probes = f" Models of other namespaces that came meanwhile were judged and had a Deployment after {told}."
    return (
        f"{burst.count:,} in {burst.namespaces}: ms (of the processor) for each Deployment, fifth by fifth: "
        f"{', '.join(steps)}.{probes if told else ''}"
    )


def _restart(found: Restart) -> str:
    calls = ", ".join(f"{count} × {title}" for title, count in found.tally.titles.most_common())
    return (
        f"With {found.models:,} models: {len(found.tally.calls):,} calls, {found.tally.writes} writes, "
        f"{found.tally.discovery} calls of discovery ({calls}).\n\n"
        f"The process leads after {found.leads:.1f} s. A model that comes while it starts has a status "
        f"{found.first_word:.1f} s after the start of the process, one that comes when it has just begun to lead "
        f"{found.answer:.1f} s after it came."
    )


def _timeline(found: Turns) -> str:
    lines = ["| ms after apply | call | ms it took |", "| --- | --- | --- |"]
    told = False
    for began, took, title in found.timeline:
        if not told and began > found.timeline_deployment:
            lines.append(f"| **{found.timeline_deployment * 1e3:.1f}** | **the Deployment is told of** | |")
            told = True
        lines.append(f"| {began * 1e3:.1f} | {title} | {took * 1e3:.1f} |")
    return _TIMELINE.format(seconds=found.timeline_deployment * 1e3) + "\n" + "\n".join(lines)


def _calls(turns: Turns, burst: Burst) -> str:
    # Turns that only warm up call, too.
    models = len({call.name for call in turns.calls_of_new.calls if call.title == "patch deployments"}) or 1
    alone, together = turns.calls_of_new.titles, burst.tally.titles
    lines = ["| call | a model, one at a time | a model, at once |", "| --- | --- | --- |"]
    for title, _ in (Counter(alone) + Counter(together)).most_common(25):
        lines.append(f"| {title} | {alone[title] / models:.2f} | {together[title] / burst.count:.2f} |")
    return "\n".join(lines)


def _profiles(found: Profiles) -> str:
    parts = []
    for title, each in (("Controller", found.controller), ("Inspector, without its children", found.inspector)):
        parts += [f"### {title}", _SAMPLED.format(count=found.count, seconds=each.seconds), _profile(each)]
    return "\n\n".join(part.strip() for part in parts)


def _profile(found: Profile) -> str:
    samples = found.libraries.total() or 1
    lines = ["| function of the operator's | share |", "| --- | --- |"]
    # What calls all the rest tells nothing.
    below = [(name, count) for name, count in found.functions.most_common() if count < _ALL * samples]
    lines += [f"| `{name}` | {count / samples:.0%} |" for name, count in below[:25]]
    lines += ["", "| whose code runs | share |", "| --- | --- |"]
    lines += [f"| {name} | {count / samples:.0%} |" for name, count in found.libraries.most_common(15)]
    return "\n".join(lines)
