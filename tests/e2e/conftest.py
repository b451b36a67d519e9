"""Fixtures of the end-to-end tests: a whole cluster, the operator in it, a namespace with credentials."""

import os
from collections.abc import Iterator

import pytest

from examples.demo.install import Images, install_operator
from examples.demo.store import Store
from tests.cluster.cluster import Cluster
from tests.cluster.fixtures import cluster, namespace, pytest_runtest_makereport
from tests.cluster.layout import STATE
from tests.cluster.progress import locked
from tests.e2e.faults import FaultServer, authority
from tests.e2e.system import CREDENTIALS, POOLS, Models, System

__all__ = ["cluster", "namespace", "pytest_runtest_makereport"]


def _given_images() -> Images:
    """Images that a cluster of somebody's own can pull: this machine cannot load any into it."""
    given = [os.environ.get(name) for name in ("OPERATOR_IMAGE", "SERVER_IMAGE", "S3_IMAGE")]
    if not all(given):
        pytest.fail("another cluster needs OPERATOR_IMAGE, SERVER_IMAGE and S3_IMAGE (images/README.md)", pytrace=False)
    return Images(str(given[0]), str(given[1]))


@pytest.fixture(scope="session")
def system(cluster: Cluster) -> System:
    """The operator installed by Helm, and an S3 store. Parallel workers share them: the first installs."""
    images = None if cluster.is_local else _given_images()
    with locked(STATE / "e2e.lock", "another worker that installs the operator"):
        store = Store.deploy(cluster, image=os.environ.get("S3_IMAGE"))
        settings = {
            "pools": POOLS,
            "sources": {
                "s3": {"endpoint": store.endpoint},
                "https": {"caBundle": authority().certificate_pem},
                "allowedNetworks": [FaultServer.NETWORK],
                "readTimeoutSeconds": 5,
            },
        }
        install_operator(cluster, settings, images=images)
    return System(cluster, store)


@pytest.fixture
def models(system: System, namespace: str) -> Models:
    """A namespace of the test's own, which may read the store."""
    system.cluster.apply(system.store.credentials_secret(CREDENTIALS), namespace)
    return Models(system, namespace)


@pytest.fixture(scope="session")
def faults(cluster: Cluster) -> Iterator[FaultServer]:
    """An HTTPS server on the host that misbehaves by the path that is asked for."""
    if not cluster.is_local:
        pytest.skip("pods of another cluster do not reach this host")
    with FaultServer() as server:
        yield server
