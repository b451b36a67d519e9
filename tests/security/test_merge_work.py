"""Comparing what an author wrote with what lives takes work in proportion to its length, not to its square."""

import pytest

from onnx_operator.controller.revision import merge
from onnx_operator.controller.revision.merge import contains, project, strategic_merge

MANY = 20_000
"""Tolerations; an object of 1.5 MiB holds more."""


def tolerations(begin: int, end: int) -> list[dict[str, str]]:
    return [{"key": f"k{n}", "operator": "Exists"} for n in range(begin, end)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the comparisons, and stops where there are too many for a length of ``MANY``."""
    found = [0]
    whole = merge.contains

    def counted(live: object, desired: object, field: str = "") -> bool:
        found[0] += 1
        assert found[0] < 40 * MANY, "each is compared with each"
        return whole(live, desired, field)

    monkeypatch.setattr(merge, "contains", counted)
    return found


@pytest.mark.parametrize("name", ["the same", "turned round", "other ones", "one more", "one changed", "more is there"])
def test_tens_of_thousands_of_tolerations_are_compared_in_one_pass(calls: list[int], name: str) -> None:
    desired = tolerations(0, MANY)
    live = {
        "the same": tolerations(0, MANY),
        "turned round": tolerations(0, MANY)[::-1],
        "other ones": tolerations(MANY, 2 * MANY),
        "one more": tolerations(0, MANY + 1),
        "one changed": [*tolerations(0, MANY - 1), {"key": "other"}],
        "more is there": [each | {"effect": "NoSchedule"} for each in desired],
    }[name]
    held = merge.contains({"tolerations": live}, {"tolerations": desired})
    assert held == (name in ("the same", "turned round", "one more", "more is there"))
    projected = project({"tolerations": live}, {"tolerations": desired})
    assert contains({"tolerations": live}, projected)
    merged = strategic_merge({"tolerations": live}, {"tolerations": desired})
    assert contains(merged, {"tolerations": desired})


def test_a_few_tolerations_hold_what_others_added() -> None:
    live = [each | {"effect": "NoSchedule"} for each in tolerations(0, 64)]
    assert contains({"tolerations": live}, {"tolerations": tolerations(0, 64)[::-1]})
    assert not contains({"tolerations": live}, {"tolerations": tolerations(0, 65)})
