"""What the container's control groups say, in both layouts of Linux: one tree (v2), or one a controller (v1).

A parent's limit binds as much as the container's own, so that all are looked at; inside a container the path that
``/proc/self/cgroup`` names may be what is mounted as the root. Source: cgroups(7) and the kernel's cgroup-v1/memory,
cgroup-v2.
"""

from pathlib import Path

_NO_LIMIT = 1 << 60
"""Bytes. Version 1 says "no limit" by a number of this size, which differs with the size of pages."""


def directories(root: Path, controller: str) -> list[Path]:
    """The groups of ``controller`` that this process is in, each with its parents. ``root`` holds /proc and /sys."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return [root / "sys/fs/cgroup", root / "sys/fs/cgroup" / controller]
    found: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            mount = root / "sys/fs/cgroup" / controllers
            if not mount.exists():
                mount = root / "sys/fs/cgroup" / controller
        else:
            continue
        directory = mount / path.lstrip("/")
        found += [directory, *(p for p in directory.parents if p.is_relative_to(mount))]
    return found


def memory_limit(root: Path = Path("/")) -> int | None:
    """The container's memory limit in bytes, the least of its groups and all above them; None without one."""
    limits = [limit for directory in directories(root, "memory") for limit in _limits(directory)]
    return min(limits, default=None)


def memory_used(root: Path = Path("/")) -> int | None:
    """Bytes that count against the container's limit and cannot be given back at once; None where nobody says.

    As the kubelet's ``working set``: what is used, less the pages of files that were not read lately.
    """
    for directory in directories(root, "memory"):
        for usage, inactive in (
            ("memory.current", "inactive_file "),
            ("memory.usage_in_bytes", "total_inactive_file "),
        ):
            if (used := _read(directory / usage)).isdecimal():
                stat = _read(directory / "memory.stat").splitlines()
                idle = next((int(line.split()[-1]) for line in stat if line.startswith(inactive)), 0)
                return max(0, int(used) - idle)
    return None


def _limits(directory: Path) -> list[int]:
    texts = [_read(directory / name) for name in ("memory.max", "memory.limit_in_bytes")]
    # Version 1 tells what lies above the container's own view, too.
    texts += [
        line.split()[-1]
        for line in _read(directory / "memory.stat").splitlines()
        if line.startswith("hierarchical_memory_limit ")
    ]
    return [int(text) for text in texts if text.isdecimal() and 0 < int(text) < _NO_LIMIT]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
