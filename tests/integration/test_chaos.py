"""Whatever befalls an operator, its models end as if nothing had: fifty seeds; ``make chaos`` runs more of them."""

import os

import pytest

from tests.chaos import plan
from tests.chaos.run import run
from tests.cluster.fixtures import built_program

SEEDS = int(os.environ.get("CHAOS_SEEDS", "50"))
SIDE_BY_SIDE = 10


@pytest.mark.soak
async def test_disturbed_operators_end_where_undisturbed_ones_do(tmp_path):
    built_program("kube-controller-manager")
    summary = await run(range(SEEDS), SIDE_BY_SIDE, tmp_path)
    print(summary.text())
    assert not summary.failed, summary.text()
    assert len(summary.results) == SEEDS


def test_a_seed_is_the_same_plan_each_time():
    assert [plan.make(seed) for seed in range(20)] == [plan.make(seed) for seed in range(20)]
    assert plan.make(1) != plan.make(2)


def test_fifty_seeds_kill_at_each_write_in_turn_and_have_every_kind_of_fault():
    plans = [plan.make(seed) for seed in range(50)]
    kills = {(first.arguments["at"], first.arguments["moment"]) for made in plans for first in made.steps[:1]}
    assert kills == {(at, moment) for at in range(1, plan.WRITES_IN_TURN + 1) for moment in ("before", "after")}
    steps = [step for made in plans for step in made.steps]
    happen = {step.action for step in steps}
    assert happen >= {"kill", "kill each", "term", "stop", "restart", "clock", "sleep", "delay", "drop", "lose"}
    assert happen >= {"cut watches", "cut within watches", "stall watches", "gone watches", "refuse"}
    assert happen >= {"create", "edit", "delete", "pause", "refresh", "remove child", "change child", "remove pod"}
    assert {s.arguments["status"] for s in steps if s.action == "refuse"} >= {409, 410, 429, 500}
    assert {s.arguments["program"] for s in steps if s.action == "restart"} == {"kube-apiserver", "etcd", "both"}
