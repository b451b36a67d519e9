"""An update is no less sure to answer than what serves: it is warmed up by the same inputs, or held."""

import re

import pytest
from pydantic import ValidationError

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import WarmUpFacts
from onnx_operator.api.report import TensorSpec
from onnx_operator.api.sources import SourcePin
from onnx_operator.api.warm_up import WarmUpInputs
from onnx_operator.controller.revision.kept_inputs import MAX_NOTE_LENGTH, kept_for, note_of, warmed
from onnx_operator.controller.revision.revisions import NOTE_WARMED, noted, pod_spec
from onnx_operator.controller.revision.warm_up import Kept, check_warm_up
from onnx_operator.model.refusal import RefusedError
from tests.unit.controller.revision.test_render import server
from tests.unit.controller.samples import report, spec
from tests.unit.controller.status.test_status import revision

URI = spec().model.uri
INPUTS = WarmUpInputs(shapes={"x": [1, 80, 3000]}, values={"x": [0]})
OTHER_SOURCE = report(source=SourcePin(kind="Conditional", value='"etag-2"'), digest="sha256:" + "1" * 64)


def started(number, warm, inputs=None):
    return noted(revision(number), {NOTE_WARMED: note_of(WarmUpFacts(warmed=warm, inputs=inputs))})


def test_a_first_version_takes_over_nothing():
    assert kept_for(report(), URI, []) is None
    assert kept_for(report(), URI, [revision(1)]) is None, "one that never started proves nothing"


def test_an_update_takes_over_the_inputs_of_the_newest_version_that_was_warmed():
    own = [started(1, True, INPUTS), revision(2), started(3, False)]
    assert kept_for(OTHER_SOURCE, URI, own) == Kept(inputs=INPUTS, required=True)


def test_inputs_of_an_interface_that_callers_could_not_use_are_not_taken_over():
    changed = OTHER_SOURCE.model_copy(update={"inputs": [TensorSpec(name="z", datatype="FP32", shape=[1])]})
    assert kept_for(changed, URI, [started(1, True, INPUTS)]) == Kept(inputs=None, required=True)


def test_other_settings_of_a_model_that_serves_unwarmed_go_on_unwarmed_and_other_bytes_do_not():
    own = [started(1, False)]
    assert kept_for(report(), URI, own) is None
    assert kept_for(OTHER_SOURCE, URI, own) == Kept(required=True)
    elsewhere = report(digest=OTHER_SOURCE.digest)
    assert kept_for(elsewhere, f"{URI}.new", own) == Kept(required=True), "an ETag tells of one address only"


def test_what_takes_traffic_is_a_first_version_even_if_no_pod_has_told_yet_how_it_started():
    assert kept_for(OTHER_SOURCE, URI, [revision(1)], serving=revision(1).name) == Kept(required=True)
    assert kept_for(report(), URI, [revision(1)], serving=revision(1).name) is None, "no update of the model"


@pytest.mark.parametrize("text", ["", "null", "{", '{"warmed": 3.5}', '{"warmed": true, "inputs": {"shapes": 1}}'])
def test_a_note_that_cannot_be_read_proves_nothing(text):
    assert warmed(noted(revision(1), {NOTE_WARMED: text})) is None


def test_what_a_pod_tells_at_length_is_kept_without_its_inputs():
    long = WarmUpInputs(shapes={"x" * MAX_NOTE_LENGTH: [1]})
    assert note_of(WarmUpFacts(warmed=True, inputs=long)) == '{"warmed":true}'


def measured(number, seconds, **changes):
    facts = WarmUpFacts(warmed=True, request_cpu_seconds=seconds)
    return noted(revision(number, **changes), {NOTE_WARMED: note_of(facts)})


def test_what_a_pod_measured_counts_with_the_next_revision_of_the_same_operations():
    trained_anew = OTHER_SOURCE
    assert kept_for(trained_anew, URI, [measured(1, 0.012)]).request_cpu_seconds == 0.012
    larger = trained_anew.model_copy(update={"flops": 10**9})
    assert kept_for(larger, URI, [measured(1, 0.012)]).request_cpu_seconds is None


def test_what_was_measured_beside_a_gpu_does_not_count_without_one():
    on_gpu, on_cpu = measured(1, 0.0004, spec=pod_spec(spec(runtime="GPU"))), measured(1, 0.4)
    assert kept_for(report(), URI, [on_gpu]).request_cpu_seconds is None
    assert kept_for(report(), URI, [on_gpu], gpu=True).request_cpu_seconds == 0.0004
    assert kept_for(report(), URI, [on_cpu], gpu=True).request_cpu_seconds is None


@pytest.mark.parametrize("seconds", [-1.0, 1e9, float("inf"), float("nan")])
def test_a_measurement_that_cannot_be_is_not_kept(seconds):
    note = note_of(WarmUpFacts(warmed=True, request_cpu_seconds=seconds))
    assert warmed(noted(revision(1), {NOTE_WARMED: note})).request_cpu_seconds is None


def test_pods_are_told_what_is_known():
    args = server(warmUp={"shapes": {"x": [1, 3, 224, 224]}, "values": {"x": [0.5]}})["args"]
    assert '--warm-up={"shapes":{"x":[1,3,224,224]},"values":{"x":[0.5]}}' in args
    assert not [each for each in server()["args"] if "warm-up" in each or "kept" in each]


NAMED = report().model_copy(
    update={
        "inputs": [
            TensorSpec(name="x", datatype="FP32", shape=["N", 3, "H", -1]),
            TensorSpec(name="n", datatype="UINT8", shape=["N"]),
            TensorSpec(name="i", datatype="INT64", shape=["N"]),
            TensorSpec(name="t", datatype="BYTES", shape=[-1]),
        ]
    }
)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"shapes": {"y": [1]}}, "spec.warmUp.shapes.y: the model has no such input; it has i, n, t, x"),
        ({"shapes": {"x": [1, 3]}}, "spec.warmUp.shapes.x is [1, 3]; expected sizes for the model's input, FP32 [N, 3"),
        ({"shapes": {"x": [1, 4, 8, 8]}}, "spec.warmUp.shapes.x is [1, 4, 8, 8]; expected sizes"),
        ({"shapes": {"x": [4096, 3, 4096, 4096]}}, "which are 206158430208 elements; expected at most 16777216"),
        ({"values": {"n": [0, 256]}}, "spec.warmUp.values.n[1] is 256; expected a whole number from 0 to 255"),
        ({"values": {"i": [0.5]}}, "spec.warmUp.values.i[0] is 0.5; expected a whole number"),
        ({"values": {"t": [1]}}, "spec.warmUp.values.t: an input of BYTES is filled by spec.warmUp.texts"),
        ({"texts": {"x": ["1"]}}, "spec.warmUp.texts.x: an input of BYTES is filled by spec.warmUp.texts"),
        ({"texts": {"t": ["x" * 256] * 256}}, "spec.warmUp takes 66321 bytes as JSON; expected at most 32768"),
        ({"shapes": {"x": [1, 3, 8, 8]}, "scoring": True}, "with spec.scoring the script loads the model"),
    ],
)
def test_a_warm_up_that_cannot_be_is_refused_before_any_pod_changes(given, words):
    scoring = {"scoring": {"configMapName": "s"}} if given.pop("scoring", False) else {}
    with pytest.raises(RefusedError, match=re.escape(words)):
        check_warm_up(spec(warmUp=given, **scoring), NAMED)


def test_it_is_told_as_what_gives_pods_that_cannot_be():
    with pytest.raises(RefusedError, match=r"spec\.warmUp\.shapes\.audo: the model has no such input") as caught:
        server(warmUp={"shapes": {"audo": [1]}})
    assert caught.value.refusal.reason is Reason.POD_TEMPLATE_REJECTED


def test_what_a_report_does_not_tell_is_left_to_the_server():
    cut = NAMED.model_copy(update={"inputs": [], "truncated": True})
    given = {"shapes": {"t": [2, 5], "any": [1]}, "texts": {"t": ["red", "green"]}}
    check_warm_up(spec(warmUp=given), cut)
    check_warm_up(spec(warmUp={"shapes": {"t": [2, 5]}}), NAMED)


def test_the_api_server_bounds_what_may_be_said():
    with pytest.raises(ValidationError, match=r"warmUp.shapes.x.0\n.*less than or equal to 16777216"):
        spec(warmUp={"shapes": {"x": [2**31]}})
    with pytest.raises(ValidationError, match=r"warmUp.shapes\n.*at most 512 items"):
        spec(warmUp={"shapes": {f"x{n}": [1] for n in range(513)}})
