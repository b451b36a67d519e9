"""The report of a model: small enough for ``status`` whatever the model holds, and an interface hash that means it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_operator.api.report import (
    MAX_METADATA,
    MAX_REPORT_BYTES,
    MAX_REPORT_TENSORS,
    MAX_TEXT_BYTES,
    MemoryEstimate,
    ModelReport,
    TensorSpec,
    interface_hash,
    shorten,
)
from onnx_operator.api.sources import SourcePin
from onnx_operator.common.text import visible

MEMORY = MemoryEstimate(weights_bytes=2**40, activations_bytes=2**40, resident_bytes=2**41)


def tensor(name: str = "x", shape: list[int | str] | None = None, datatype: str = "FP32") -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=["batch", 3] if shape is None else shape)


def report(**changes) -> ModelReport:
    values = {
        "source": SourcePin(kind="Conditional", value='"etag"'),
        "digest": "sha256:" + "a" * 64,
        "size_bytes": 10,
        "ir_version": 8,
        "opsets": {"ai.onnx": 17},
        "inputs": [tensor("x")],
        "outputs": [tensor("y")],
        "memory": MEMORY,
    }
    return ModelReport(**(values | changes))


def size(value: ModelReport) -> int:
    return len(json.dumps(value.model_dump(mode="json", by_alias=True), ensure_ascii=False).encode())


def test_an_ordinary_model_is_reported_whole():
    whole = report(metadata={"author": "ada"}, inputs=[tensor(f"in{i}") for i in range(20)])
    assert whole.bounded() == whole
    assert not whole.bounded().truncated


def test_more_tensors_than_fit_are_cut_and_that_is_said():
    cut = report(inputs=[tensor(f"i{i}") for i in range(60)], outputs=[tensor(f"o{i}") for i in range(60)]).bounded()
    assert len(cut.inputs) + len(cut.outputs) == MAX_REPORT_TENSORS
    assert cut.truncated


def test_the_outputs_are_shown_also_beside_very_many_inputs():
    cut = report(inputs=[tensor(f"i{i}") for i in range(500)], outputs=[tensor("y")]).bounded()
    assert [t.name for t in cut.outputs] == ["y"]
    assert len(cut.inputs) == MAX_REPORT_TENSORS - 1


def test_the_inputs_are_shown_also_beside_very_many_outputs():
    cut = report(inputs=[tensor("x")], outputs=[tensor(f"o{i}") for i in range(500)]).bounded()
    assert [t.name for t in cut.inputs] == ["x"]
    assert len(cut.outputs) == MAX_REPORT_TENSORS - 1


def test_more_metadata_than_fits_is_cut_and_that_is_said():
    cut = report(metadata={f"k{i:03}": "v" for i in range(100)}).bounded()
    assert list(cut.metadata) == [f"k{i:03}" for i in range(MAX_METADATA)]
    assert cut.truncated


@pytest.mark.parametrize("letter", ["x", "é", "漢", "🚀"])
def test_long_texts_are_cut_between_characters(letter):
    cut = report(
        producer=letter * 1000,
        metadata={letter * 1000: letter * 1000},
        inputs=[tensor(letter * 1000, [letter * 1000])],
    ).bounded()
    texts = [cut.producer, *cut.metadata, *cut.metadata.values(), cut.inputs[0].name, cut.inputs[0].shape[0]]
    for text in texts:
        assert len(text.encode()) <= MAX_TEXT_BYTES
        assert text.endswith("…")
        assert set(text[:-1]) == {letter}
    assert cut.truncated


def test_a_text_at_the_bound_stays():
    exact = report(producer="x" * MAX_TEXT_BYTES)
    assert exact.bounded() == exact


WORST = {
    "ascii": "x" * 300,
    "four bytes": "🚀" * 300,
    "escaped by JSON": "\x01" * 300,
    "quotes": '"' * 300,
}


@pytest.mark.parametrize("text", WORST.values(), ids=WORST)
def test_the_most_that_a_model_can_hold_still_fits(text):
    tensors = [tensor(f"{i}{text}", [f"{d}{text}" for d in range(40)], datatype=text) for i in range(100)]
    worst = report(
        source=SourcePin(kind="Conditional", value='"' + "e" * 254 + '"'),
        version="v" * 64,
        producer=text,
        opsets={f"{i}{text}": 2**62 for i in range(500)},
        metadata={f"{i}{text}": text for i in range(500)},
        inputs=tensors,
        outputs=tensors,
    )
    cut = worst.bounded()
    assert size(cut) <= MAX_REPORT_BYTES
    assert cut.truncated
    assert cut.inputs or cut.outputs or cut.metadata, "something of it is shown"


def test_a_great_many_dimensions_do_not_push_out_everything_else():
    cut = report(inputs=[tensor("x", [1] * 100_000)], outputs=[tensor("y")]).bounded()
    assert size(cut) <= MAX_REPORT_BYTES
    assert cut.inputs[0].name == "x"
    assert cut.outputs[0].name == "y"
    assert cut.truncated


NAMES = st.text(max_size=400)
TENSORS = st.lists(
    st.builds(
        TensorSpec,
        name=NAMES,
        datatype=st.sampled_from(["FP32", "INT64", "BYTES", "seq(map(int64,tensor(float)))"]),
        shape=st.lists(st.integers(-1, 2**40) | NAMES, max_size=12),
    ),
    max_size=90,
)


@settings(deadline=None, max_examples=40)
@given(
    inputs=TENSORS,
    outputs=TENSORS,
    metadata=st.dictionaries(NAMES, NAMES, max_size=50),
    opsets=st.dictionaries(NAMES, st.integers(1, 99), max_size=20),
)
def test_a_bounded_report_is_within_all_bounds_and_bounding_again_changes_nothing(inputs, outputs, metadata, opsets):
    original = report(inputs=inputs, outputs=outputs, metadata=metadata, opsets=opsets)
    before = original.model_copy(deep=True)

    cut = original.bounded()

    assert original == before
    assert size(cut) <= MAX_REPORT_BYTES
    assert len(cut.inputs) + len(cut.outputs) <= MAX_REPORT_TENSORS
    assert len(cut.metadata) <= MAX_METADATA
    assert cut.bounded() == cut
    assert cut.truncated or cut == original


@settings(deadline=None)
@given(text=st.text(max_size=300), limit=st.integers(16, 200))
def test_shortened_text_takes_at_most_its_bytes_in_json(text, limit):
    short = shorten(text, limit)
    assert len(json.dumps(short, ensure_ascii=False).encode()) - 2 <= limit
    shown = visible(text)
    assert short == shown or (short.endswith("…") and shown.startswith(short[:-1]))
    assert shorten(short, limit) == short


# --- the interface's hash -------------------------------------------------------------------------------------------

SPECS = st.lists(
    st.builds(
        TensorSpec,
        name=st.text(max_size=5),
        datatype=st.sampled_from(["FP32", "INT64"]),
        shape=st.lists(st.integers(-1, 4) | st.sampled_from(["N", "batch"]), max_size=3),
    ),
    max_size=5,
    unique_by=lambda t: t.name,
)


@settings(deadline=None)
@given(inputs=SPECS, outputs=SPECS, data=st.data())
def test_the_order_of_tensors_does_not_change_the_interface(inputs, outputs, data):
    shuffled = data.draw(st.permutations(inputs)), data.draw(st.permutations(outputs))
    assert interface_hash(inputs, outputs) == interface_hash(*shuffled)


@settings(deadline=None)
@given(one=SPECS, other=SPECS, outputs=SPECS)
def test_different_tensors_are_a_different_interface(one, other, outputs):
    same = sorted(one, key=lambda t: t.name) == sorted(other, key=lambda t: t.name)
    assert (interface_hash(one, outputs) == interface_hash(other, outputs)) == same


@pytest.mark.parametrize(
    "other",
    [tensor("z"), tensor("x", datatype="FP16"), tensor("x", ["batch", 4]), tensor("x", ["N", 3]), tensor("x", [-1, 3])],
    ids=["name", "type", "size", "dimension's name", "dimension unknown"],
)
def test_a_changed_tensor_changes_the_interface(other):
    assert interface_hash([tensor("x")], []) != interface_hash([other], [])


def test_inputs_are_not_outputs():
    assert interface_hash([tensor()], []) != interface_hash([], [tensor()])


def test_the_hash_is_twelve_hex_digits_and_never_changes_between_versions():
    # Stored in revisions and compared by later versions of the operator: a change here breaks every held model.
    assert interface_hash([tensor("x")], [tensor("y", [1, "n"])]) == "9f16033db972"
