"""A pod with a limit of two CPUs on a large node uses two threads."""

import os
from pathlib import Path

import pytest

from onnx_operator.api.names import ENV_CPU_REQUEST
from onnx_operator.server.runtime.threads import available_cpus, limit_libraries


@pytest.fixture(autouse=True)
def large_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense"}, 64),
        (
            {
                "proc/self/cgroup": "0::/pod/server\n",
                "sys/fs/cgroup/pod/server/cpu.max": "max 100000\n",
                "sys/fs/cgroup/pod/cpu.max": "400000 100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/1\n3:memory:/docker/1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            64,
        ),
    ],
)
def test_the_quota_counts(tmp_path: Path, files: dict[str, str], cpus: int) -> None:
    assert available_cpus(write(tmp_path, files)) == cpus


def test_fewer_cpus_than_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    root = write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "800000 100000\n"})
    assert available_cpus(root) == 1


def test_without_a_limit_a_pod_has_the_cpus_that_it_asks_for_and_not_those_of_the_node(tmp_path: Path) -> None:
    found = [available_cpus(tmp_path, {ENV_CPU_REQUEST: told}) for told in ("50", "1000", "1001", "4000")]
    assert found == [1, 1, 2, 4]
    assert available_cpus(tmp_path, {ENV_CPU_REQUEST: "200000"}) == 64, "no more than there are"


def test_a_limit_counts_more_than_what_is_asked_for(tmp_path: Path) -> None:
    limited = write(tmp_path, {"sys/fs/cgroup/cpu.max": "300000 100000"})
    assert available_cpus(limited, {ENV_CPU_REQUEST: "500"}) == 3


@pytest.mark.parametrize("told", ["", "0", "-1", "1.5", "many", "٣", "9" * 100])
def test_a_request_that_says_nothing_leaves_the_cpus_of_the_machine(tmp_path: Path, told: str) -> None:
    assert available_cpus(tmp_path, {ENV_CPU_REQUEST: told}) == 64


def test_libraries_start_no_more_threads_unless_somebody_said_so() -> None:
    environment = {"OMP_NUM_THREADS": "7"}
    limit_libraries(environment, 2)
    assert environment["OMP_NUM_THREADS"] == "7"
    assert environment["OPENBLAS_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "2"
