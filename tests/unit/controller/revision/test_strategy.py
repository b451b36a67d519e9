"""How updates move: what the spec says, else the pool, else a sensible share."""

import pytest
from pydantic import ValidationError

from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.rollout import Steps
from onnx_operator.controller.revision.strategy import ONE_BY_ONE, with_rollout
from onnx_operator.controller.settings.settings import Pool

URI = "https://models.example.com/m.onnx"
RENDERED = {"progressDeadlineSeconds": 900, "strategy": ONE_BY_ONE, "template": {}}


def spec(**rollout) -> OnnxModelSpec:
    return OnnxModelSpec.model_validate({"model": {"uri": URI}, **({"rollout": rollout} if rollout else {})})


def steps(replicas: int = 3, pool: Steps | None = None, **rollout) -> tuple:
    found = with_rollout(RENDERED, spec(**rollout), pool, replicas)["strategy"]["rollingUpdate"]
    return found["maxSurge"], found["maxUnavailable"]


@pytest.mark.parametrize("replicas", [0, 1, 2, 4])
def test_few_pods_are_replaced_one_by_one_and_their_deployment_stays_as_it_was(replicas):
    assert with_rollout(RENDERED, spec(), Steps(), replicas) == RENDERED


@pytest.mark.parametrize("replicas", [5, 100, 1000])
def test_many_pods_are_replaced_a_quarter_at_a_time_and_none_is_taken_away_first(replicas):
    assert steps(replicas) == ("25%", 0)


def test_what_the_spec_says_counts_more_than_what_the_pool_says():
    pool = Steps(max_surge=0, max_unavailable=1)
    assert steps(pool=pool) == (0, 1)
    assert steps(pool=pool, maxSurge=2) == (2, 1)
    assert steps(pool=pool, maxSurge="50%", maxUnavailable="10%") == ("50%", "10%")


@pytest.mark.parametrize("replicas", [1, 4, 5, 100])
@pytest.mark.parametrize("pool", [{}, {"maxSurge": 0}, {"maxUnavailable": 0}, {"maxSurge": "0%", "maxUnavailable": 1}])
@pytest.mark.parametrize("said", [{}, {"maxSurge": 0}, {"maxUnavailable": 0}, {"maxUnavailable": "0%"}])
def test_whoever_says_what_an_update_can_always_move_and_the_specs_word_stands(replicas, pool, said):
    surge, unavailable = steps(replicas, Steps.model_validate(pool), **said)
    assert not Steps(max_surge=surge, max_unavailable=unavailable).stands_still
    assert said.get("maxSurge", surge) == surge
    assert said.get("maxUnavailable", unavailable) == unavailable


def test_without_room_for_one_more_pod_one_is_taken_away_first():
    assert steps(maxSurge=0) == (0, 1)
    assert steps(100, maxSurge=0) == (0, "25%")


def test_a_strategy_of_the_platform_teams_own_template_stands_unless_model_or_pool_say_otherwise():
    recreate = {**RENDERED, "strategy": {"type": "Recreate"}}
    assert with_rollout(recreate, spec(), None, 100) == recreate
    assert with_rollout(recreate, spec(maxSurge=1), None, 100)["strategy"] == ONE_BY_ONE
    bare = {"template": {}}
    assert with_rollout(bare, spec(), None, 100) == bare


@pytest.mark.parametrize(("asked", "found"), [(60, 900), (900, 900), (3600, 3600)])
def test_an_update_is_never_given_up_before_its_pods_may_have_started(asked, found):
    assert with_rollout(RENDERED, spec(progressDeadlineSeconds=asked), None, 1)["progressDeadlineSeconds"] == found


@pytest.mark.parametrize("value", [-1, 1001, "1", "101%", "x%", True, 1.5, "25 %", ""])
def test_what_is_no_number_of_pods_is_refused(value):
    with pytest.raises(ValidationError):
        spec(maxSurge=value)
    with pytest.raises(ValidationError):
        Pool.model_validate({"name": "p", "rollout": {"maxSurge": value}})


@pytest.mark.parametrize("none", [0, "0%"])
def test_a_pool_on_which_no_update_could_move_is_refused_and_both_fields_are_named(none):
    with pytest.raises(ValidationError, match="maxSurge and maxUnavailable"):
        Pool.model_validate({"name": "p", "rollout": {"maxSurge": none, "maxUnavailable": 0}})
