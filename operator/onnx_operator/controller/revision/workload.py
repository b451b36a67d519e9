"""How much CPU a pod of a model asks for: what a number of requests a second takes. Pure.

What one request takes is what a pod of an earlier revision measured that did the same operations; without one it is
estimated from the inspection: operations at the rate of a core's vector unit, weights at the rate of its memory (one
row reads each of them once), and what the server adds.

The rates are those of one core of a current x86-64 server, taken low. Measured there, with one thread: networks of
convolutions and of large matrices 65 to 115 GFLOP/s, recurrent ones 20; models that mostly read their weights 8 to
10 GB/s.
"""

import math
from dataclasses import dataclass

from onnx_operator.api.report import ModelReport

FLOPS_PER_SECOND = 50e9
WEIGHT_BYTES_PER_SECOND = 8e9
SERVER_SECONDS = 0.0002
"""Reading a request and writing its answer."""
MIN_CPUS = 0.05
"""With less, a start on a busy node takes minutes."""
MIN_GPU_CPUS = 0.25
"""Of a pod whose model runs on a GPU, which has to be fed."""
_STEPS = 100
"""To a CPU: small changes of a model change no pod."""


@dataclass(frozen=True)
class Work:
    """CPU time that one request takes, in seconds, and where that is known from, for people."""

    seconds: float
    source: str


@dataclass(frozen=True)
class CpuRequest:
    """What a pod asks for, in CPUs, and why, for people."""

    cpus: float
    why: str


def work_of(report: ModelReport, measured_seconds: float | None, *, gpu: bool = False) -> Work:
    """What a request of the model takes.

    Args:
        report: of the model.
        measured_seconds: CPU time of a run as a pod measured it; None where none did.
        gpu: whether operations run on a GPU, so that only a measurement says what is left for the CPU.
    """
    if measured_seconds is not None:
        seconds = measured_seconds + SERVER_SECONDS
        return Work(seconds, f"{time_text(seconds)} of CPU time a request, measured")
    if gpu:
        return Work(SERVER_SECONDS, "the model runs on a GPU")
    seconds = report.flops / FLOPS_PER_SECOND + report.memory.weights_bytes / WEIGHT_BYTES_PER_SECOND + SERVER_SECONDS
    return Work(seconds, f"{time_text(seconds)} of CPU time a request, estimated from {flops_text(report.flops)}")


def cpu_request(work: Work, requests_per_second: float, most_cpus: float, *, gpu: bool = False) -> CpuRequest:
    """What a pod asks for to answer so many requests of this kind, within the bounds."""
    wanted = work.seconds * requests_per_second
    least = min(MIN_GPU_CPUS if gpu else MIN_CPUS, most_cpus)
    cpus = min(max(math.ceil(wanted * _STEPS - 1e-9) / _STEPS, least), most_cpus)
    bound = ""
    if wanted > most_cpus:
        bound = f", but at most {most_cpus:g} CPU (setting resources.maxCpu)"
    elif wanted < least:
        bound = f", but at least {least:g} CPU"
    return CpuRequest(cpus, f"{work.source}, {requests_per_second:g} requests/s a pod{bound}")


def time_text(seconds: float) -> str:
    """Seconds for people, as in ``12 ms``."""
    return f"{_short(seconds)} s" if seconds >= 1 else f"{_short(seconds * 1000)} ms"


def flops_text(count: int) -> str:
    """Operations for people, as in ``8.2 GFLOP``."""
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{_short(count / size)} {prefix}FLOP"
    return f"{count} FLOP"


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"
