"""The chart as a package: what catalogues show of it, what it says after an install, and that it can be made twice."""

import base64
from pathlib import Path
from typing import Any

import yaml

from onnx_operator.api import names
from tests.cluster.cluster import Cluster
from tests.integration.charts import CHART, Chart
from tests.tools.package_chart import package

METADATA = yaml.safe_load((CHART / "Chart.yaml").read_text())


def test_two_packages_are_the_same_bytes_and_helm_installs_them(chart: Chart, tmp_path: Path) -> None:
    first, second = (package(tmp_path / name, 0) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert first.name == f"onnx-operator-{METADATA['version']}.tgz"
    packed = chart.run("template", "onnx-operator", str(first))
    plain = chart.run("template", "onnx-operator", str(CHART))
    assert packed.returncode == 0, packed.stderr
    assert packed.stdout == plain.stdout


def test_a_catalogue_is_told_of_the_resource(apiserver: Cluster, namespace: str, crd: None) -> None:
    annotations = METADATA["annotations"]
    (told,) = yaml.safe_load(annotations["artifacthub.io/crds"])
    assert (told["kind"], told["version"]) == (names.KIND, names.VERSION)
    assert told["name"] == f"{names.PLURAL}.{names.GROUP}"
    # A real API server takes the example.
    for example in yaml.safe_load(annotations["artifacthub.io/crdsExamples"]):
        apiserver.apply(example, namespace)


def test_the_icon_is_the_documentations_own() -> None:
    kind, _, content = METADATA["icon"].partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert base64.b64decode(content) == (CHART.parents[1] / "docs" / "images" / "icon.svg").read_bytes()


def _notes(chart: Chart, **values: Any) -> str:
    done = chart.run("install", "blue", str(CHART), "--dry-run=client", "-n", "platform", values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def test_the_notes_say_what_to_do_next(chart: Chart) -> None:
    notes = _notes(chart, image={"repository": "registry.example.com/onnx-operator"})
    assert "kubectl rollout status -n platform deployment/blue-onnx-operator" in notes
    assert "helm test -n platform blue" in notes
    assert "kind: OnnxModel" in notes
    assert "localhost" not in notes
    assert "kubectl delete crd" in notes
    # What the release does not hold, it does not keep.
    assert "kubectl delete crd" not in _notes(chart, crds={"enabled": False})


def test_the_notes_warn_of_an_image_that_no_node_can_pull(chart: Chart) -> None:
    assert "WARNING: its image is localhost/onnx-operator" in _notes(chart)
