"""A model that answers its test inputs otherwise than expected does not become ready, and says where."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from onnx_operator.server.runtime.failures import FailedTestError, LoadError
from onnx_operator.server.runtime.session import SessionSettings, load
from onnx_operator.server.runtime.tensorproto import TensorError, parse_tensor
from onnx_operator.server.runtime.testdata import GPU_TOLERANCES, TOLERANCES, check_test_data, compare
from tests.unit.server.serving import identity, linear, load_bytes, model_bytes, node, value

FLOAT, BF16, STRING = TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.STRING
DATA = Path(onnx.__file__).parent / "backend/test/data"

DTYPES = [
    *(np.dtype(t) for t in (np.bool_, np.float16, np.float32, np.float64)),
    *(np.dtype(f"{sign}int{width}") for sign in ("", "u") for width in (8, 16, 32, 64)),
]
arrays = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0)))


@given(arrays, st.booleans(), st.text(max_size=5))
@settings(deadline=None)
def test_tensors_are_read_as_onnx_wrote_them(array: Any, raw: bool, name: str) -> None:
    if raw:
        proto = numpy_helper.from_array(array, name)
    else:
        element = helper.np_dtype_to_tensor_dtype(array.dtype)
        proto = helper.make_tensor(name, element, array.shape, array.reshape(-1).tolist())
    found = parse_tensor(proto.SerializeToString())
    assert found.name == name
    assert found.array.dtype == array.dtype
    assert found.array.shape == array.shape
    np.testing.assert_array_equal(found.array, numpy_helper.to_array(proto))


@given(hnp.arrays(np.float32, hnp.array_shapes(min_side=0)), st.booleans())
@settings(deadline=None)
def test_bf16_tensors_are_read_as_their_bits(array: Any, raw: bool) -> None:
    with np.errstate(over="ignore"):
        small = array.astype(ml_dtypes.bfloat16)
    proto = TensorProto(data_type=BF16, dims=array.shape)
    if raw:
        proto.raw_data = small.tobytes()
    else:
        proto.int32_data.extend(small.view(np.uint16).reshape(-1).tolist())
    found = parse_tensor(proto.SerializeToString())
    assert found.datatype == "BF16"
    assert found.array.tolist() == small.view(np.uint16).tolist()


@given(st.lists(st.text(max_size=4)))
def test_texts_are_read_as_onnx_wrote_them(texts: list[str]) -> None:
    found = parse_tensor(helper.make_tensor("t", STRING, [len(texts)], texts).SerializeToString())
    assert (found.datatype, found.array.tolist()) == ("BYTES", texts)


@given(st.binary(max_size=60), arrays, st.integers(0, 200), st.booleans())
@settings(deadline=None)
def test_whatever_the_bytes_are_they_are_a_tensor_or_refused(noise: bytes, array: Any, cut: int, splice: bool) -> None:
    data = numpy_helper.from_array(array).SerializeToString()
    for broken in (noise, data[:cut] + noise if splice else data[:-1], data + noise):
        with contextlib.suppress(TensorError):
            parsed = parse_tensor(broken)
            assert parsed.array.dtype.kind in "bifuO"


def external() -> TensorProto:
    proto = numpy_helper.from_array(np.zeros(3, np.float32))
    onnx.external_data_helper.set_external_data(proto, "weights.bin")
    return proto


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (helper.make_tensor("t", TensorProto.INT4, [2], [1, 2]), "INT4, which cannot be compared"),
        (helper.make_tensor("t", TensorProto.COMPLEX64, [1], [1j]), "COMPLEX64, which"),
        (TensorProto(data_type=99), "99, which"),
        (external(), "another file"),
        (TensorProto(data_type=FLOAT, dims=[3], float_data=[1, 2]), r"holds 2 elements, its shape \[3\] needs 3"),
        (TensorProto(data_type=FLOAT, dims=[1], raw_data=b"abc"), "3 bytes, no whole number"),
        (TensorProto(data_type=FLOAT, dims=[-1], float_data=[1]), "not a shape"),
        (TensorProto(data_type=STRING, dims=[1], string_data=[b"\xff"]), "not UTF-8"),
    ],
    ids=["int4", "complex", "unknown", "external", "short", "ragged", "negative", "text"],
)
def test_tensors_that_cannot_be_compared_are_refused_by_name(proto: TensorProto, words: str) -> None:
    with pytest.raises(TensorError, match=words):
        parse_tensor(proto.SerializeToString())


def zoo() -> list[Path]:
    """Models with test data as the onnx package carries them."""
    return sorted(path.parent for kind in ("simple", "pytorch-*") for path in DATA.glob(f"{kind}/*/model.onnx"))


def test_every_model_of_the_onnx_package_passes_its_own_test_data() -> None:
    passed, refused = 0, []
    for folder in zoo():
        try:
            model = load(folder / "model.onnx", SessionSettings())
        except LoadError:
            continue  # opsets below 7, which ONNX Runtime has no kernels for
        try:
            result = check_test_data(model, folder)
        except FailedTestError as error:
            refused.append(f"{folder.name}: {error}")
        else:
            assert result.data_sets == len(list(folder.glob("test_data_set_*")))
            assert result.outputs >= result.data_sets
            passed += 1
    assert passed > 80
    assert refused == []


def write(folder: Path, **tensors: Any) -> Path:
    """``input_0=array`` and so on; ``(name, array)`` names it in the file, bytes are written as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in tensors.items():
        name, array = content if isinstance(content, tuple) else ("", content)
        data = array if isinstance(array, bytes) else numpy_helper.from_array(array, name).SerializeToString()
        (folder / f"{file}.pb").write_bytes(data)
    return folder


def features(*rows: list[float]) -> Any:
    return np.array(rows, np.float32)


X = features([1, 0, 0, 0], [0, 1, 0, 0])
LABEL = np.array([2, 2])
LOGITS = features([0.0, 0.1, 0.2], [0.3, 0.4, 0.5])


def test_a_folder_of_files_is_one_data_set(tmp_path: Path) -> None:
    result = check_test_data(load_bytes(linear()), write(tmp_path, input_0=X, output_0=LABEL, output_1=LOGITS))
    assert (result.data_sets, result.outputs) == (1, 2)
    assert result.largest_difference < 1e-6


def test_data_sets_run_in_the_order_of_their_numbers_and_progress_is_told(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        write(tmp_path / f"test_data_set_{number}", input_0=X, output_0=LABEL)
    write(tmp_path / "something_else", input_0=LABEL)
    told: list[dict[str, object]] = []
    assert check_test_data(load_bytes(linear()), tmp_path, note=lambda **f: told.append(f)).data_sets == 3
    assert [each["dataSet"] for each in told] == ["test_data_set_0", "test_data_set_2", "test_data_set_10"]
    assert told[0]["dataSets"] == 3


def test_the_folder_that_was_fetched_may_lie_in_another(tmp_path: Path) -> None:
    (tmp_path / ".onnx-operator-fetch").mkdir()
    write(tmp_path / "resnet" / "test_data_set_0", input_0=X, output_0=LABEL)
    assert check_test_data(load_bytes(linear()), tmp_path).data_sets == 1


def test_a_wrong_answer_names_data_set_output_place_and_values(tmp_path: Path) -> None:
    wrong = LOGITS.copy()
    wrong[1, 2] = 0.75
    wrong[0, 0] = 0.01
    write(tmp_path / "test_data_set_3", input_0=X, output_0=LABEL, output_1=wrong)
    with pytest.raises(FailedTestError) as failed:
        check_test_data(load_bytes(linear()), tmp_path)
    assert str(failed.value) == (
        "test_data_set_3: output logits is 0.5 at [1, 2], expected 0.75 (by 0.25; allowed is 0.00076); "
        "2 of 6 FP32 elements differ"
    )


def test_integers_must_be_equal(tmp_path: Path) -> None:
    with pytest.raises(FailedTestError, match=r"output label is 2 at \[1\], expected 1; 1 of 2 INT64 elements differ"):
        check_test_data(load_bytes(linear()), write(tmp_path, input_0=X, output_0=np.array([2, 1])))


def two() -> bytes:
    return model_bytes(
        [node("Sub", ["a", "b"], ["y"])],
        [value("a", FLOAT, ["N"]), value("b", FLOAT, ["N"])],
        [value("y", FLOAT, ["N"])],
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [(("a", [5]), ("b", [3])), (("b", [3]), ("a", [5])), (("", [5]), ("?", [3])), (("x", [5]), ("b", [3]))],
    ids=["in order", "by name", "without names", "with one name"],
)
def test_inputs_are_found_by_the_names_in_the_files_or_else_in_order(tmp_path: Path, first: Any, second: Any) -> None:
    one, other = ((name, np.array(values, np.float32)) for name, values in (first, second))
    check_test_data(load_bytes(two()), write(tmp_path, input_0=one, input_1=other, output_0=np.array([2], np.float32)))


ONE = np.ones(1, np.float32)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "neither input_0.pb and output_0.pb nor folders test_data_set_N; it holds nothing"),
        ({"model": b""}, "it holds model.pb"),
        ({"input_0": ONE, "input_1": ONE}, "output_0.pb is missing"),
        ({"input_0": ONE, "output_0": ONE}, "no value for the model's input b; expected input_0.pb to input_1.pb"),
        ({"input_1": ONE, "output_0": ONE}, "input_0.pb is missing, input_1.pb is there"),
        ({"input_0": ONE, "input_1": ONE, "input_2": ONE, "output_0": ONE}, "only 2 inputs: a, b"),
        ({"input_0": ("a", ONE), "input_1": ("a", ONE), "output_0": ONE}, "input_1.pb: input a has a value already"),
        ({"input_0": np.ones(1), "input_1": ONE, "output_0": ONE}, r"input_0.pb is FP64 \[1\], .* a is FP32 \[N\]"),
        ({"input_0": ONE.reshape(1, 1), "input_1": ONE, "output_0": ONE}, r"input_0.pb is FP32 \[1, 1\]"),
        ({"input_0": ONE, "input_1": ONE, "output_0": LABEL}, r"output_0.pb is INT64 \[2\], .*output y is FP32 \[N\]"),
        ({"input_0": ONE, "input_1": ONE, "output_0": X[0]}, r"output y has shape \[1\], expected \[4\]"),
        ({"input_0": ONE, "input_1": b"\x0b", "output_0": ONE}, "input_1.pb: it is not a TensorProto"),
        ({"input_0": X[0], "input_1": LOGITS[0], "output_0": ONE}, "the model .*inputs.*"),
    ],
)
def test_data_that_does_not_fit_the_model_is_told_by_its_file(tmp_path: Path, files: Any, words: str) -> None:
    with pytest.raises(FailedTestError, match=words):
        check_test_data(load_bytes(two()), write(tmp_path / "data", **files))


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FailedTestError, match=r"nothing is not a folder"):
        check_test_data(load_bytes(two()), tmp_path / "nothing")


def test_sequences_are_refused_by_name(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("x", FLOAT, [None])
    model = load_bytes(model_bytes([node("SequenceLength", ["x"], ["y"])], [sequence], [value("y", 7, [])]))
    content = numpy_helper.from_list([ONE], "x").SerializeToString()
    with pytest.raises(FailedTestError, match=r"input x is seq\(tensor\(float\)\); only tensors"):
        check_test_data(model, write(tmp_path, input_0=content, output_0=np.array(1)))


def same(element: int, array: Any, folder: Path) -> None:
    check_test_data(load_bytes(identity(element)), write(folder, input_0=array, output_0=array))


@pytest.mark.parametrize(
    ("element", "array"),
    [
        (FLOAT, np.array([np.nan, np.inf, -np.inf, 0], np.float32)),
        (STRING, np.array(["a", "é"], object)),
        (BF16, np.array([1.5, np.nan], ml_dtypes.bfloat16)),
        (TensorProto.BOOL, np.array([True])),
        (FLOAT, np.zeros(0, np.float32)),
    ],
    ids=["not finite", "texts", "bf16", "booleans", "nothing"],
)
def test_equal_values_of_every_kind_pass(tmp_path: Path, element: int, array: Any) -> None:
    same(element, array, tmp_path)


def differs(got: Any, expected: Any, datatype: str) -> Callable[[], float]:
    return lambda: compare(np.asarray(got), np.asarray(expected), datatype, TOLERANCES)


@pytest.mark.parametrize(
    ("compared", "words"),
    [
        (differs([np.nan], [1.0], "FP32"), r"is nan at \[0\], expected 1 \(by inf"),
        (differs([1.0], [np.nan], "FP32"), r"is 1 at \[0\], expected nan"),
        (differs([1e30], [np.inf], "FP32"), "expected inf"),
        (differs([-np.inf], [np.inf], "FP32"), "is -inf"),
        (differs(1.1, 1.0, "FP32"), r"^is 1.1, expected 1 \(by 0.1"),
        (differs(np.array(["a"], object), np.array(["b"], object), "BYTES"), r"is 'a' at \[0\], expected 'b'"),
        (differs([True], [False], "BOOL"), r"is True at \[0\]"),
    ],
)
def test_every_difference_is_told(compared: Callable[[], float], words: str) -> None:
    with pytest.raises(FailedTestError, match=words):
        compared()


def test_tolerances_widen_with_narrower_numbers_and_on_a_gpu() -> None:
    off = np.array([1.005], np.float32)
    assert compare(off.astype(np.float16), np.ones(1, np.float16), "FP16", TOLERANCES) == pytest.approx(0.005, abs=1e-3)
    with pytest.raises(FailedTestError):
        compare(off, np.ones(1, np.float32), "FP32", TOLERANCES)
    assert compare(off, np.ones(1, np.float32), "FP32", GPU_TOLERANCES) == pytest.approx(0.005, abs=1e-4)
