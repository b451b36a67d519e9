"""The chart in a cluster with nodes: what only running pods can show."""

from tests.cluster.cluster import OPERATOR_NAMESPACE
from tests.e2e.system import System, operator_undisturbed


def test_helm_test_finds_the_operator_ready_and_says_so(system: System) -> None:
    with operator_undisturbed():
        said = system.cluster.helm("test", "onnx-operator", "--namespace", OPERATOR_NAMESPACE, "--logs")
    assert "Succeeded" in said
