"""Becomes the process that holds the node: recorded for the machine before anything can outlive it."""

from __future__ import annotations

import json
import os
import sys

from tests.cluster import cgroups, processes
from tests.cluster.layout import CGROUP, MACHINE_STATE


def main() -> None:
    """Record this process as the owner's, then turn into the one that makes the namespaces."""
    # Until the record is written, nobody could find this process: it must then die with its parent.
    processes.die_with_parent()
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
    state = json.loads(MACHINE_STATE.read_text())
    state.update(pid=os.getpid(), started=processes.start_time(os.getpid()))
    fresh = MACHINE_STATE.with_suffix(".new")
    fresh.write_text(json.dumps(state))
    fresh.replace(MACHINE_STATE)
    cgroups.join(CGROUP, os.getpid())
    processes.die_with_parent(False)
    namespaces = ["--net", "--pid", "--mount", "--uts", "--ipc"]
    command = ["unshare", *namespaces, "--fork", "--kill-child", "--mount-proc"]
    os.execvp("unshare", [*command, sys.executable, "-m", "tests.cluster.node"])


if __name__ == "__main__":
    main()
