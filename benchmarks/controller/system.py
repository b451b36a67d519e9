"""The operator as processes: controller and inspector as the chart starts them, with what they take of the machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.controller.files import Files
from benchmarks.controller.plane import OPERATOR, Plane
from tests.cluster.cluster import OPERATOR_NAMESPACE
from tests.cluster.errors import ClusterError, tail
from tests.cluster.layout import ROOT
from tests.cluster.stores import free_port

_START_SECONDS = 60.0
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Processor:
    """Seconds on a core so far."""

    controller: float
    inspector: float
    parsers: float
    """Of the process that forks for each structure, and of its children."""

    def __sub__(self, other: Processor) -> Processor:
        return Processor(
            self.controller - other.controller, self.inspector - other.inspector, self.parsers - other.parsers
        )

    @property
    def both(self) -> float:
        """Controller, inspector and the inspector's children."""
        return self.controller + self.inspector + self.parsers


@dataclass(frozen=True)
class Memory:
    """Bytes that are resident now and are no file's, which only an end of the process would free.

    Of the inspector and its children, which share most pages, those that several share count once.
    """

    controller: int
    inspector: int
    controller_whole: int
    """With the pages of libraries' files (VmRSS)."""

    @property
    def both(self) -> int:
        """Controller, inspector and the inspector's children."""
        return self.controller + self.inspector


class Operator:
    """Controller and inspector on a control plane; ``samples`` makes each say where its time went, into a file."""

    def __init__(self, plane: Plane, files: Files, *, samples: Path | None = None) -> None:
        self._folder, self._samples = plane.folder / "operator", samples
        self._folder.mkdir(exist_ok=True)
        settings = {
            "serverImage": "registry.example.com/onnx-server:0.1.0",
            "sources": {"allowedNetworks": ["127.0.0.0/8"], "https": {"caBundle": files.ca_bundle}},
        }
        file = self._folder / "settings.yaml"
        file.write_text(json.dumps(settings))
        self._kubeconfig = plane.kubeconfig("operator", OPERATOR, "system:serviceaccounts")
        self._common = ["--settings", str(file), "--inspector-socket", str(self._folder / "inspector.sock")]
        self.log = self._folder / "log"
        self.port = 0
        self._inspector = self._start("inspector")
        self._controller = self._start_controller()

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        module = ["-m", "onnx_operator.controller"]
        if self._samples:
            module = ["-m", "benchmarks.controller.sampler", str(self._samples.with_suffix(f".{name}")), module[1]]
        command = [sys.executable, *module, name, *self._common, *arguments]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"}
        with self.log.open("ab") as log:
            # Killed with this process, whatever ends it.
            bound = ["setpriv", "--pdeathsig", "KILL", "--"]
            return subprocess.Popen([*bound, *command], env=environment, stdout=log, stderr=log)

    def _start_controller(self) -> subprocess.Popen[bytes]:
        self.port = free_port()
        where = ["--namespace", OPERATOR_NAMESPACE, "--kubeconfig", str(self._kubeconfig)]
        return self._start("controller", *where, "--host", "127.0.0.1", "--port", str(self.port))

    def stop_controller(self) -> None:
        """Ask the controller to end, as a rollout does, and wait until it has."""
        self._controller.send_signal(signal.SIGTERM)
        self._controller.wait(60)

    def start_controller(self) -> None:
        """Start another one."""
        self._controller = self._start_controller()

    def sample_anew(self) -> None:
        """Forget where time went so far."""
        for process in (self._controller, self._inspector):
            process.send_signal(signal.SIGUSR1)

    def leading(self) -> bool:
        """Whether the controller says that it is ready and leads."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as response:
                return bool(json.loads(response.read())["leading"])
        except (urllib.error.URLError, OSError):
            return False

    def wait_until_leading(self) -> None:
        """Wait until the controller leads; raises :class:`ClusterError` where it does not."""
        deadline = time.monotonic() + _START_SECONDS
        while not self.leading():
            self.check()
            if time.monotonic() > deadline:
                raise ClusterError(f"the controller does not lead:\n{tail(self.log)}")
            time.sleep(_LOOK_SECONDS)

    def check(self) -> None:
        """Raise :class:`ClusterError` where a process has ended."""
        for process in (self._controller, self._inspector):
            if process.poll() is not None:
                raise ClusterError(f"the operator ended with {process.returncode}:\n{tail(self.log)}")

    def processor(self) -> Processor:
        """Processor time so far; what a child took counts once its parent has waited for it."""
        inspector = self._inspector.pid
        return Processor(
            sum(_seconds(self._controller.pid)),
            _seconds(inspector)[0],
            _seconds(inspector)[1] + sum(sum(_seconds(pid)) for pid in _descendants(inspector)),
        )

    def memory(self) -> Memory:
        """What is resident."""
        pid, inspector = self._controller.pid, self._inspector.pid
        pids = [inspector, *_descendants(inspector)]
        own = machine.memory("RssAnon", pid) + machine.memory("RssShmem", pid)
        return Memory(own, sum(map(_own, pids)), machine.memory("VmRSS", pid))

    def stop(self) -> None:
        """End both: first as a rollout does, then by force."""
        for process in (self._controller, self._inspector):
            process.send_signal(signal.SIGTERM)
        for process in (self._controller, self._inspector):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _seconds(pid: int) -> tuple[float, float]:
    """Processor time of a process, and of children that it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0
    own, children = (sum(map(int, fields[at : at + 2])) for at in (11, 13))
    tick = os.sysconf("SC_CLK_TCK")
    return own / tick, children / tick


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in map(int, task.read_text().split()):
                found += [child, *_descendants(child)]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _own(pid: int) -> int:
    """A process' share of pages that are no file's."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
