"""The termination message is whole at every moment, so that a kill always tells how far a start came."""

import itertools
import os
import signal
import time
from pathlib import Path

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import Phase, TerminationMessage
from onnx_operator.server.termination import MAX_READ_BYTES, TerminationLog


def told(path: Path) -> TerminationMessage:
    return TerminationMessage.model_validate_json(path.read_bytes())


def test_a_kill_at_any_moment_leaves_a_whole_message(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    TerminationLog(path).enter(Phase.LOADING)
    for turn in range(20):
        child = os.fork()
        if not child:
            log = TerminationLog(path)
            for length in itertools.cycle(range(900)):
                log.enter(Phase.WARMING_UP)
                log.fail(Reason.LOAD_FAILED, "x" * length)
        time.sleep(0.002 * turn)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told(path)


def test_a_shorter_message_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    log = TerminationLog(path)
    log.fail(Reason.LOAD_FAILED, "x" * 900)
    log.enter(Phase.SERVING)
    assert path.read_text() == TerminationMessage(phase=Phase.SERVING).to_json()


@pytest.mark.parametrize("size", [0, 1, MAX_READ_BYTES, 10 * MAX_READ_BYTES])
def test_whatever_stood_there_before_is_gone(tmp_path: Path, size: int) -> None:
    path = tmp_path / "termination-log"
    path.write_bytes(b"?" * size)
    TerminationLog(path).enter(Phase.LOADING)
    assert told(path).phase is Phase.LOADING
