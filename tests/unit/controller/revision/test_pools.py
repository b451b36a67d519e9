"""Placement: which pool a model gets, and which nodes a model without a GPU keeps off."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_operator.api.conditions import Reason
from onnx_operator.controller.revision.pools import MAX_AFFINITY_TERMS, avoid_pools, choose_pool
from onnx_operator.model.refusal import RefusedError
from tests.unit.controller.samples import A100, T4, pool, report, spec

CPU = {"name": "cpu"}
POOLS = [pool(**p) for p in (CPU, T4, A100)]


def chosen(namespace="default", megabytes=100, pools=POOLS, **fields):
    return choose_pool(spec(**fields), namespace, report(megabytes), pools).name


def refusal(namespace="default", megabytes=100, pools=POOLS, **fields):
    with pytest.raises(RefusedError) as caught:
        choose_pool(spec(**fields), namespace, report(megabytes), pools)
    assert caught.value.refusal.reason is Reason.NO_MATCHING_POOL
    return caught.value.refusal.message


def test_a_model_without_wishes_lands_on_cpu():
    assert chosen() == "cpu"


def test_a_gpu_model_lands_on_the_smallest_gpu_that_holds_it():
    assert chosen("research", runtime="GPU") == "t4"
    assert chosen("research", megabytes=20 * 1024, runtime="GPU") == "a100"


def test_a_named_pool_is_taken():
    assert chosen("research", runtime="GPU", nodePool="a100") == "a100"


def test_activations_count_in_what_a_gpu_must_hold():
    assert "needs about" in refusal(megabytes=16 * 1024 - 5, runtime="GPU", nodePool="t4")


def test_a_pool_that_does_not_exist_is_named_with_those_that_do():
    message = refusal(nodePool="h100", runtime="GPU")
    assert "spec.nodePool" in message
    assert "'h100'" in message
    assert "cpu, t4" in message
    assert "a100" not in message, "it is not open to this namespace"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"nodePool": "t4"}, "runtime GPU, the model asks for CPU"),
        ({"nodePool": "cpu", "runtime": "GPU"}, "runtime CPU, the model asks for GPU"),
        ({"nodePool": "a100", "runtime": "GPU"}, "not open to namespace 'default'"),
    ],
)
def test_a_named_pool_that_does_not_fit_says_why(fields, said):
    message = refusal(**fields)
    assert said in message
    assert fields["nodePool"] in message


def test_a_model_too_large_for_the_named_pool_says_how_much_it_needs():
    message = refusal(megabytes=20 * 1024, runtime="GPU", nodePool="t4")
    assert "16Gi" in message
    assert "20490Mi" in message


def test_when_nothing_fits_every_pool_says_why_not():
    message = refusal(megabytes=200 * 1024, runtime="GPU")
    for name in ("cpu", "t4", "a100"):
        assert f"{name}: " in message
    assert "ask the platform team" in message


def test_without_a_gpu_pool_a_gpu_model_is_refused():
    assert "runtime GPU" in refusal(pools=[pool("cpu")], runtime="GPU")


def test_a_gpu_of_unknown_memory_is_the_last_choice_and_never_too_small():
    unknown = pool("unknown", runtime="GPU")
    assert chosen(pools=[unknown, pool(**T4)], runtime="GPU") == "t4"
    assert chosen(pools=[unknown, pool(**T4)], megabytes=100 * 1024, runtime="GPU") == "unknown"


def test_of_pools_that_fit_equally_the_first_is_taken():
    assert chosen(pools=[pool("b"), pool("a")]) == "b"


# --- staying off ----------------------------------------------------------------------------------------------------


def matches(node: dict[str, str], terms: list[dict]) -> bool:
    """What the scheduler decides: any term whose expressions all hold; NotIn holds where the label is missing."""
    if not terms:
        return True
    return any(
        all(
            {"NotIn": node.get(e["key"]) not in e["values"], "In": node.get(e["key"]) in e["values"]}[e["operator"]]
            for e in term["matchExpressions"]
        )
        for term in terms
    )


KEYS, VALUES = st.sampled_from("abc"), st.sampled_from("xyz")
SELECTORS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=3)
NODES = st.dictionaries(KEYS, VALUES, max_size=3)


@settings(deadline=None, max_examples=300)
@given(selectors=st.lists(SELECTORS, max_size=5), node=NODES)
def test_a_cpu_model_may_run_exactly_on_the_nodes_of_no_gpu_pool(selectors, node):
    pools = [pool(f"p{i}", runtime="GPU", nodeSelector=s) for i, s in enumerate(selectors)]
    belongs = any(s.items() <= node.items() for s in selectors)
    terms = avoid_pools(pools)

    if math.prod(len(s) for s in selectors) <= MAX_AFFINITY_TERMS:
        assert matches(node, terms) is not belongs
    elif belongs:
        assert not matches(node, terms)


@settings(deadline=None)
@given(count=st.integers(5, 12), node=NODES, data=st.data())
def test_with_very_many_pools_a_cpu_model_still_never_lands_on_a_gpu_node(count, node, data):
    selectors = [data.draw(st.fixed_dictionaries({"a": VALUES, "b": VALUES, "c": VALUES})) for _ in range(count)]
    terms = avoid_pools([pool(f"p{i}", runtime="GPU", nodeSelector=s) for i, s in enumerate(selectors)])

    assert 0 < len(terms) <= MAX_AFFINITY_TERMS
    if any(s.items() <= node.items() for s in selectors):
        assert not matches(node, terms)


def test_pools_without_a_selector_are_left_to_their_taints():
    assert avoid_pools([pool("gpu", runtime="GPU")]) == []
    assert avoid_pools([]) == []


def test_the_same_pools_give_the_same_terms():
    # Otherwise every start of the operator would roll out every model.
    one = pool("a", runtime="GPU", nodeSelector={"x": "1", "y": "2"})
    other = pool("a", runtime="GPU", nodeSelector={"y": "2", "x": "1"})
    assert avoid_pools([one]) == avoid_pools([other])
