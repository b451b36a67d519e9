"""How many CPUs this process may use: what its container has, not what the node has."""

import math
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from onnx_operator.api.names import ENV_CPU_REQUEST
from onnx_operator.common.cgroups import directories

_LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TOKIO_WORKER_THREADS")
"""What numeric libraries, and obstore's runtime, are told their number of threads by; without, they start one for each
CPU of the node."""


def available_cpus(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """Count this process's CPUs, at least 1 and at most its affinity.

    By its cgroup's quota (v2, v1), which is the container's limit; without one by what the container asks for, which
    its pod says; else by its affinity. A quota of 2.5 counts as 3: a thread that is throttled at times still beats an
    idle half core. ``root`` is where ``/proc`` and ``/sys`` are looked up.
    """
    cpus = len(os.sched_getaffinity(0))
    told = _quota(root) or _request(environment)
    return max(1, min(cpus, math.ceil(told)) if told else cpus)


def limit_libraries(environment: MutableMapping[str, str], threads: int) -> None:
    """Have libraries that are imported from now on start no more threads; who said so himself is heeded."""
    for name in _LIBRARIES:
        environment.setdefault(name, str(threads))


def _request(environment: Mapping[str, str]) -> float | None:
    told = environment.get(ENV_CPU_REQUEST, "")
    return int(told) / 1000 if told.isascii() and told.isdecimal() and len(told) < 10 else None


def _quota(root: Path) -> float | None:
    quotas = [quota for directory in directories(root, "cpu") if (quota := _read_quota(directory))]
    return min(quotas, default=None)


def _read_quota(directory: Path) -> float | None:
    try:
        if (directory / "cpu.max").exists():
            quota, period = (directory / "cpu.max").read_text().split()
        else:
            quota = (directory / "cpu.cfs_quota_us").read_text().strip()
            period = (directory / "cpu.cfs_period_us").read_text().strip()
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
