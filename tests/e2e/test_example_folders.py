"""Every example is deployed as its manifest says, and answers as its folder says."""

import pytest

from examples.catalogue import Example, differences, examples
from tests.e2e.system import SMALL, Models

pytestmark = pytest.mark.examples
TOLERANCE = 1e-4


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_it_answers_in_the_cluster_as_its_folder_says(models: Models, example: Example) -> None:
    file = example.ensure()
    uri = models.system.upload(f"{models.namespace}/{file.name}", file.read_bytes())
    for document in example.documents:
        if document["kind"] == "OnnxModel":
            # The store of the tests has one bucket for all.
            document["spec"]["model"]["uri"] = uri
            if example.script is not None:
                document["spec"]["resources"] = SMALL
        models.cluster.apply(document, models.namespace)
    models.wait_ready(example.name, timeout=180)
    address = models.cluster.get("service", example.name, models.namespace)["spec"]["clusterIP"]
    answer = example.ask(f"http://{address}")
    assert not differences(example.expected, answer, TOLERANCE), answer
