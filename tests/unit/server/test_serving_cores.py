"""A pod that asks for a quarter of a CPU does not fill a node of 96 cores with threads."""

from pathlib import Path

import pytest

from onnx_operator.api.contract import StartFacts
from onnx_operator.api.names import ENV_CPU_REQUEST
from tests.cores import CORES, compiler, many_cores, threads_of
from tests.unit.server.serving import linear, serving

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler to fake cores with")


def started(folder: Path, asked: str | None, *options: str) -> tuple[StartFacts, int]:
    """How a server starts on such a node, and how many threads it has then."""
    variables = {"LD_PRELOAD": str(many_cores(folder)), **({ENV_CPU_REQUEST: asked} if asked else {})}
    with serving(linear(), *options, ready=False, variables=variables) as process:
        facts = StartFacts.model_validate(process.started())
        return facts, threads_of(process.process.pid)


def test_threads_follow_what_the_pod_asks_for(tmp_path: Path) -> None:
    facts, threads = started(tmp_path, "250")
    assert (facts.intra_op_threads, facts.processes) == (1, 1)
    assert threads < 16

    facts, threads = started(tmp_path, "4000")
    assert facts.intra_op_threads == 4
    assert threads < 24


def test_a_number_that_the_user_gave_is_used(tmp_path: Path) -> None:
    facts, _ = started(tmp_path, "250", "--intra-op-threads", "3")
    assert facts.intra_op_threads == 3


def test_on_ones_own_machine_all_cores_are_used(tmp_path: Path) -> None:
    facts, threads = started(tmp_path, None)
    assert facts.intra_op_threads is not None
    assert facts.intra_op_threads > CORES // 2
    assert threads > CORES // 2
