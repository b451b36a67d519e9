"""The first process of the node: sets the namespaces up, starts the components, notes which ended.

Runs inside the node with the standard library alone. It restarts nothing: a component that dies is
something to see in a test, not to paper over.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.cluster import probe
from tests.cluster.layout import (
    IN_NODE,
    NODE_ADDRESS,
    NODE_NAME,
    SERVICE_NETWORK,
    SHADOWED,
    STATE,
)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def _mounts() -> None:
    _run("mount", "--make-rprivate", "/")
    # The host's would be shared otherwise: network namespaces and sockets would outlive the node.
    _run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
    IN_NODE.mkdir()
    _run("mount", "--bind", str(STATE), str(IN_NODE))
    Path("/run/lock").mkdir()
    for folder in SHADOWED:
        folder.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "tmpfs", str(folder))
    # The kubelet's mounts have to reach containers that run already.
    _run("mount", "--make-rshared", "/")


def _network() -> None:
    _run("ip", "link", "set", "lo", "up")
    deadline = time.monotonic() + 30
    while "eth0" not in (name for _, name in socket.if_nameindex()):
        if time.monotonic() > deadline:
            raise SystemExit("the link to the host never came")
        time.sleep(0.02)
    _run("ip", "address", "add", f"{NODE_ADDRESS}/24", "dev", "eth0")
    _run("ip", "link", "set", "eth0", "up")
    # Service addresses are rewritten after the route was chosen, so there must be one, to anywhere.
    _run("ip", "link", "add", "services0", "type", "bridge")
    _run("ip", "address", "add", "169.254.250.1/30", "dev", "services0")
    _run("ip", "link", "set", "services0", "up")
    _run("ip", "route", "add", SERVICE_NETWORK, "dev", "services0", "src", NODE_ADDRESS)
    # Everything else fails at once: no test waits for an address that nobody answers.
    _run("ip", "route", "add", "unreachable", "default")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _api_server_ready() -> bool:
    return probe.ready(NODE_ADDRESS, 6443, IN_NODE / "pki/ca.crt")


class Supervisor:
    """Starts the components in order, reaps every process, writes down what it sees."""

    def __init__(self, components: list[dict[str, Any]]) -> None:
        self._components = components
        self._report = IN_NODE / "node/processes.json"
        self._seen: dict[str, dict[str, Any]] = {}
        self._names: dict[int, str] = {}
        self._environment = {
            "PATH": f"{IN_NODE}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(IN_NODE / "node"),
            "TMPDIR": "/run",
        }

    def _write(self) -> None:
        fresh = self._report.with_suffix(".new")
        fresh.write_text(json.dumps(self._seen))
        fresh.replace(self._report)

    def _start(self, component: dict[str, Any]) -> None:
        name, argv = component["name"], component["argv"]
        with (IN_NODE / f"logs/{name}.log").open("wb") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                executable=str(IN_NODE / "bin" / argv[0]),
                start_new_session=True,
            )
        self._names[process.pid] = name
        self._seen[name] = {"pid": process.pid, "started": time.time(), "ended": None}

    def _reap(self) -> bool:
        """Collect one ended process, ours or an orphan; False when none is waiting."""
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return False
        if name := self._names.pop(pid, None):
            code = os.waitstatus_to_exitcode(status)
            self._seen[name]["ended"] = f"exit status {code}" if code >= 0 else f"signal {-code}"
            self._write()
        return True

    def run(self) -> None:
        """Never returns: the node ends when this process is killed."""
        waiting = list(self._components)
        for component in [c for c in waiting if not c["needs_api_server"]]:
            self._start(component)
            waiting.remove(component)
        self._write()
        while True:
            while self._reap():
                pass
            if waiting and _api_server_ready():
                for component in waiting:
                    self._start(component)
                waiting = []
                self._write()
            time.sleep(0.05 if waiting else 0.5)


def main() -> None:
    """Set the node up and hold it."""
    # As the first process of its namespace, it is not even interrupted by signals it does not handle;
    # a terminal's interrupt must not reach the components either.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    socket.sethostname(NODE_NAME)
    _mounts()
    _network()
    components = json.loads((IN_NODE / "etc/components.json").read_text())
    Supervisor(components).run()


if __name__ == "__main__":
    main()
