"""Several processes behind one port are one server to everybody outside."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from onnx_operator.server.processes import further_processes, memory_limit
from tests.unit.server.serving import Process, linear, serving, slow

INFER = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1, 0, 0, 0]}]}


def children(process: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to be")


def listening(port: int) -> int:
    """How many sockets listen on the port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)


def answered(process: Process) -> float:
    text = process.get("/metrics").body.decode()
    found = re.search(r'^onnx_server_requests_total\{code="200",protocol="rest"\} (\S+)', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_all_processes_answer_and_any_of_them_tells_the_figures_of_all() -> None:
    with serving(linear(), "--processes", "3") as process:
        wait_for(lambda: listening(process.port) == 3)
        for number in range(1, 41):
            assert process.post("/v2/models/m/infer", INFER).status == 200
            assert answered(process) == number
        process.terminate()
        assert process.wait() == 0
        assert listening(process.port) == 0


def test_any_process_tells_of_the_requests_that_all_have_in_flight() -> None:
    with serving(slow(), "--processes", "2", "--request-timeout", "1") as process:
        wait_for(lambda: listening(process.port) == 2)
        # The kernel chooses who takes a request, and who is asked of it: in a few rounds that is not the same one.
        for _ in range(8):
            caller = threading.Thread(target=lambda: process.post("/score", {"data": [10**12]}))
            caller.start()
            wait_for(lambda: b"requests_in_flight 1.0" in process.get("/metrics").body)
            caller.join()
            assert b"requests_in_flight 0.0" in process.get("/metrics").body


def test_a_process_that_ends_is_replaced_and_the_others_go_on() -> None:
    with serving(linear(), "--processes", "2") as process:
        wait_for(lambda: listening(process.port) == 2)
        (child,) = children(process.process.pid)
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: listening(process.port) == 1)
        assert process.post("/v2/models/m/infer", INFER).status == 200
        wait_for(lambda: listening(process.port) == 2)
        assert children(process.process.pid) != [child]


@pytest.mark.parametrize("patience", [0.0, 0.3, 1.0])
def test_no_process_outlives_the_first_one(patience: float) -> None:
    with serving(linear(), "--processes", "2") as process:
        time.sleep(patience)
        family = children(process.process.pid)
        process.process.kill()
        process.process.wait()
        wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in family))


def test_a_port_that_another_server_has_is_refused_not_shared() -> None:
    with serving(linear(), "--processes", "2") as process, serving(None, ready=False) as other:
        other.stop()
        command = [*other.process.args[:-1], "2", "--port", str(process.port)]  # type: ignore[index, misc]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": "operator"})
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1 port {process.port}" in done.stderr


def test_models_that_take_their_time_get_one_process() -> None:
    with serving(slow(), "--processes", "1") as process:
        assert children(process.process.pid) == []


@pytest.mark.parametrize(
    ("cpus", "limit", "resident", "expected"),
    [
        (4, "max", 100, 3),
        (1, "max", 100, 0),
        (4, "1000", 100, 3),
        (4, "1000", 200, 2),
        (4, "1000", 900, 0),
        (200, "max", 100, 63),
    ],
)
def test_as_many_processes_as_cpus_and_memory_allow(
    tmp_path: Path, cpus: int, limit: str, resident: int, expected: int
) -> None:
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(limit)
    # The page cache counts as used: it says nothing of what is free.
    (group / "memory.current").write_text("999")
    assert further_processes(cpus, resident, tmp_path) == expected


def test_without_a_control_group_there_is_no_limit(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) is None
