"""The local cluster comes up after anything that can happen to it, and leaves nothing."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster import lifecycle, machine, processes
from tests.cluster.cluster import Cluster
from tests.cluster.layout import LOGS, PROCESSES, ROOT

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module", autouse=True)
def _left_up(cluster: Cluster):
    """The other tests of a run go on using the cluster."""
    if not cluster.is_local:
        pytest.skip("only the local cluster can be taken down")
    yield
    lifecycle.up()


def _start_up(folder: Path = ROOT) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", "up"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _default_namespace(cluster: Cluster) -> bool:
    return cluster.find("namespace", "default") is not None


def test_up_again_takes_no_time(cluster: Cluster) -> None:
    started = time.monotonic()
    assert _start_up().wait() == 0
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("seed", range(8))
def test_comes_up_after_bring_up_was_killed(cluster: Cluster, seed: int) -> None:
    chance = random.Random(seed)
    lifecycle.down()
    process = _start_up()
    time.sleep(chance.uniform(0.05, 7))
    # Sometimes with all that it has started, sometimes alone.
    if chance.random() < 0.5:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    lifecycle.up()
    assert lifecycle.trouble() is None
    assert _default_namespace(cluster)


def test_down_leaves_nothing_after_bring_up_was_killed() -> None:
    lifecycle.down()
    process = _start_up()
    time.sleep(3)
    process.kill()
    process.wait()
    lifecycle.down()
    assert machine.leftovers() == []


def test_status_names_the_component_that_died_and_up_repairs(cluster: Cluster) -> None:
    lifecycle.up()
    node = machine.node_pid()
    assert node is not None
    # The component's id on the host: a child of the node's first process with that program.
    for stat in Path("/proc").glob("[0-9]*/stat"):
        if stat.read_text().rpartition(")")[2].split()[1] == str(node):
            pid = int(stat.parent.name)
            if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0] == b"kube-scheduler":
                started = processes.start_time(pid)
                assert started is not None
                processes.kill(pid, started)
                break
    else:
        pytest.fail(f"no scheduler runs: {PROCESSES.read_text()}")
    cluster.wait(lifecycle.trouble, 5, "the death to be noticed")
    problem, states = lifecycle.status()
    assert problem == "kube-scheduler ended (signal 9)"
    assert [state.name for state in states if not state.healthy] == ["kube-scheduler"]
    lifecycle.up()
    assert lifecycle.trouble() is None
    assert (LOGS / "kube-scheduler.log").exists()


def test_another_clone_takes_over(cluster: Cluster, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tests" / "cluster", clone / "tests" / "cluster", ignore=ignored)
    assert _start_up(clone).wait(timeout=120) == 0
    assert lifecycle.trouble() == f"this machine runs the cluster of {clone}"
    lifecycle.up()
    assert not (clone / ".cluster" / "node").exists()
    assert not (clone / ".cluster" / "kubeconfig").exists()
    assert _default_namespace(cluster)


def test_down_leaves_nothing() -> None:
    lifecycle.up()
    lifecycle.down()
    assert machine.leftovers() == []
