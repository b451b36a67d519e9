"""The servers under measurement, each a process on one core."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from benchmarks import machine
from tests.cluster.layout import cache

PEERS = Path(__file__).parent / "peers"
START_SECONDS = 120


class EnvironmentMissing(Exception):  # noqa: N818 - it is made on the next run
    """A peer's environment cannot be made."""


@dataclass
class Server:
    """A server that answers: where, since when, and its processes."""

    name: str
    port: int
    grpc_port: int
    pid: int
    start_seconds: float = 0.0
    versions: str = ""
    infer: str = "/v2/models/m/infer"
    pids: list[int] = field(default_factory=list)

    def family(self) -> list[int]:
        """Its process, and those that it has started."""
        found, waiting = [], [self.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
            waiting += [int(line) for line in listed.stdout.split()]
        return found

    def resident_bytes(self) -> int:
        """Memory of all its processes."""
        return sum(machine.memory("VmRSS", pid) for pid in self.family())

    def processor_seconds(self) -> float:
        """Time on its core so far."""
        return sum(machine.processor_seconds(pid) for pid in self.family())

    def post(self, body: bytes, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
        """One inference over HTTP."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{self.infer}", body, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read(), {name.lower(): value for name, value in response.headers.items()}


def environment(name: str) -> Path:
    """The Python of a peer's environment, made from its packages on first use."""
    folder = cache() / "benchmarks" / name
    python = folder / "bin" / "python"
    mark = folder / ".complete"
    if not mark.exists():
        print(f"making the environment of {name}, a few minutes …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        done = subprocess.run([python, "-m", "pip", "install", "-q", name, "onnxruntime"], check=False)
        if done.returncode:
            raise EnvironmentMissing(f"{name} cannot be installed; its server is left out")
        mark.touch()
    return python


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def ours(
    core: int, model: Path, body: bytes, headers: dict[str, str], path: str = "/v2/models/m/infer", processes: int = 1
) -> Iterator[Server]:
    """``onnx-server serve`` as pods run it; asked at ``path``. More than one of its ``processes`` have all cores."""
    port, grpc_port = free_port(), free_port()
    command = [sys.executable, "-m", "onnx_operator.server", "serve", "--model", str(model), "--name", "m"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--grpc-port", str(grpc_port), "--request-timeout", "60"]
    command += ["--processes", str(processes)]
    found = version("onnx-operator")
    bound = core if processes == 1 else None
    with _started("onnx-operator", command, port, grpc_port, bound, found, body, headers, path) as server:
        yield server


@contextmanager
def kserve(core: int, model: Path, body: bytes, headers: dict[str, str]) -> Iterator[Server]:
    """KServe's ModelServer."""
    python, port, grpc_port = environment("kserve"), free_port(), free_port()
    command = [str(python), str(PEERS / "kserve_server.py"), str(model), str(port), str(grpc_port)]
    with _started("KServe", command, port, grpc_port, core, _version(python, "kserve"), body, headers) as server:
        yield server


@contextmanager
def mlserver(core: int, model: Path, body: bytes, headers: dict[str, str]) -> Iterator[Server]:
    """MLServer without its worker processes, which would only add a hop on one core."""
    python, port, grpc_port = environment("mlserver"), free_port(), free_port()
    folder = model.with_suffix(".mlserver")
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(
        json.dumps(
            {
                "host": "127.0.0.1",
                "http_port": port,
                "grpc_port": grpc_port,
                "metrics_port": free_port(),
                "parallel_workers": 0,
                "debug": False,
            }
        )
    )
    (folder / "model-settings.json").write_text(
        json.dumps({"name": "m", "implementation": "mlserver_model.Served", "parameters": {"uri": str(model)}})
    )
    command = [str(python.with_name("mlserver")), "start", str(folder)]
    with _started("MLServer", command, port, grpc_port, core, _version(python, "mlserver"), body, headers) as server:
        yield server


@contextmanager
def _started(
    name: str,
    command: list[str],
    port: int,
    grpc_port: int,
    core: int | None,
    found: str,
    body: bytes,
    headers: dict[str, str],
    infer: str = "/v2/models/m/infer",
) -> Iterator[Server]:
    # The images hold bytecode. Who does not write any would compile our modules at each start, and not the peers'.
    kept_out = ("ONNX_", "PYTHONDONTWRITEBYTECODE")
    variables = {key: value for key, value in os.environ.items() if not key.startswith(kept_out)}
    variables["PYTHONPATH"] = f"{variables.get('PYTHONPATH', '')}:{PEERS}"
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=machine.unpin if core is None else lambda: machine.pin(core),
        start_new_session=True,
    )
    try:
        server = Server(name, port, grpc_port, process.pid, versions=f"{name} {found}", infer=infer)
        while True:
            try:
                server.post(body, headers)
                break
            except (OSError, urllib.error.URLError):
                if process.poll() is not None or time.perf_counter() - began > START_SECONDS:
                    raise RuntimeError(f"{name} does not answer: {' '.join(command)}") from None
                time.sleep(0.005)
        server.start_seconds = time.perf_counter() - began
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _version(python: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
