"""What clients of Triton and MLServer ask for besides inferences."""

from collections.abc import Iterator

import pytest
from onnx import TensorProto

from onnx_operator.api.contract import Phase
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.http.triton import index
from onnx_operator.server.lifecycle import Lifecycle
from tests.unit.server.serving import Process, identity, linear, serving, tensor

INFER = {"inputs": [tensor("X", "FP32", [2, 4], [[1, 0, 0, 0]] * 2)]}


@pytest.fixture(scope="module")
def server() -> Iterator[Process]:
    with serving(linear(), "--grpc-port", "0", "--max-batch-size", "16") as process:
        yield process


def test_the_configuration_tells_sizes_without_the_batchs(server: Process) -> None:
    for path in ("/v2/models/m/config", "/v2/models/m/versions/1/config"):
        assert server.get(path).json == {
            "name": "m",
            "platform": "onnxruntime_onnx",
            "backend": "onnxruntime",
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": 16,
            "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [4]}],
            "output": [
                {"name": "label", "data_type": "TYPE_INT64", "dims": []},
                {"name": "logits", "data_type": "TYPE_FP32", "dims": [3]},
            ],
        }


def test_a_model_of_fixed_sizes_has_no_batch_and_strings_are_called_so() -> None:
    with serving(identity(TensorProto.STRING, (2, 3))) as process:
        told = process.get("/v2/models/m/config").json
    assert told["max_batch_size"] == 0
    assert told["input"] == [{"name": "x", "data_type": "TYPE_STRING", "dims": [2, 3]}]


def test_the_figures_count_what_was_scored_by_every_protocol(server: Process) -> None:
    def figures() -> dict[str, int]:
        (model,) = server.get("/v2/models/m/stats").json["model_stats"]
        assert (model["name"], model["version"]) == ("m", "1")
        told = {name: figure["count"] for name, figure in model["inference_stats"].items()}
        assert model["inference_stats"]["success"]["ns"] >= 0
        return told | {"rows": model["inference_count"], "runs": model["execution_count"]}

    before = figures()
    assert server.post("/v2/models/m/infer", INFER).status == 200
    assert server.post("/score", {"data": [[1, 0, 0, 0]]}).status == 200
    assert server.post("/score", b"{").status == 400
    after = figures()
    changed = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert changed == {"success": 2, "fail": 1, "queue": 2, "rows": 3, "runs": 2}
    for path in ("/v2/models/stats", "/v2/models/m/versions/1/stats"):
        assert server.get(path).json["model_stats"][0]["inference_count"] == after["rows"]


@pytest.mark.parametrize("body", [None, b"", b"{}", {"ready": True}, {"ready": False}])
def test_the_index_lists_the_model(server: Process, body: object) -> None:
    answer = server.post("/v2/repository/index", body)
    assert answer.json == [{"name": "m", "version": "1", "state": "READY", "reason": ""}]


@pytest.mark.parametrize("body", [b"[]", b"1", b'{"ready": 1}', b'{"ready": null}', b"{"])
def test_an_index_of_anything_else_is_refused(server: Process, body: bytes) -> None:
    assert server.post("/v2/repository/index", body).status == 400


def test_an_index_needs_few_words(server: Process) -> None:
    assert server.post("/v2/repository/index", b" " * 4096 + b"{}").status == 413


def test_the_models_are_listed(server: Process) -> None:
    assert server.get("/v2/models").json == {"models": ["m"]}
    assert {"model_configuration", "statistics"} <= set(server.get("/v2").json["extensions"])


def test_a_model_without_versions_is_version_1(server: Process) -> None:
    assert server.get("/v2/models/m").json["versions"] == ["1"]
    assert server.get("/v2/models/m/versions/1").json == server.get("/v2/models/m").json
    assert server.get("/v2/models/m/versions/1/ready").status == 200
    assert server.post("/v2/models/m/versions/1/infer", INFER).status == 200
    for path in ("/v2/models/m/versions/2", "/v2/models/m/versions/2/config", "/v2/models/other/stats"):
        assert server.get(path).status == 404
    # Nothing is there to load or to unload.
    assert server.post("/v2/repository/models/m/unload", {}).status == 404


def test_one_with_a_version_is_that_one_alone() -> None:
    with serving(linear(), "--version", "7") as process:
        assert process.get("/v2/models/m/versions/7/config").json["name"] == "m"
        assert process.get("/v2/models/m/versions/1/config").status == 404
        assert process.post("/v2/repository/index", {}).json[0]["version"] == "7"


def test_the_index_tells_what_is_not_ready_yet_or_any_more() -> None:
    lifecycle, plane = Lifecycle(), DataPlane("m")
    assert index(plane, lifecycle, {})[0]["state"] == "LOADING"
    assert index(plane, lifecycle, {"ready": True}) == []
    lifecycle.enter(Phase.SERVING)
    lifecycle.draining = True
    assert index(plane, lifecycle, {"ready": False})[0]["state"] == "UNLOADING"
