"""The measurements. Subject and baseline take turns, and a ratio is formed from each pair of turns."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnxruntime as ort

from benchmarks import cases, machine
from benchmarks.load import get, post
from benchmarks.served import Served
from benchmarks.worker import Worker

INFER = "/v2/models/m/infer"
_SETTLE_SECONDS = 0.3


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
class ServingResult:
    """Rates are per second, latencies and start times in seconds.

    ``share`` compares rates; ``share_of_core`` compares the processor time of one run with that of one answer,
    which other work on the machine hardly changes.
    """

    case: cases.Serving
    share: Spread
    share_of_core: Spread
    served_rate: float
    bare_rate: float
    p50: float
    p99: float
    answers: int
    body_bytes: int
    resident_bytes: int
    bare_resident_bytes: int
    start_seconds: float
    bare_start_seconds: float


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


@dataclass(frozen=True)
class StepsResult:
    """Microseconds of the server's core for one request, in all and by step."""

    total: float
    steps: dict[str, float]


def serving(case: cases.Serving, folder: Path, seconds: float, repeats: int) -> ServingResult:
    """Measure the share of bare ``InferenceSession.run`` that reaches clients."""
    core, _ = machine.cores()
    model = _written(case.make(), folder / f"{case.name}.onnx")
    payloads = cases.bodies(case)
    requests = [post(INFER, body) for body in payloads]
    seconds *= case.longer
    shares, of_core, served_rates, bare_rates, latencies = [], [], [], [], []
    with Worker(core, "bare", model, case.name) as bare, Served(core, model, requests[0]) as server:
        _compare(case, model, server.first_answer)
        server.load(requests, case.clients, _SETTLE_SECONDS)
        bare.measure(_SETTLE_SECONDS)
        for _ in range(repeats):
            turn = bare.measure(seconds)
            spent = server.processor_seconds()
            tally = server.load(requests, case.clients, seconds)
            spent = server.processor_seconds() - spent
            bare_rates.append(turn["runs"] / turn["seconds"])
            served_rates.append(tally.rate)
            shares.append(tally.rate / bare_rates[-1])
            of_core.append(turn["processorSeconds"] / turn["runs"] / (spent / len(tally.latencies)))
            latencies.append(tally)
        return ServingResult(
            case,
            Spread.of(shares),
            Spread.of(of_core),
            median(served_rates),
            median(bare_rates),
            median(tally.percentile(0.50) for tally in latencies),
            median(tally.percentile(0.99) for tally in latencies),
            sum(len(tally.latencies) for tally in latencies),
            len(payloads[0]),
            server.resident_bytes(),
            bare.ready["residentBytes"],
            server.start_seconds,
            bare.start_seconds,
        )


def inspection(title: str, model: onnx.ModelProto, folder: Path, seconds: float, repeats: int) -> InspectionResult:
    """Measure the verdict on a local file against loading, checking and inferring shapes with the onnx package."""
    core, _ = machine.cores()
    path = _written(model, folder / "inspected.onnx")
    pairs, commands, checker_commands = [], [], []
    with Worker(core, "judge", path) as judge, Worker(core, "checker", path) as checker:
        for _ in range(repeats):
            turns = [worker.measure(seconds / 2) for worker in (judge, checker)]
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
            judge.ready["peakAddedBytes"],
            checker.ready["peakAddedBytes"],
        )


def steps(case: cases.Serving, folder: Path, seconds: float, repeats: int) -> StepsResult:
    """Measure where the time of one request goes: the server's steps alone, and the server as a whole."""
    core, _ = machine.cores()
    model = _written(case.make(), folder / "steps.onnx")
    requests = [post(INFER, body) for body in cases.bodies(case)]
    totals, empty, inside = [], [], []
    with Worker(core, "steps", model, case.name) as worker, Served(core, model, requests[0]) as server:
        server.load(requests, case.clients, _SETTLE_SECONDS)
        for _ in range(repeats):
            inside.append(worker.measure(seconds))
            totals.append(_core_microseconds(server, requests, case.clients, seconds))
            empty.append(_core_microseconds(server, [get("/v2/health/live")], case.clients, seconds))
    found = {name: median(turn[name] for turn in inside) for name in inside[0]}
    found["http"] = median(empty)
    total = median(totals)
    found["rest"] = total - sum(found.values())
    return StepsResult(total, found)


def _inspect_command(core: int, path: Path) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "onnx_operator.cli", "inspect", str(path)],
        check=True,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: machine.pin(core),
    )
    return time.perf_counter() - began


def _core_microseconds(server: Served, requests: list[bytes], clients: int, seconds: float) -> float:
    before = server.processor_seconds()
    tally = server.load(requests, clients, seconds)
    return (server.processor_seconds() - before) / len(tally.latencies) * 1e6


def _written(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def _compare(case: cases.Serving, model: Path, answer: dict) -> None:
    """A fast wrong answer would be worth nothing."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    expected = session.run(None, {case.input: cases.rows(case.shape)[0]})
    for output, array in zip(answer["outputs"], expected, strict=True):
        np.testing.assert_allclose(np.array(output["data"], np.float32), array.ravel(), rtol=1e-5)
