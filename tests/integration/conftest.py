"""Fixtures of the integration tests: an API server, without a node, and whoever vouches for servers of the test."""

from tests.cluster.fixtures import api_namespace, apiserver, crd, pytest_runtest_makereport
from tests.cluster.fixtures import api_namespace as namespace
from tests.integration.charts import chart, helm
from tests.integration.places import az, gs, hf, https, places, pvc, s3
from tests.security.desk import desk
from tests.unit.model.webkit import authority

__all__ = [
    "api_namespace",
    "apiserver",
    "authority",
    "az",
    "chart",
    "crd",
    "desk",
    "gs",
    "helm",
    "hf",
    "https",
    "namespace",
    "places",
    "pvc",
    "pytest_runtest_makereport",
    "s3",
]
