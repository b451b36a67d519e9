"""Many seeds, some side by side, on one control plane."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import plan
from tests.chaos.expected import Expected
from tests.chaos.kubelet import Kubelet
from tests.chaos.mirror import Mirror
from tests.chaos.nursery import Nursery
from tests.chaos.plane import Files, files, plane
from tests.chaos.seed import Result, Seed, World
from tests.cluster.layout import ROOT

RENEWED_AFTER = 200
"""Seeds after which the control plane is a new one: nobody tidies up Events and namespaces."""


@dataclass
class Summary:
    """How a run went."""

    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0
    specs: int = 0

    @property
    def failed(self) -> list[Result]:
        return sorted((r for r in self.results if r.failures), key=lambda r: r.seed)

    def _total(self, of: Callable[[Result], Counter[str]]) -> Counter[str]:
        return sum((of(result) for result in self.results), Counter())

    def text(self) -> str:
        """For people."""
        met, actions = self._total(lambda r: r.met), self._total(lambda r: r.actions)
        calm = sorted(r.calm_seconds for r in self.results)
        lines = [
            f"{len(self.results)} seeds in {self.seconds:.0f} s, {len(self.failed)} failed; {self.specs} kinds of ends",
            f"calls of operators: {sum(r.calls for r in self.results)}, writes: {sum(r.writes for r in self.results)}",
            "faults met: " + _listed(met),
            "actions: " + _listed(actions),
        ]
        if calm:
            lines.append(f"from the last fault to the end: median {calm[len(calm) // 2]:.1f} s, most {calm[-1]:.1f} s")
        for result in self.failed:
            lines.append(f"\nseed {result.seed} FAILED (python -m tests.chaos --first {result.seed} --seeds 1)")
            lines += [f"  {failure}" for failure in result.failures]
        return "\n".join(lines)


def _listed(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items())) or "none"


@asynccontextmanager
async def _inspector(folder: Path, served: Files) -> AsyncIterator[Path]:
    """The real inspector, which all operators of a run share."""
    from tests.chaos.inspector import serving

    async with serving(folder, served) as socket:
        yield socket


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """Everything that seeds share, for as long as the block lasts."""
    async with plane(folder) as made, files(folder) as served, _inspector(folder, served) as inspector:
        mirror = Mirror(made.api)
        kubelet = Kubelet(made.api, mirror)
        nursery = await Nursery.start()
        await mirror.start()
        expected = Expected(made.api, mirror, served)
        await expected.start(nursery, folder, inspector)
        found = World(folder, made, served, mirror, kubelet, nursery, inspector, expected)
        mirror.seen.append(found.see)
        try:
            yield found
        finally:
            await expected.stop()
            await kubelet.stop()
            await nursery.stop()
            await mirror.stop()


async def _one(shared: World, number: int, *, keep: bool) -> Result:
    made = Seed(shared, plan.make(number), f"seed-{number}")
    try:
        result = await made.run()
    except Exception:
        traceback.print_exc()
        result = made.result
        result.failures = result.failures or ["the harness failed"]
    folder = shared.folder / f"seed-{number}"
    if result.failures:
        (folder / "plan.txt").write_text("\n".join(map(str, plan.make(number).steps)) + "\n")
    elif not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return result


async def _some(shared: World, numbers: Iterable[int], side_by_side: int, tell: Callable[[Result], None]) -> None:
    places = asyncio.Semaphore(side_by_side)

    async def one(number: int) -> None:
        async with places:
            tell(await _one(shared, number, keep=False))

    await asyncio.gather(*(one(number) for number in numbers))


async def run(
    numbers: Iterable[int], side_by_side: int, folder: Path, tell: Callable[[Result], None] = lambda result: None
) -> Summary:
    """Carry out the plans of seeds; those that restart the control plane after the others, which they would disturb.

    Args:
        numbers: the seeds.
        side_by_side: how many at a time.
        folder: for logs; those of seeds that failed stay.
        tell: called with each result as it comes.
    """
    summary, began = Summary(), time.monotonic()

    def told(result: Result) -> None:
        summary.results.append(result)
        tell(result)

    ordered = list(numbers)
    for start in range(0, len(ordered), RENEWED_AFTER):
        part = ordered[start : start + RENEWED_AFTER]
        plans = {number: plan.make(number) for number in part}
        lone = [number for number in part if plans[number].lone]
        place = folder / f"from-{part[0]}"
        place.mkdir(parents=True)
        async with world(place) as shared:
            await _some(shared, [number for number in part if number not in lone], side_by_side, told)
            # What an undisturbed operator makes of them is found out before anything disturbs it.
            ends = [spec for number in lone for spec in plans[number].finals.values()]
            await asyncio.gather(*(shared.expected.of(spec) for spec in ends))
            await _some(shared, lone, side_by_side, told)
            summary.specs += shared.expected.specs
    summary.seconds = time.monotonic() - began
    return summary


def versions() -> str:
    """What a run ran with, for its record."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"commit {described or 'unknown'}, Python {sys.version.split()[0]}, {os.cpu_count()} CPUs"
