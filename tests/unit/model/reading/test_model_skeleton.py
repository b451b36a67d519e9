"""The lazy reader promises the whole structure, none of the weights, and a table of what it left out."""

import tracemalloc
from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelkit import linear, model, tensor, value
from onnx import TensorProto, helper, numpy_helper

from onnx_operator.model.reading.skeleton import KEEP_BYTES, STRIPPED, Skeleton, read_skeleton
from onnx_operator.model.reading.window import Window
from onnx_operator.model.reading.wire import head
from onnx_operator.model.refusal import RefusedError
from tests.unit.model.wirekit import MemoryBytes

node = helper.make_node


def read(m: onnx.ModelProto | bytes) -> tuple[Skeleton, Window]:
    data = m if isinstance(m, bytes) else m.SerializeToString()
    window = Window(MemoryBytes(data), len(data))
    return read_skeleton(window), window


def branch(name: str, *initializers: onnx.TensorProto) -> onnx.GraphProto:
    return helper.make_graph(
        [node("Add", ["x", initializers[0].name], [name])], name, [], [value(name, None)], list(initializers)
    )


def test_a_small_model_is_read_as_it_is() -> None:
    m = linear(8)
    skeleton, _ = read(m)
    assert skeleton.model == m
    assert skeleton.weights == []


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT, np.float32),
        (TensorProto.INT64, np.int64),
        (TensorProto.INT32, np.int32),
        (TensorProto.DOUBLE, np.float64),
        (TensorProto.UINT64, np.uint64),
    ],
)
def test_a_large_initializer_leaves_its_name_type_shape_and_place(raw, kind, dtype) -> None:
    values = np.arange(20_000, dtype=dtype).reshape(100, 200)
    big = helper.make_tensor("w", kind, values.shape, values.tobytes() if raw else values.ravel().tolist(), raw=raw)
    m = model([node("Identity", ["w"], ["y"])], initializers=[big, tensor("small", 3)])
    data = m.SerializeToString()
    skeleton, _ = read(data)
    (weight,) = skeleton.weights
    assert (weight.name, weight.data_type, weight.dims) == ("w", kind, (100, 200))
    assert weight.raw == raw
    if raw:
        assert data[weight.offset : weight.offset + weight.stored_bytes] == values.tobytes()
    kept, small = skeleton.model.graph.initializer
    assert kept.external_data[0].key == STRIPPED
    assert not kept.raw_data
    assert small == m.graph.initializer[1]
    assert skeleton.model.graph.node == m.graph.node


def test_strings_sparse_tensors_constants_and_subgraphs_are_stripped_too() -> None:
    big = tensor("w", 100, 100)
    strings = helper.make_tensor("s", TensorProto.STRING, [2000], [b"word"] * 2000)
    sparse = helper.make_sparse_tensor(
        tensor("sp", 3000), numpy_helper.from_array(np.arange(3000, dtype=np.int64), "i"), [1_000_000]
    )
    inner = helper.make_graph(
        [node("Constant", [], ["k"], value=big), node("Add", ["x", "k"], ["b"])], "inner", [], [value("b", None)]
    )
    m = model(
        [
            node("Constant", [], ["c"], value=big),
            node("If", ["cond"], ["y"], then_branch=inner, else_branch=branch("e", big)),
        ],
        initializers=[strings],
    )
    m.graph.sparse_initializer.append(sparse)
    skeleton, _ = read(m)
    assert len(skeleton.model.SerializeToString()) < 2500
    assert {weight.name for weight in skeleton.weights} == {"w", "s", "sp", "i"}
    assert sum(weight.stored_bytes for weight in skeleton.weights) >= 3 * 40_000 + 8_000 + 36_000


def test_weights_of_local_functions_stay_for_functions_have_no_inputs_to_stand_in() -> None:
    body = [node("Constant", [], ["c"], value=tensor("w", 2000)), node("Add", ["a", "c"], ["b"])]
    function = helper.make_function("own", "F", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    m = model([node("F", ["x"], ["y"], domain="own")], functions=[function], opsets=(("", 17), ("own", 1)))
    skeleton, _ = read(m)
    assert skeleton.model.functions[0] == function


def test_reading_a_hundred_megabytes_takes_a_few_kilobytes_of_it_and_little_memory() -> None:
    weights = [
        helper.make_tensor(f"w{i}", TensorProto.FLOAT, [1000, 2500], bytes(10_000_000), raw=True) for i in range(10)
    ]
    data = memoryview(model([node("Identity", ["w0"], ["y"])], initializers=weights).SerializeToString())
    tracemalloc.start()
    window = Window(MemoryBytes(data), len(data))
    skeleton = read_skeleton(window)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(skeleton.weights) == 10
    assert window.bytes_read < len(data) / 50
    assert peak < 4 << 20


def nested(depth: int) -> bytes:
    """Graphs in attributes in nodes in graphs, each just a wrapper of the next."""
    graph = b"\x12\x01g" + b"\x52" + bytes([0x80, 0x40]) + bytes(8192)
    for _ in range(depth):
        attribute = b"\x0a\x01a" + head(6, len(graph)) + graph + b"\xa0\x01\x05"
        inner = b"\x22\x02If" + head(5, len(attribute)) + attribute
        graph = head(1, len(inner)) + inner
    return b"\x08\x08" + head(7, len(graph)) + graph + b"\x42\x02\x10\x11"


def test_nesting_has_an_end() -> None:
    assert read(nested(5))[0].model.ir_version == 8
    with pytest.raises(RefusedError) as caught:
        read(nested(1000))
    assert caught.value.refusal.reason == "Corrupt"


@given(st.data())
@settings(max_examples=200)
def test_no_mutation_ends_in_anything_but_a_refusal_or_a_structure(data: st.DataObject) -> None:
    original = bytearray(model([node("Identity", ["w"], ["y"])], initializers=[tensor("w", 2000)]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    del original[data.draw(st.integers(1, len(original))) :]
    with suppress(RefusedError):
        read(bytes(original))


def test_the_limit_below_which_nothing_is_stripped_is_that_of_shape_inference() -> None:
    assert KEEP_BYTES == 4096
