"""Fixtures of the end-to-end tests: a whole cluster."""

from tests.cluster.fixtures import cluster, namespace, pytest_runtest_makereport

__all__ = ["cluster", "namespace", "pytest_runtest_makereport"]
