"""What another version of the operator wrote is read as far as possible, and never stops a look."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_operator.api.onnxmodel import OnnxModelSpec, OnnxModelStatus
from onnx_operator.api.readable import readable_spec, readable_status

MODEL = {"uri": "s3://models/m.onnx"}


def test_a_spec_of_this_version_is_read_whole():
    spec, fault = readable_spec({"model": MODEL, "replicas": 3, "runtime": "GPU"})
    assert spec == OnnxModelSpec.model_validate({"model": MODEL, "replicas": 3, "runtime": "GPU"})
    assert fault == ""


def test_a_value_that_is_not_known_is_named_and_the_rest_counts():
    spec, fault = readable_spec({"model": MODEL, "runtime": "TPU", "replicas": 3, "suspend": True})
    assert "spec.runtime" in fault
    assert (spec.replicas, spec.suspend, spec.runtime, spec.model.uri) == (3, True, None, MODEL["uri"])


@pytest.mark.parametrize("raw", [None, [], {}, {"model": 1}, {"model": {"uri": []}}, {"model": {"uri": ""}}])
def test_a_spec_without_a_model_is_read_as_well(raw):
    spec, fault = readable_spec(raw)
    assert spec.replicas == 1
    assert fault.startswith("spec.model")


@pytest.mark.parametrize("raw", [{"conditions": 3}, {"runtime": "TPU"}, [], "x"])
def test_a_status_that_is_not_known_is_told_anew(raw):
    assert readable_status(raw) == OnnxModelStatus()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(raw=st.dictionaries(st.sampled_from(["model", "replicas", "suspend", "session", "podTemplate"]), JSON))
def test_anything_is_read(raw):
    spec, _ = readable_spec(raw)
    assert isinstance(spec, OnnxModelSpec)
