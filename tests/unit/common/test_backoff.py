"""Whoever fails again and again is tried ever more seldom, and not everybody at the same moment."""

from onnx_operator.common.backoff import Backoff


def test_each_wait_is_longer_than_the_one_before_up_to_the_longest() -> None:
    backoff = Backoff(1, 60, spread=0)

    assert [backoff.after(failures) for failures in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_million_failures_wait_no_longer_than_the_longest() -> None:
    assert Backoff(1, 60, spread=0).after(1_000_000) == 60


def test_those_that_failed_together_come_back_at_different_times() -> None:
    waits = {Backoff(10, 10, spread=0.25).after(1) for _ in range(100)}

    assert len(waits) > 50
    assert all(7.5 <= wait <= 12.5 for wait in waits)
