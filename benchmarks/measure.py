"""The measurements. Subject and baseline take turns, and a ratio is formed from each pair of turns."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import onnx

from benchmarks import machine
from benchmarks.worker import Worker


@dataclass(frozen=True)
class Spread:
    """The median of the repeats, and the least and greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class InspectionResult:
    """``ratio`` is our processor time over the baseline's; memory is what the first inspection added at its peak.

    The commands' times are by the clock, from nothing to the verdict.
    """

    title: str
    file_bytes: int
    ratio: Spread
    judge_seconds: float
    checker_seconds: float
    command_seconds: float
    checker_command_seconds: float
    judge_peak_bytes: int
    checker_peak_bytes: int


def inspection(title: str, model: onnx.ModelProto, folder: Path, seconds: float, repeats: int) -> InspectionResult:
    """Measure the verdict on a local file against loading, checking and inferring shapes with the onnx package."""
    core, _ = machine.cores()
    path = _written(model, folder / "inspected.onnx")
    pairs, commands, checker_commands = [], [], []
    with Worker(core, "judge", path) as verify, Worker(core, "checker", path) as checker:
        for _ in range(repeats):
            turns = [worker.measure(seconds / 2) for worker in (verify, checker)]
            pairs.append([turn["processorSeconds"] / turn["runs"] for turn in turns])
            commands.append(_inspect_command(core, path))
            with Worker(core, "checker", path) as fresh:
                checker_commands.append(fresh.start_seconds)
        return InspectionResult(
            title,
            path.stat().st_size,
            Spread.of([ours / theirs for ours, theirs in pairs]),
            median(ours for ours, _ in pairs),
            median(theirs for _, theirs in pairs),
            median(commands),
            median(checker_commands),
            verify.ready["peakAddedBytes"],
            checker.ready["peakAddedBytes"],
        )


def _inspect_command(core: int, path: Path) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "onnx_operator.cli", "inspect", str(path)],
        check=True,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: machine.pin(core),
    )
    return time.perf_counter() - began


def _written(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path
