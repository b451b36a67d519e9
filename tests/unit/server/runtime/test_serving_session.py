"""A loaded model computes exactly what ONNX Runtime does, for every type that the protocol can carry."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from onnx_operator.server.dataplane.call import Call, Cancelled
from onnx_operator.server.errors import RequestError
from tests.unit.server.serving import identity, linear, load_bytes, model_bytes, node, slow, value

FLOAT, BF16, STRING = TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.STRING


def bits(values: Any) -> Any:
    return np.asarray(values, ml_dtypes.bfloat16).view(np.uint16)


ARRAYS = [
    np.array([True, False]),
    np.array([1.5, np.nan, np.inf], np.float16),
    np.array([1.5, -0.0], np.float32),
    np.array([1e300], np.float64),
    np.array(["a", "", "é\0"], object),
    *(
        np.array([np.iinfo(t).min, np.iinfo(t).max], t)
        for t in (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
    ),
]


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: str(a.dtype))
@pytest.mark.parametrize("shape", [None, (), (0, 3)], ids=["vector", "scalar", "empty"])
def test_every_type_passes_unchanged(array: Any, shape: Any, plain: bool) -> None:
    if shape is not None:
        array = np.resize(array, shape) if 0 not in shape else np.empty(shape, array.dtype)
    element = STRING if array.dtype == object else helper.np_dtype_to_tensor_dtype(array.dtype)
    model = load_bytes(identity(element, ["?"] * array.ndim))
    (found,) = model.run_plain(["y"], {"x": array}) if plain else model.run(["y"], {"x": array}, Call())
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    "array",
    [bits([1.5, -2.0, np.inf]), bits(3.0), bits(np.zeros((0, 3))), bits([[1, 2], [3, 4]]).T],
    ids=["vector", "scalar", "empty", "transposed"],
)
def test_bf16_is_carried_as_its_bits(array: Any) -> None:
    (found,) = load_bytes(identity(BF16, ["?"] * array.ndim)).run(["y"], {"x": array}, Call())
    assert found.dtype == np.uint16
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)


def mixed() -> bytes:
    return model_bytes(
        [
            node("Cast", ["x"], ["single"], to=FLOAT),
            node("Identity", ["x"], ["same"]),
            node("Identity", ["n"], ["number"]),
            node("Identity", ["s"], ["text"]),
        ],
        [value("x", BF16, ["N"]), value("n", TensorProto.INT64, ["M"]), value("s", STRING, ["L"])],
        [
            value("single", FLOAT, ["N"]),
            value("same", BF16, ["N"]),
            value("number", TensorProto.INT64, ["M"]),
            value("text", STRING, ["L"]),
        ],
    )


def test_bf16_goes_in_beside_other_types() -> None:
    feed = {"x": bits([1.5]), "n": np.array([7, 8]), "s": np.array(["é"], object)}
    single, text = load_bytes(mixed()).run(["single", "text"], feed, Call())
    assert (single.tolist(), text.tolist()) == ([1.5], ["é"])


def test_bf16_comes_out_beside_other_types_in_the_order_asked_for() -> None:
    content = model_bytes(
        [node("Cast", ["x"], ["low"], to=BF16), node("Identity", ["x"], ["same"])],
        [value("x", FLOAT, ["N"])],
        [value("low", BF16, ["N"]), value("same", FLOAT, ["N"])],
    )
    same, low = load_bytes(content).run(["same", "low"], {"x": np.array([1.5, 3], np.float32)}, Call())
    assert same.tolist() == [1.5, 3]
    assert low.tolist() == bits([1.5, 3]).tolist()


def test_bf16_out_of_a_model_with_strings_is_refused_saying_why() -> None:
    feed = {"x": bits([1.5]), "n": np.array([7]), "s": np.array(["a"], object)}
    with pytest.raises(RequestError, match=r"input s: .*BF16 or FP8 outputs.*strings"):
        load_bytes(mixed()).run(["same"], feed, Call())


def test_results_in_bf16_outlive_the_run_that_made_them() -> None:
    model = load_bytes(identity(BF16, ["N"]))
    first = model.run_plain(["y"], {"x": bits(np.full(5000, 1.5))})[0]
    for _ in range(20):
        model.run_plain(["y"], {"x": bits(np.full(5000, 7.0))})
    assert np.array_equal(first, bits(np.full(5000, 1.5)))


@pytest.mark.parametrize("plain", [True, False])
def test_wrong_inputs_are_the_callers_fault_and_say_what_was_expected(plain: bool) -> None:
    model, feed = load_bytes(linear()), {"X": np.zeros((1, 5), np.float32)}
    with pytest.raises(RequestError, match=r"refused the inputs: .*X .*Got: 5 Expected: 4") as refused:
        model.run_plain(["label"], feed) if plain else model.run(["label"], feed, Call())
    assert refused.value.status == 400


def test_a_call_that_was_given_up_is_not_computed() -> None:
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled):
        load_bytes(slow()).run(["total"], {"n": np.array([1])}, call)
