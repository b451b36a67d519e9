"""Turns: nobody waits for all that another has brought."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_operator.controller.cluster.turns import Turns

PARTIES = "abcd"
STEPS = st.lists(st.one_of(st.sampled_from(PARTIES), st.just("take"), st.just("give back")), max_size=200)


def party(item):
    return item[0]


def test_a_single_item_does_not_wait_for_a_thousand_of_another():
    turns = Turns(party)
    for number in range(1000):
        turns.add(("a", number))
    turns.add(("b", 0))
    assert [turns.take() for _ in range(3)] == [("a", 0), ("b", 0), ("a", 1)]


def test_what_a_party_may_not_take_yet_waits_without_holding_up_others():
    turns = Turns(party, most=2)
    for number in range(5):
        turns.add(("a", number))
    assert [turns.take() for _ in range(3)] == [("a", 0), ("a", 1), None]
    turns.add(("b", 0))
    turns.add(("a", 5))
    assert [turns.take() for _ in range(2)] == [("b", 0), None]
    turns.give_back(("a", 1))
    assert turns.take() == ("a", 2)
    assert len(turns) == 3


@given(STEPS, st.sampled_from([None, 1, 2, 3]))
def test_first_come_first_served_within_a_party_and_nothing_is_lost(steps, most):
    turns = Turns(party, most)
    brought, taken, held = Counter(), Counter(), []
    for step in steps:
        if step == "take":
            item = turns.take()
            if item is None:
                waiting = {p for p in PARTIES if brought[p] > taken[p]}
                assert all(most is not None and sum(h[0] == p for h in held) == most for p in waiting)
                continue
            assert item == (item[0], taken[item[0]])
            taken[item[0]] += 1
            held.append(item)
            assert most is None or sum(h[0] == item[0] for h in held) <= most
        elif step == "give back":
            if held:
                turns.give_back(held.pop(0))
        else:
            turns.add((step, brought[step]))
            brought[step] += 1
        assert len(turns) == sum(brought.values()) - sum(taken.values())
    for item in held:
        turns.give_back(item)
    while (item := turns.take()) is not None:
        turns.give_back(item)
    assert len(turns) == turns.parties == 0, "nothing is left of anybody"


@given(STEPS)
def test_nobody_waits_longer_than_a_round(steps):
    turns = Turns(party)
    counts, since = Counter(), {}
    for step in [*steps, *["take"] * 200]:
        if step == "give back":
            continue
        if step != "take":
            turns.add((step, counts[step]))
            counts[step] += 1
            since.setdefault(step, Counter())
            continue
        item = turns.take()
        if item is None:
            assert not since
            continue
        for waiting, seen in since.items():
            if waiting != item[0]:
                seen[item[0]] += 1
                assert max(seen.values()) <= 1, "another had two turns while this one waited"
        remaining = len([1 for p in turns._waiting.get(item[0], ())])
        since[item[0]] = Counter()
        if not remaining:
            del since[item[0]]


@pytest.mark.parametrize("most", [None, 1, 3])
def test_without_parties_it_is_a_plain_queue(most):
    turns = Turns(lambda item: None, most)
    for item in "abc":
        turns.add(item)
    for item in "abc":
        assert turns.take() == item
        turns.give_back(item)
