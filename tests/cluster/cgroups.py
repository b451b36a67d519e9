"""The node's control group, in both layouts: one folder a controller (v1), or one tree (v2)."""

from __future__ import annotations

import time
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
# In the first layout every process of the node is a member here, which is how leftovers are found.
_TRACKING = "pids"
# The components' own group; pods get theirs beside it from the kubelet.
_COMPONENTS = "components"


def is_v2() -> bool:
    """Whether the machine has only the unified tree."""
    return (MOUNT / "cgroup.controllers").exists()


def _roots() -> list[Path]:
    if is_v2():
        return [MOUNT]
    # Links such as `cpu,cpuacct` would name the same folder twice.
    return sorted(p for p in MOUNT.iterdir() if p.is_dir() and not p.is_symlink())


def create(name: str) -> None:
    """Make the group, with everything that container runtimes expect of a root group."""
    for root in _roots():
        if root.name == "unified":
            continue
        group = root / name
        group.mkdir(exist_ok=True)
        if is_v2():
            for folder in (root, group):
                wanted = (folder / "cgroup.controllers").read_text().split()
                (folder / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in wanted))
        elif root.name == "cpuset":
            # An empty cpuset takes no process, and a new one starts empty.
            for file in ("cpuset.cpus", "cpuset.mems"):
                (group / file).write_text((root / file).read_text())


def join(name: str, pid: int) -> None:
    """Put a process, and so its later children, into the group by which the node is tracked."""
    group = (MOUNT if is_v2() else MOUNT / _TRACKING) / name / _COMPONENTS
    group.mkdir(exist_ok=True)
    (group / "cgroup.procs").write_text(str(pid))


def processes(name: str) -> list[int]:
    """Every process in the group or below it, in any hierarchy."""
    found: set[int] = set()
    for root in _roots():
        for file in (root / name).rglob("cgroup.procs"):
            try:
                # 0 stands for a process outside this process's own namespace.
                found.update(pid for pid in map(int, file.read_text().split()) if pid)
            except OSError:
                continue
    return sorted(found)


def remaining(name: str) -> list[Path]:
    """The folders that still exist of the group."""
    return [root / name for root in _roots() if (root / name).exists()]


def remove(name: str, timeout: float = 10) -> list[Path]:
    """Remove the group's folders, deepest first; return those that would not go."""
    deadline = time.monotonic() + timeout
    while True:
        for group in remaining(name):
            folders = [p for p in group.rglob("*") if p.is_dir()]
            for folder in [*sorted(folders, key=lambda p: len(p.parts), reverse=True), group]:
                try:
                    folder.rmdir()
                except OSError:
                    continue
        # A group stays busy for a moment after its last process was killed.
        if not remaining(name) or time.monotonic() > deadline:
            return remaining(name)
        time.sleep(0.1)
