"""Scripts, test data, batching and gRPC, in real pods."""

import json
import subprocess
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from tests import models as files
from tests.cluster.fixtures import built_program
from tests.e2e.system import Models, conditions, expected

ROW = [0.5, -1.0, 2.0, 3.0]
X = np.array([ROW], np.float32)
SCRIPT = """
import json, numpy, onnxruntime
from azureml.core.model import Model
def init():
    global session
    session = onnxruntime.InferenceSession(Model.get_model_path("scored"))
def run(raw_data):
    rows = numpy.array(json.loads(raw_data)["data"], dtype=numpy.float32)
    return {"version": VERSION, "y": session.run(["y"], {"x": rows})[0].tolist()}
"""


def post(models: Models, name: str, path: str, body: Any) -> Any:
    address = models.cluster.get("service", name, models.namespace)["spec"]["clusterIP"]
    request = urllib.request.Request(f"http://{address}{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def config_map(models: Models, name: str, version: int, **data: str) -> None:
    models.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {"onnx-operator.dev/scoring": "true"}},
            "data": {"score.py": SCRIPT.replace("VERSION", str(version)), **data},
        },
        models.namespace,
    )


def test_texts_change_case_in_a_pod_which_has_few_locales(models: Models) -> None:
    models.apply("words", models.upload(files.lower_case()))
    models.wait_ready("words")
    body = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [2], "data": ["ÄRGER", "ДОМ"]}]}
    answer = post(models, "words", "/v2/models/words/infer", body)
    assert answer["outputs"][0]["data"] == ["ärger", "дом"]


def test_a_script_answers_and_a_changed_one_rolls_out_without_a_gap(models: Models) -> None:
    content = files.linear(21)
    models.apply("scored", models.upload(content), scoring={"configMapName": "score"})
    told = models.wait_for("scored", reason="ScoringRejected")
    assert "kubectl create configmap score" in conditions(told)["Ready"]["message"]

    config_map(models, "score", 1)
    models.wait_ready("scored")
    answer = post(models, "scored", "/score", {"data": [ROW]})
    assert answer["version"] == 1
    np.testing.assert_allclose(answer["y"], expected(content, {"x": X})["y"], rtol=1e-5)
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(models, "scored", "/score", {"nothing": 1})
    assert refused.value.code == 500
    assert "KeyError" in refused.value.read().decode()

    config_map(models, "score", 2)
    seen = set()

    def changed() -> bool:
        seen.add(post(models, "scored", "/score", {"data": [ROW]})["version"])
        return 2 in seen

    models.cluster.wait(changed, 120, "the changed script's answer", models.namespace, interval=0.1)
    assert seen == {1, 2}
    models.wait_ready("scored")


def test_a_script_that_cannot_start_is_told_with_its_exception(models: Models) -> None:
    script = "def init():\n    raise RuntimeError('no labels here')\ndef run(raw_data):\n    return raw_data\n"
    models.apply("broken", models.upload(files.linear(22)), scoring={"script": script})
    told = models.wait_for("broken", reason="LoadFailed")
    assert "RuntimeError: no labels here" in conditions(told)["Ready"]["message"]


def upload_test_data(models: Models, name: str, content: bytes, off: float = 0.0) -> str:
    answer = expected(content, {"x": X})["y"] + np.float32(off)
    for kind, array in (("input", X), ("output", answer)):
        body = numpy_helper.from_array(array, "x" if kind == "input" else "y").SerializeToString()
        models.system.upload(f"{models.namespace}/{name}/test_data_set_0/{kind}_0.pb", body)
    return models.system.store.uri(f"{models.namespace}/{name}")


def test_recorded_answers_decide_whether_a_version_takes_traffic(models: Models) -> None:
    first, second = files.linear(23), files.linear(24)
    good = upload_test_data(models, "good", first)
    models.apply("tested", models.upload(first, "first"), model={"testData": good})
    models.wait_ready("tested")
    log = models.cluster.kubectl("logs", models.pods("tested")[0]["metadata"]["name"], "-n", models.namespace)
    assert '"started"' in log

    # Another model against the same test data: it is taken back, and the old one goes on serving, with no pod beside.
    models.patch("tested", {"model": {"uri": models.upload(second, "second")}})
    told = models.wait_for("tested", ready="False", reason="RolledBack")
    assert "TestFailed" in conditions(told)["Progressing"]["message"]
    assert "output y" in conditions(told)["Progressing"]["message"]
    assert conditions(told)["Available"]["status"] == "True"
    np.testing.assert_allclose(models.predict("tested", {"x": X})["y"], expected(first, {"x": X})["y"], rtol=1e-5)

    models.patch("tested", {"model": {"testData": upload_test_data(models, "other", second)}})
    models.wait_ready("tested")
    np.testing.assert_allclose(models.predict("tested", {"x": X})["y"], expected(second, {"x": X})["y"], rtol=1e-5)


def test_test_data_that_is_not_there_is_named(models: Models) -> None:
    where = models.system.store.uri(f"{models.namespace}/nowhere")
    models.apply("untested", models.upload(files.linear(25)), model={"testData": where})
    told = models.wait_for("untested", reason="SourceNotFound")
    assert "spec.model.testData" in conditions(told)["Ready"]["message"]


def test_grpc_answers_through_the_service(models: Models) -> None:
    content = files.linear(26)
    models.apply("typed", models.upload(content), batching={"maxBatchSize": 4})
    models.wait_ready("typed")
    address = models.cluster.get("service", "typed", models.namespace)["spec"]["clusterIP"]
    body = {
        "model_name": "typed",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "contents": {"fp32_contents": ROW}}],
    }
    command = [built_program("grpcurl"), "-plaintext", "-d", json.dumps(body), f"{address}:8081"]
    done = subprocess.run(
        [*command, "inference.GRPCInferenceService/ModelInfer"], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)["outputs"][0]["contents"]["fp32_contents"]
    np.testing.assert_allclose(found, expected(content, {"x": X})["y"].ravel(), rtol=1e-5)
