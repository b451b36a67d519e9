"""Which machine and versions the figures are from, and which core does what."""

import os
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("onnx-operator", "onnxruntime", "onnx", "numpy", "httptools", "uvloop", "orjson", "pysimdjson", "grpcio")


_ALL = frozenset(os.sched_getaffinity(0))


@cache
def cores() -> tuple[int, int]:
    """The core of what is measured, and that of the load generator (the same where there is only one).

    Worked out once, before this process binds itself to one.
    """
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def pin(core: int) -> None:
    """Keep this process, and what it starts from now on, on one core."""
    os.sched_setaffinity(0, {core})


def unpin() -> None:
    """Let this process, and what it starts from now on, use all cores again."""
    os.sched_setaffinity(0, set(_ALL))


def memory(field: str, process: int | str = "self") -> int:
    """Bytes of a process's ``VmRSS`` (resident now) or ``VmHWM`` (its peak)."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def processor_seconds(process: int) -> float:
    """Time that a process spent on a core so far, all threads, in the kernel too."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def describe() -> list[str]:
    """Lines that name the machine and the versions."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    measured, generator = cores()
    gibibytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    busy = "one core only: the load generator shares it" if measured == generator else "one core each for server, load"
    return [
        f"{model}, {os.cpu_count()} cores ({busy}), {gibibytes:.0f} GiB, Linux {platform.release()}",
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        f"load average at the start: {os.getloadavg()[0]:.1f}",
    ]
