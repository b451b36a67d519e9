"""The attacks that need pods: on the whole system, as the end-to-end tests have it."""

from tests.e2e.conftest import cluster, faults, models, namespace, system

__all__ = ["cluster", "faults", "models", "namespace", "system"]
