"""What a spec says of serving is obeyed alike in pods and by ``kubectl onnx serve``."""

from pathlib import Path

import pytest

from onnx_operator.api.onnxmodel import Batching, Session
from onnx_operator.cli.manifest import Manifest
from onnx_operator.cli.serving import server_arguments
from onnx_operator.controller.revision.render import RenderInput, render
from onnx_operator.controller.revision.warm_up import Kept
from onnx_operator.server.__main__ import serve_parameters
from tests.unit.controller.samples import files, pool, report, settings, spec

SESSION = {"executionProviders": ["CUDA", "CPU"], "intraOpThreads": 2, "interOpThreads": 3, "onFallback": "Fail"}
BATCHING = {"maxBatchSize": 7, "maxDelayMilliseconds": 0, "assumeIndependentRows": True}
WARM_UP = {"shapes": {"x": [1, 3, 224, 224]}, "values": {"x": [0.5, 1]}}
THE_PODS_OWN = {"--model", "--name", "--port", "--grpc-port", "--state-directory", "--require-warm-up", "--page"}
"""What no spec says: where the pod has things, what its revision takes over, what the platform team sets. For one's own
machine the options of ``kubectl onnx serve`` say it."""
ELSEWHERE = {"--script", "--test-data"}
"""Said of both, but folders that lie elsewhere in a pod."""


def option(argument: str) -> str:
    return argument.partition("=")[0]


def in_a_pod(**fields) -> list[str]:
    script = fields.get("scoring", {}).get("script")
    scoring = {"score.py": script} if script else {}
    asked, found = spec(**fields), report()
    data = files(found).files if asked.model.test_data else []
    gpu = pool("gpu", runtime="GPU", serverImage="registry.example/gpu:1.0")
    kept = Kept(required=True)
    inputs = RenderInput(
        "iris", "default", asked, found, files(found), gpu, settings(page=True), scoring, test_data=data, kept=kept
    )
    (deployment,) = (each for each in render(inputs) if each["kind"] == "Deployment")
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    command, *arguments = server["args"]
    assert command == "serve"
    return [argument.replace("$$", "$") for argument in arguments]


def on_my_machine(**fields) -> list[str]:
    asked = spec(**fields)
    # An image has its script in itself; here one of the machine stands for it.
    return server_arguments(Manifest("iris", asked, {"score.py": "def init(): pass"} if asked.scoring else {}))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"runtime": "GPU"},
        {"runtime": "GPU", "model": {"version": "3 of $(HOME)"}, "session": SESSION, "batching": BATCHING},
        {"session": {"intraOpThreads": 2}},
        {"batching": {"maxDelayMilliseconds": 250, "assumeIndependentRows": False}},
        {"warmUp": WARM_UP},
        {"warmUp": {}},
        {"scoring": {"script": "def init(): pass"}},
        {"scoring": {"image": "registry.example/scored:1", "entryScript": "src/score.py"}},
    ],
    ids=str,
)
def test_what_pods_are_told_of_a_spec_my_machine_is_told_too(fields: dict) -> None:
    pod, mine = in_a_pod(**fields), on_my_machine(**fields)

    assert {each for each in pod if option(each) not in THE_PODS_OWN | ELSEWHERE} == {
        each for each in mine if option(each) not in ELSEWHERE
    }
    assert {option(each) for each in pod} - THE_PODS_OWN == {option(each) for each in mine}
    assert {option(each) for each in pod} >= THE_PODS_OWN


def test_test_data_and_scripts_are_where_the_manifest_has_them(tmp_path: Path) -> None:
    fields = {"model": {"testData": f"file://{tmp_path}"}, "scoring": {"script": "def init(): pass"}}

    pod, mine = (
        dict(each.split("=") for each in made if option(each) in ELSEWHERE)
        for made in (in_a_pod(**fields), on_my_machine(**fields))
    )

    assert pod == {"--script": "/scoring", "--test-data": "/testdata"}
    assert mine["--test-data"] == str(tmp_path)
    assert (Path(mine["--script"]) / "score.py").read_text() == "def init(): pass"


def test_no_field_of_session_and_batching_is_left_out() -> None:
    assert set(SESSION) == {field.alias for field in Session.model_fields.values()}
    assert set(BATCHING) == {field.alias for field in Batching.model_fields.values()}
    told = [serve_parameters(on_my_machine(session={name: value})) for name, value in SESSION.items()]
    told += [serve_parameters(on_my_machine(batching={name: value})) for name, value in BATCHING.items() if value]
    assert serve_parameters([]) not in told


def test_the_server_understands_what_a_manifest_says() -> None:
    found = serve_parameters(on_my_machine(runtime="GPU", session=SESSION, batching=BATCHING, warmUp=WARM_UP))

    assert found["providers"] == ("CUDA", "CPU")
    assert (found["intra_op_threads"], found["inter_op_threads"], found["on_fallback"]) == (2, 3, "Fail")
    assert (found["max_batch_size"], found["max_delay_milliseconds"]) == (7, 0.0)
    assert found["assume_independent_rows"]
    assert found["warm_up"].fillings() == {"x": [0.5, 1]}
