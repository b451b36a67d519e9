"""What the controller is to reach, what KServe's reaches, and whether it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.controller.measure import Burst, Turns, p50, p99
from benchmarks.controller.system import Memory

if TYPE_CHECKING:
    from benchmarks.controller.report import Results

_MEBI = 2**20


@dataclass(frozen=True)
class Aim:
    """One row: what was measured, elsewhere, before and now; ``met`` is None where it was not."""

    work: str
    kserve: str
    before: str
    aim: str
    reached: str = ""
    met: bool | None = None


def aims(results: Results) -> list[Aim]:
    """All rows."""
    return [
        *_one_at_a_time(results.turns),
        _at_once(results),
        *_calls(results),
        *_restart(results),
        _processor(results.burst),
        *_memory(results),
        *(_large(results, each) for each in results.large),
        _idle(results),
    ]


def _one_at_a_time(turns: Turns | None) -> list[Aim]:
    rows = []
    for title, aim in (("inspection included", (10, 15)), ("a known file", (6, None))):
        most = f"≤ {aim[0]} ×" + (f" / ≤ {aim[1]} ×" if aim[1] else "")
        reached, met = "", None
        if turns:
            values = turns.known if aim[1] is None else turns.new
            middle, late = p50(values) / p50(turns.floor), p99(values) / p99(turns.floor)
            reached = f"{middle:.1f} × / {late:.1f} × ({p50(values) * 1e3:.0f} / {p99(values) * 1e3:.0f} ms)"
            met = middle <= aim[0] and (aim[1] is None or late <= aim[1])
        kserve, before = ("6 × / 11–32 ×", "47 × / 52 × (250 ms)") if aim[1] else ("", "")
        rows.append(
            Aim(
                f"apply → Deployment, one at a time, p50 / p99 over the floor, {title}",
                kserve,
                before,
                most,
                reached,
                met,
            )
        )
    return rows


def _at_once(results: Results) -> Aim:
    reached, met, count = "", None, 1000
    if results.burst and results.floor_at_once:
        times, count = results.burst.deployments / results.floor_at_once, results.burst.count
        reached, met = f"{times:.1f} × ({results.burst.deployments:.1f} s)", times <= 6
    work = f"{count:,} at once → all Deployments, over the floor"
    return Aim(work, "15–25 ×", "34 × calm, 45 × busy (208–260 s)", "≤ 6 ×", reached, met)


def _calls(results: Results) -> list[Aim]:
    rows = []
    for title, tally, models in (
        ("one at a time", results.turns and results.turns.calls_of_new, results.turns and _models(results.turns)),
        ("at once", results.burst and results.burst.tally, results.burst and results.burst.count),
    ):
        reached, met = "", None
        if tally and models:
            calls, writes = len(tally.calls) / models, tally.writes / models
            reached, met = f"{calls:.1f} ({writes:.1f})", round(calls, 1) <= 17 and round(writes, 1) <= 10
        before = "46 (13) with pods that only get ready, 130 (18) with real ones"
        rows.append(Aim(f"calls (writes) a model, {title}", "25–38 (6–9)", before, "≤ 17 (≤ 10)", reached, met))
    return rows


def _models(turns: Turns) -> int:
    return len({call.name for call in turns.calls_of_new.calls if call.title == "patch deployments"})


def _restart(results: Results) -> list[Aim]:
    found, empty = results.restart, ("", None)
    models = f"{found.models:,}" if found else "1,000"
    calls = (f"{len(found.tally.calls):,}", len(found.tally.calls) <= 40) if found else empty
    writes = (f"{found.tally.writes}", found.tally.writes == 0) if found else empty
    word = f"{found.first_word:.1f} s from the start of the process" if found else ""
    first = (f"{word}; {found.answer:.1f} s from apply once it leads", found.first_word <= 2) if found else empty
    return [
        Aim(f"restart with {models}: calls", "5,030", "6,385", "≤ 40, discovery apart", *calls),
        Aim(f"restart with {models}: writes", "0", "0", "0", *writes),
        Aim(f"restart with {models}: first word on a new model", "5.4–6 s", "40 s", "≤ 2 s", *first),
    ]


def _processor(burst: Burst | None) -> Aim:
    reached, met = "", None
    if burst:
        own, both = (seconds / burst.count * 1e3 for seconds in (burst.processor.controller, burst.processor.both))
        reached, met = f"{own:.0f} ms, {both:.0f}", own <= 25 and both <= 40
    before = "83–89 ms, 130–140"
    return Aim("processor time a model, at once; with the inspector", "25–30 ms", before, "≤ 25 ms, ≤ 40", reached, met)


def _memory(results: Results) -> list[Aim]:
    large = next((each for each in results.large.values() if isinstance(each, Burst)), None)
    burst, rows = results.burst, []
    for models, kserve, before, most, both, found in (
        (0, "63–75", "70", 75, 150, results.empty),
        (burst.count if burst else 1000, "157–168", "99", 110, 190, burst and burst.memory),
        (large.count if large else 5000, "–", "215", 220, None, large and large.memory),
    ):
        aim = f"≤ {most} MiB" + (f", ≤ {both}" if both else "")
        rows.append(
            Aim(f"resident with {models:,}; with the inspector", kserve, before, aim, *_sizes(found, most, both))
        )
    return rows


def _sizes(found: Memory | None, most: int, both: int | None) -> tuple[str, bool | None]:
    if found is None:
        return "", None
    met = found.controller <= most * _MEBI and (both is None or found.both <= both * _MEBI)
    whole = f"VmRSS {found.controller_whole / _MEBI:.0f}"
    return f"{found.controller / _MEBI:.0f} MiB ({whole}), {found.both / _MEBI:.0f}", met


def _large(results: Results, namespaces: int) -> Aim:
    burst = results.large[namespaces]
    count = burst.count if isinstance(burst, Burst) else 5000
    where = "one namespace" if namespaces == 1 else f"{namespaces} namespaces"
    reached, met = str(burst), False
    if isinstance(burst, Burst) and len(burst.parts) > 1:
        (first, _, cost), (before, _, spent), (last, _, whole) = burst.parts[0], burst.parts[-2], burst.parts[-1]
        grows = (whole - spent) / (last - before) / (cost / first)
        slowest = max(judged for judged, _ in burst.probes) if burst.probes else float("inf")
        reached = (
            f"{burst.deployments:.0f} s; the last fifth takes {grows:.2f} × the processor time of the first; "
            f"a new one is judged after {slowest:.1f} s at most"
        )
        met = grows <= 1.5 and slowest <= 5
    aim = "linear (≤ 1.5 ×); a new model is judged ≤ 5 s meanwhile"
    return Aim(f"{count:,} in {where}", "", "lists of all for each: O(n²)", aim, reached, met)


def _idle(results: Results) -> Aim:
    reached, met = "", None
    if results.idle is not None:
        calls = len(results.idle.calls) * 60 / results.idle_seconds
        reached, met = f"{calls:g}", calls == 0
    return Aim("calls a minute when idle", "0", "0", "0", reached, met)
