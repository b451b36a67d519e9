"""Fixtures of the integration tests: an API server, without a node."""

from tests.cluster.fixtures import api_namespace as namespace
from tests.cluster.fixtures import apiserver, pytest_runtest_makereport

__all__ = ["apiserver", "namespace", "pytest_runtest_makereport"]
