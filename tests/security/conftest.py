"""Fixtures of the attacks; and what fuzzers did, at the end of a run."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.fixtures import api_namespace, apiserver, crd, pytest_runtest_makereport
from tests.security.desk import desk
from tests.security.fuzzing import Fuzz
from tests.unit.model.webkit import authority

__all__ = ["api_namespace", "apiserver", "authority", "crd", "desk", "pytest_runtest_makereport"]


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Iterator[Fuzz]:
    """Cases for a fuzzer; one that fails is told with its seed."""
    cases = Fuzz()
    yield cases
    request.node.user_properties.append(("fuzz cases", cases.cases))
    print(f"the last case: FUZZ_SEED={cases.seed}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for reports in terminalreporter.stats.values():
        for report in reports:
            found = dict(getattr(report, "user_properties", ())).get("fuzz cases")
            if found is not None and report.when == "teardown":
                terminalreporter.write_line(f"{report.nodeid}: {found} cases")
