"""The node tests of the ``onnx`` package as jobs for clients, and what ONNX Runtime itself answers."""

import collections
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, numpy_helper

DATATYPES = {
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign}int{bits}".upper() for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float16": "FP16",
    "bfloat16": "BF16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
"""The protocol's names of element types, by ONNX Runtime's."""


@dataclass
class Case:
    """A model, its inputs as clients send them (BF16 as bits), and its outputs by name as datatype and array."""

    name: str
    model: bytes
    inputs: list[tuple[str, str, Any]]
    expected: dict[str, tuple[str, Any]]

    @property
    def datatypes(self) -> set[str]:
        return {datatype for _, datatype, _ in self.inputs} | {datatype for datatype, _ in self.expected.values()}


@dataclass
class Corpus:
    """The cases that the protocol can carry, and why others are left out: reason to number."""

    cases: list[Case] = field(default_factory=list)
    left_out: collections.Counter[str] = field(default_factory=collections.Counter)


def node_corpus() -> Corpus:
    """Load all node tests, run each by ONNX Runtime."""
    with warnings.catch_warnings():
        # The package computes its own expectations with overflows and divisions by zero.
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        tests = load_model_tests(kind="node")
    corpus = Corpus()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    for test in tests:
        content = test.model.SerializeToString()
        try:
            session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception:
            corpus.left_out["ONNX Runtime does not load it"] += 1
            continue
        arguments = [*session.get_inputs(), *session.get_outputs()]
        if reason := next((r for a in arguments if (r := _uncarriable(a.type))), None):
            corpus.left_out[reason] += 1
            continue
        given = test.data_sets[0][0]
        inputs = [
            (a.name, _datatype(a.type), _array(v, _datatype(a.type)))
            for a, v in zip(session.get_inputs(), given, strict=True)
        ]
        try:
            expected, again = (_run(session, inputs) for _ in range(2))
        except Exception:
            corpus.left_out["ONNX Runtime does not run it"] += 1
            continue
        if any(not same(expected[name], again[name]) for name in expected):
            corpus.left_out["its answer is random"] += 1
            continue
        corpus.cases.append(Case(test.name, content, inputs, expected))
    return corpus


def same(one: tuple[str, Any], other: tuple[str, Any]) -> bool:
    """Whether two tensors have the same datatype, shape and bits; any NaN is as good as another."""
    (datatype, a), (other_datatype, b) = one, other
    if datatype != other_datatype or not isinstance(b, np.ndarray) or a.shape != b.shape:
        return False
    if datatype == "BYTES":
        return [_bytes(x) for x in a.reshape(-1).tolist()] == [_bytes(x) for x in b.reshape(-1).tolist()]
    if a.dtype != b.dtype:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    nan = np.isnan(a)
    bits = np.dtype(f"u{a.dtype.itemsize}")
    equal = np.ascontiguousarray(a).view(bits) == np.ascontiguousarray(b).view(bits)
    return bool(np.array_equal(nan, np.isnan(b)) and np.all(equal | nan))


def finite(case: Case) -> bool:
    """Whether JSON has a number for each of the inputs' elements."""
    return all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for _, _, array in case.inputs)


def _uncarriable(kind: str) -> str | None:
    if not kind.startswith("tensor("):
        return kind.partition("(")[0]
    element = kind[len("tensor(") : -1]
    return None if element in DATATYPES else element


def _datatype(kind: str) -> str:
    return DATATYPES[kind[len("tensor(") : -1]]


def _array(value: Any, datatype: str) -> Any:
    array = numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)
    if datatype == "BF16":
        return array.view(np.uint16)
    if datatype == "BYTES":
        text = np.empty(array.shape, dtype=np.object_)
        text.reshape(-1)[:] = [_bytes(x).decode() for x in array.reshape(-1).tolist()]
        return text
    return array


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _run(session: ort.InferenceSession, inputs: list[tuple[str, str, Any]]) -> dict[str, tuple[str, Any]]:
    names = [output.name for output in session.get_outputs()]
    datatypes = [_datatype(output.type) for output in session.get_outputs()]
    if "BF16" not in {*datatypes, *(datatype for _, datatype, _ in inputs)}:
        values = session.run(names, {name: array for name, _, array in inputs})
        return {n: (d, np.asarray(v)) for n, d, v in zip(names, datatypes, values, strict=True)}
    feed = {
        name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, TensorProto.BFLOAT16)
        if datatype == "BF16"
        else ort.OrtValue.ortvalue_from_numpy(array)
        for name, datatype, array in inputs
    }
    found = session.run_with_ort_values(names, feed)
    return {n: (d, _bits(v) if d == "BF16" else v.numpy()) for n, d, v in zip(names, datatypes, found, strict=True)}


def _bits(value: ort.OrtValue) -> Any:
    import ctypes

    shape = tuple(value.shape())
    count = int(np.prod(shape))
    held = (ctypes.c_uint16 * count).from_address(value.data_ptr()) if count else ()
    return np.array(held, dtype=np.uint16).reshape(shape)


def write(corpus: Corpus, folder: Path) -> list[Path]:
    """Put each model into a file."""
    files = []
    for index, case in enumerate(corpus.cases):
        path = folder / f"{index}.onnx"
        path.write_bytes(case.model)
        files.append(path)
    return files
