"""Whoever watches a start sees how far it is: in the answer of the readiness probe and in the log."""

import logging

import pytest

from onnx_operator.api.contract import Phase
from onnx_operator.server.lifecycle import Lifecycle, log_progress


def test_each_phase_tells_its_figures_and_how_long_it_has_lasted() -> None:
    now = [100.0]
    lifecycle = Lifecycle(lambda: now[0])
    now[0] = 103.5
    assert lifecycle.progress == {"phaseSeconds": 3.5}
    lifecycle.enter(Phase.WARMING_UP)
    lifecycle.note(batch=4, seconds=0.25)
    now[0] = 105
    assert lifecycle.progress == {"batch": 4, "seconds": 0.25, "phaseSeconds": 1.5}
    lifecycle.enter(Phase.TESTING)
    assert lifecycle.progress == {"phaseSeconds": 0}
    assert not lifecycle.ready


def test_once_it_serves_there_is_no_progress_to_tell() -> None:
    lifecycle = Lifecycle()
    lifecycle.enter(Phase.SERVING)
    lifecycle.note(batch=4)
    assert lifecycle.progress == {}
    assert (lifecycle.ready, lifecycle.state) == (True, "Serving")
    lifecycle.draining = True
    assert (lifecycle.ready, lifecycle.state) == (False, "Draining")


async def test_a_long_start_is_told_in_the_log_until_the_model_serves(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lifecycle = Lifecycle()
    told: list[object] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.__dict__["fields"])
            lifecycle.enter(Phase.SERVING if lifecycle.phase is Phase.WARMING_UP else Phase.WARMING_UP)

    handler = Handler()
    logging.getLogger("onnx_operator.server.lifecycle").addHandler(handler)
    try:
        await log_progress(lifecycle, interval=0.001)
    finally:
        logging.getLogger("onnx_operator.server.lifecycle").removeHandler(handler)
    assert [each["phase"] for each in told if isinstance(each, dict)] == ["Loading", "WarmingUp"]
