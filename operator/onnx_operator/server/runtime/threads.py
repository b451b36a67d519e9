"""How many CPUs this process may use: what a pod's limit says, not what the node has."""

import math
import os
from pathlib import Path

from onnx_operator.server.runtime.cgroups import directories


def available_cpus(root: Path = Path("/")) -> int:
    """Count this process's CPUs: the smaller of its affinity and its cgroup's quota (v2, v1), at least 1.

    A quota of 2.5 counts as 3: a thread that is throttled at times still beats an idle half core. ``root`` is
    where ``/proc`` and ``/sys`` are looked up.
    """
    cpus = len(os.sched_getaffinity(0))
    quota = _quota(root)
    return max(1, min(cpus, math.ceil(quota)) if quota else cpus)


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
