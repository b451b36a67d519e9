"""Which cluster this machine runs, and taking one down whatever state it is in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cluster import cgroups, network, processes
from tests.cluster.errors import ClusterError
from tests.cluster.layout import CGROUP, MACHINE_STATE, ROOT, SHADOWED, VOLATILE

# The kubelet sets these for the whole machine.
_KERNEL_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def read() -> dict[str, Any] | None:
    """The record of the machine's cluster, if there is one."""
    try:
        record: dict[str, Any] = json.loads(MACHINE_STATE.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return record


def write(record: dict[str, Any]) -> None:
    """Replace the record in one step."""
    fresh = MACHINE_STATE.with_suffix(".new")
    fresh.write_text(json.dumps(record))
    fresh.replace(MACHINE_STATE)


def new_record() -> dict[str, Any]:
    """What has to be known to undo a bring-up, before it has done anything."""
    settings = {}
    for name in _KERNEL_SETTINGS:
        path = Path("/proc/sys") / name
        if path.exists():
            settings[name] = path.read_text().strip()
    return {
        "folder": str(ROOT),
        "phase": "starting",
        "remove": [str(path) for path in VOLATILE],
        "made": [str(path) for path in SHADOWED if not path.exists()],
        "settings": settings,
    }


def holder() -> int | None:
    """The process that holds the node, if this machine has a running one."""
    record = read()
    if record and "pid" in record and processes.is_alive(record["pid"], record["started"]):
        return int(record["pid"])
    return None


def node_pid() -> int | None:
    """The node's first process."""
    pid = holder()
    return processes.first_child(pid) if pid else None


def enter(command: Sequence[str]) -> list[str]:
    """The command line that runs a command in the node's namespaces."""
    pid = node_pid()
    if pid is None:
        raise ClusterError("the local cluster is not up; run `python -m tests.cluster up`")
    return ["nsenter", "--target", str(pid), "--net", "--mount", "--pid", "--uts", "--ipc", "--", *command]


def _kill_group() -> None:
    """End whatever the node's control group still holds, each process by its own id."""
    deadline = time.monotonic() + 15
    while left := cgroups.processes(CGROUP):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise ClusterError(f"these processes of the cluster would not end: {left}")
        time.sleep(0.05)


def remove() -> None:
    """Leave nothing of a cluster, whichever clone started it and however far it came."""
    record = read() or {}
    if "pid" in record and not processes.kill(record["pid"], record["started"]):
        raise ClusterError(f"the process {record['pid']}, which holds the node, would not end")
    _kill_group()
    network.disconnect()
    if left := cgroups.remove(CGROUP):
        raise ClusterError(f"could not remove the control groups {', '.join(map(str, left))}")
    for name, value in record.get("settings", {}).items():
        (Path("/proc/sys") / name).write_text(value)
    for path in map(Path, [*record.get("remove", []), *map(str, VOLATILE)]):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    for path in map(Path, record.get("made", [])):
        try:
            path.rmdir()
        except OSError:
            # Someone else has begun to use it.
            continue
    # Last: until here a killed removal can be taken up again.
    MACHINE_STATE.unlink(missing_ok=True)


def leftovers() -> list[str]:
    """What a cluster has left on this machine, in words; empty after a clean removal."""
    found = network.leftovers()
    found += [f"process {pid}" for pid in cgroups.processes(CGROUP)]
    found += [f"control group {path}" for path in cgroups.remaining(CGROUP)]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line.split()[4]}" for line in mounts if str(ROOT / ".cluster") in line.split()[4]]
    found += [f"file {path}" for path in (MACHINE_STATE, *VOLATILE) if path.exists()]
    return found
