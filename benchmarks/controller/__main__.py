"""``python -m benchmarks.controller``: measure and print; a file is written only where ``--output`` says so."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from benchmarks import machine
from benchmarks.controller import measure, report
from benchmarks.controller.bench import bench
from benchmarks.controller.files import Files, served
from benchmarks.controller.raw import CONCURRENCY
from tests.cluster.errors import ClusterError

_QUICK_MODELS, _QUICK_TURNS, _SAMPLED = 30, 6, 200
_MANY_NAMESPACES = 500
_LARGE_SECONDS = 3 * 3600
_BUSY = 1.0
"""Load for each core above which a machine is called busy."""
_PACKAGES = ("onnx-operator", "aiohttp", "kubernetes", "pydantic", "onnxruntime", "onnx")


def _machine() -> list[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    gibibytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    state = "a busy machine: others work on it" if load / cores > _BUSY else "a quiet machine"
    return [
        f"{model}, {cores} cores, which control plane, operator and clients share; {gibibytes:.0f} GiB, "
        f"Linux {platform.release()}",
        "Kubernetes 1.35.4, kwok 0.7.0, "
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES),
        f"load average at the start: {load:.1f} ({state})",
    ]


class _Teller:
    """Lines of progress, with the time since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:7.1f} s  {text}", file=sys.stderr, flush=True)


async def _measure(files: Files, folder: Path, models: int, turns: int, quick: bool, say: Callable[[str], None]):
    results = report.Results(idle_seconds=10.0 if quick else 60.0)
    sampled = min(models, _SAMPLED)
    pods = 2 * models + 2 * sampled + 3 * (turns + 3)
    async with bench(files, pods, say, quiet_seconds=4.0 if quick else 10.0) as each:
        await each.quiet()
        results.empty = each.operator.memory()
        results.turns, deployment = await measure.turns(each, turns)
        results.floor_at_once = await measure.floor_at_once(each, deployment, models)
        results.burst = await measure.burst(each, models, [await each.namespace("at-once")])
        results.idle = await measure.idle(each, results.idle_seconds)
        results.restart = await measure.restart(each, models + 2 * turns)
        results.profiles = await measure.profile(each, sampled, folder)
    return results


async def _large(files: Files, count: int, namespaces: int, say: Callable[[str], None]) -> measure.Burst | str:
    try:
        async with bench(files, count + 100, say, quiet_seconds=10.0) as each:
            names = [await each.namespace(f"large-{number:03}") for number in range(namespaces)]
            return await measure.burst(each, count, names, probes=3, seconds=_LARGE_SECONDS)
    except (ClusterError, TimeoutError) as error:
        # What was measured before is worth telling all the same.
        return str(error).splitlines()[0]


async def _all(models: int, large: int, turns: int, quick: bool, command: Sequence[str]) -> str:
    say, described = _Teller(), _machine()
    machine.unpin()
    with tempfile.TemporaryDirectory(prefix="onnx-operator-benchmark-") as temporary:
        folder = Path(temporary)
        with served(folder / "models") as files:
            results = await _measure(files, folder, models, turns, quick, say)
            for namespaces in (1, _MANY_NAMESPACES) if large else ():
                say(f"{large:,} models in {namespaces} namespaces")
                results.large[namespaces] = await _large(files, large, namespaces, say)
    described.append(f"load average at the end: {os.getloadavg()[0]:.1f}")
    return report.document(" ".join(command), described, CONCURRENCY, results)


@click.command()
@click.option("--models", type=click.IntRange(5, 20_000), default=1000, show_default=True, help="Made at once.")
@click.option("--large", type=click.IntRange(0, 20_000), default=5000, show_default=True, help="The same; 0: none.")
@click.option("--turns", type=click.IntRange(3, 1000), default=100, show_default=True, help="One model at a time.")
@click.option("--quick", is_flag=True, help=f"{_QUICK_MODELS} models, {_QUICK_TURNS} turns, nothing large.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Also write the page to this file.")
def main(models: int, large: int, turns: int, quick: bool, output: Path | None) -> None:
    """Measure the controller against a raw client that creates the same Deployments.

    Needs Linux, root and Go, as the tests' control plane does, and Debian's nginx-light. The processor time of the
    operator is sampled in a run of its own, so that no figure pays for it.
    """
    if quick:
        models, large, turns = _QUICK_MODELS, 0, _QUICK_TURNS
    command = ["python -m benchmarks.controller", f"--models {models} --large {large} --turns {turns}"]
    page = asyncio.run(_all(models, large, turns, quick, command))
    click.echo(page)
    if output is not None:
        output.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
