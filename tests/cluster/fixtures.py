"""pytest fixtures over the clusters; the conftest of a folder imports the ones that it offers."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from onnx_operator.api.crd import to_yaml
from tests.cluster import apiserver as api_server_only
from tests.cluster import lifecycle, npm_tools, tools
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError, ClusterUnavailableError
from tests.cluster.layout import FAILURES

__all__ = [
    "api_namespace",
    "apiserver",
    "built_program",
    "cluster",
    "crd",
    "installed_command",
    "namespace",
    "pytest_runtest_makereport",
]


def _give_up(error: ClusterError) -> NoReturn:
    # A cluster that should have come up and did not is a failure; one that cannot be had is not.
    if os.environ.get("REQUIRE_CLUSTER") == "1" or not isinstance(error, ClusterUnavailableError):
        pytest.fail(f"no cluster: {error}", pytrace=False)
    pytest.skip(f"no cluster: {error}")


def built_program(name: str) -> Path:
    """The path of one of the cluster's tools, built if need be; for fixtures of tests that need no more of it."""
    try:
        return tools.program(name)
    except ClusterError as error:
        _give_up(error)


def installed_command(name: str) -> list[str]:
    """The beginning of the command line of a program that comes as an npm package, installed if need be."""
    try:
        return npm_tools.command(name)
    except ClusterError as error:
        _give_up(error)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The local cluster, brought up if it is not; or the one that ONNX_OPERATOR_KUBECONFIG names.

    Workers of a parallel run share it: the first brings it up, the others wait for its lock.
    """
    if named := os.environ.get("ONNX_OPERATOR_KUBECONFIG"):
        other = Cluster(Path(named))
        try:
            other.kubectl("get", "--raw=/readyz", "--request-timeout=10s")
        except ClusterError as error:
            _give_up(ClusterUnavailableError(f"the cluster of {named} does not answer: {error}"))
        return other
    try:
        return lifecycle.up()
    except ClusterError as error:
        _give_up(error)


@pytest.fixture(scope="session")
def apiserver() -> Iterator[Cluster]:
    """An API server without a node, each worker's own."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(api_server_only.api_server())
        except ClusterError as error:
            _give_up(error)
        yield server


def _fresh_namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    readable = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40].strip("-")
    name = f"{readable or 'test'}-{uuid.uuid4().hex[:6]}"
    cluster.kubectl("create", "namespace", name)
    # Read by the failure report below.
    request.node.stash[_NAMESPACE] = (cluster, name)
    yield name
    if os.environ.get("KEEP_NAMESPACES") != "1":
        cluster.run_kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found", check=False)


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own; deleted afterwards without waiting, unless KEEP_NAMESPACES=1."""
    yield from _fresh_namespace(cluster, request)


@pytest.fixture
def api_namespace(apiserver: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """The same on the API server without a node, where nothing empties a deleted namespace."""
    yield from _fresh_namespace(apiserver, request)


@pytest.fixture(scope="module")
def crd(apiserver: Cluster) -> None:
    """OnnxModel, as that API server serves it."""
    apiserver.apply(to_yaml())
    apiserver.kubectl("wait", "--for=condition=Established", "crd/onnxmodels.onnx-operator.dev", "--timeout=30s")
    apiserver.wait(lambda: apiserver.list("onnxmodels") is not None, 30, "OnnxModel to be served")


_NAMESPACE: pytest.StashKey[tuple[Cluster, str]] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, pytest.TestReport]:
    """Add what went on in a failed test's namespace to its report, and keep it in a file."""
    report: pytest.TestReport = yield
    if not report.failed or _NAMESPACE not in item.stash or report.when == "teardown":
        return report
    where, name = item.stash[_NAMESPACE]
    try:
        text = where.diagnose(name)
    except Exception as error:
        # The test's own failure matters more.
        text = f"could not be read: {error}"
    folder = FAILURES / re.sub(r"[^A-Za-z0-9._-]+", "_", item.nodeid)[-150:]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{report.when}.txt").write_text(f"{report.longreprtext}\n\n{text}\n")
    report.sections.append((f"namespace {name} (all of it in {folder})", text[-20000:]))
    return report
