"""Test data: its inputs must give its outputs, or the model does not become ready.

Files lie as in the ONNX Model Zoo: ``input_0.pb`` …, ``output_0.pb`` …, each a ``TensorProto``, in one folder or in
several called ``test_data_set_N``. Scores of classes may be a sequence of maps, as other runtimes write them.

Tolerances follow the ONNX backend tests, whose defaults are 1e-3 relative and 1e-7 absolute
(``onnx.backend.test.loader``) and, for BF16, two units in the last place (``onnx.backend.test.runner``). The absolute
one is wider here: the outputs were computed by another runtime on another machine, and what should be zero is not.
On a GPU, matrices are multiplied in TF32, whose 10 bits of mantissa are those of half precision.
"""

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnx_operator.model.lfs import pointer_text
from onnx_operator.server.dataplane.tensors import DTYPES, TensorInfo, show_shape
from onnx_operator.server.errors import RequestError
from onnx_operator.server.runtime.failures import FailedTestError
from onnx_operator.server.runtime.mapsproto import parse_scores
from onnx_operator.server.runtime.progress import Note, ignore
from onnx_operator.server.runtime.rows import as_floats
from onnx_operator.server.runtime.session import Model
from onnx_operator.server.runtime.tensorproto import Tensor, TensorError, parse_tensor

logger = logging.getLogger(__name__)

_FILE = re.compile(r"(input|output)_(\d+)\.pb")
_DATA_SET = re.compile(r"test_data_set_(\d+)")
_MAX_SHOWN = 10


@dataclass(frozen=True)
class Tolerance:
    """By how much a number may differ: ``absolute`` + ``relative`` × the expected one."""

    relative: float
    absolute: float


TOLERANCES = {
    "FP64": Tolerance(1e-3, 1e-7),
    "FP32": Tolerance(1e-3, 1e-5),
    "FP16": Tolerance(1e-2, 1e-3),
    "BF16": Tolerance(2**-6, 1e-2),
}
"""By the output's datatype; all others must be equal."""
GPU_TOLERANCES = {**TOLERANCES, "FP32": Tolerance(1e-2, 1e-3)}


@dataclass(frozen=True)
class DataSetResults:
    """What was compared, and the largest difference between numbers that were close enough."""

    data_sets: int
    outputs: int
    largest_difference: float
    seconds: float


@dataclass(frozen=True)
class DataSet:
    """Files of one data set, in the order of their numbers."""

    name: str
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]


def check_test_data(
    model: Model, folder: Path, note: Note = ignore, tolerances: Mapping[str, Tolerance] | None = None
) -> DataSetResults:
    """Run each data set in ``folder`` and compare all its outputs.

    Without ``tolerances`` they are those of the CPU or of a GPU, by what runs the model. Raises
    :class:`FailedTestError` for the first output that differs, and for data that does not fit the model.
    """
    if tolerances is None:
        tolerances = GPU_TOLERANCES if model.assignment.accelerated else TOLERANCES
    started = time.perf_counter()
    data_sets = find_data_sets(folder)
    outputs, largest = 0, 0.0
    for number, data_set in enumerate(data_sets, 1):
        note(dataSet=data_set.name, number=number, dataSets=len(data_sets))
        for difference in _differences(model, data_set, tolerances):
            outputs += 1
            largest = max(largest, difference)
    result = DataSetResults(len(data_sets), outputs, largest, time.perf_counter() - started)
    fields = {
        "dataSets": result.data_sets,
        "outputs": outputs,
        "largestDifference": largest,
        "seconds": round(result.seconds, 6),
    }
    logger.info("the test data were answered as expected", extra={"fields": fields})
    return result


def find_data_sets(folder: Path) -> list[DataSet]:
    """List the data sets of ``folder``. Raises :class:`FailedTestError` where there is none, or a file is missing."""
    if not folder.is_dir():
        raise FailedTestError(f"the test data {folder} is not a folder")
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if len(entries) == 1 and entries[0].is_dir() and not _DATA_SET.fullmatch(entries[0].name):
        # The folder that a URI names, within the one that it was fetched to.
        return find_data_sets(entries[0])
    if any(_FILE.fullmatch(path.name) for path in folder.iterdir()):
        return [_data_set(folder)]
    found = [(int(m[1]), path) for path in folder.iterdir() if (m := _DATA_SET.fullmatch(path.name)) and path.is_dir()]
    if not found:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        raise FailedTestError(
            f"the test data holds neither input_0.pb and output_0.pb nor folders test_data_set_N; "
            f"it holds {', '.join(names[:_MAX_SHOWN]) or 'nothing'}"
        )
    return [_data_set(path) for _, path in sorted(found)]


def _data_set(folder: Path) -> DataSet:
    files: dict[str, dict[int, Path]] = {"input": {}, "output": {}}
    for path in folder.iterdir():
        if match := _FILE.fullmatch(path.name):
            files[match[1]][int(match[2])] = path
    for side, numbered in files.items():
        if missing := sorted(set(range(len(numbered))) - set(numbered)):
            raise FailedTestError(
                f"{folder.name}: {side}_{missing[0]}.pb is missing, {side}_{max(numbered)}.pb is there"
            )
    if not files["output"]:
        raise FailedTestError(f"{folder.name}: output_0.pb is missing")
    inputs, outputs = (tuple(numbered[n] for n in sorted(numbered)) for numbered in files.values())
    return DataSet(folder.name, inputs, outputs)


def inputs_of(model: Model, data_set: DataSet) -> dict[str, Any]:
    """The inputs of a data set, by name. Raises :class:`FailedTestError` where they do not fit the model."""
    required = [info for info in model.inputs if not info.optional]
    optional = [info for info in model.inputs if info.optional]
    feed = _named(data_set, data_set.inputs, [*required, *optional], "input")
    if missing := [info.name for info in required if info.name not in feed]:
        raise FailedTestError(
            f"{data_set.name} has no value for the model's input {', '.join(missing)}; "
            f"expected input_0.pb to input_{len(required) - 1}.pb"
        )
    return feed


def _differences(model: Model, data_set: DataSet, tolerances: Mapping[str, Tolerance]) -> Iterator[float]:
    feed = inputs_of(model, data_set)
    expected = _named(data_set, data_set.outputs, model.outputs, "output")
    try:
        results = model.run_plain(list(expected), feed)
    except RequestError as error:
        raise FailedTestError(f"{data_set.name}: {error.message}") from None
    for (name, wanted), got in zip(expected.items(), results, strict=True):
        datatype = model.output_by_name[name].datatype or ""
        try:
            yield compare(got, wanted, datatype, tolerances)
        except FailedTestError as error:
            raise FailedTestError(f"{data_set.name}: output {name} {error}") from None


def _named(data_set: DataSet, paths: Sequence[Path], infos: Sequence[TensorInfo], side: str) -> dict[str, Any]:
    """The values of files, by the names of the model's tensors: that in the file if the model has it, else in order."""
    by_name = {info.name: info for info in infos}
    values: dict[str, Any] = {}
    for position, path in enumerate(paths):
        shown = f"{data_set.name}/{path.name}"
        kind = _uncomparable(infos[position]) if position < len(infos) else ""
        try:
            tensor = _read(path, shown, infos[position] if position < len(infos) else None)
        except FailedTestError:
            if not kind:
                raise
            tensor = None
        found = by_name.get(tensor.name) if tensor else None
        if tensor is None or (found is None and kind):
            raise FailedTestError(f"{shown}: the model's {side} {kind}; only tensors can be compared")
        if found is None:
            if position >= len(infos):
                raise FailedTestError(f"{shown}: the model has only {len(infos)} {side}s: {_list(by_name)}")
            found = infos[position]
        if found.name in values:
            raise FailedTestError(f"{shown}: {side} {found.name} has a value already, from a file before")
        if tensor.datatype != found.datatype or not found.accepts(tensor.array.shape):
            raise FailedTestError(
                f"{shown} is {tensor.datatype} {show_shape(tensor.array.shape)}, but the model's {side} {found.name} "
                f"is {found.describe()}"
            )
        values[found.name] = tensor.array
    return values


def _uncomparable(info: TensorInfo) -> str:
    """Name and kind of what is no tensor that can be compared, else empty."""
    if info.datatype in DTYPES or info.datatype == "BF16":
        return ""
    return f"{info.name} is {info.datatype or info.onnx_type}"


def _read(path: Path, shown: str, info: TensorInfo | None) -> Tensor:
    """A file's tensor; where the model has scores of classes at this place, a sequence of maps is one as well."""
    try:
        content = path.read_bytes()
        try:
            return parse_tensor(content)
        except TensorError:
            if info is None or not info.classes:
                raise
            scores = parse_scores(content, info.classes)
            return Tensor(info.name, "FP32", scores if len(info.shape) > 1 else scores.reshape(-1))
    except TensorError as error:
        pointer = pointer_text(content)
        raise FailedTestError(f"{shown} is {pointer}" if pointer else f"{shown}: {error}") from None
    except OSError as error:
        raise FailedTestError(f"{shown} cannot be read: {error.strerror}") from None


def compare(got: Any, expected: Any, datatype: str, tolerances: Mapping[str, Tolerance]) -> float:
    """Return the largest difference of two arrays. Raises :class:`FailedTestError`, in words that follow a name."""
    if got.shape != expected.shape:
        raise FailedTestError(f"has shape {show_shape(got.shape)}, expected {show_shape(expected.shape)}")
    tolerance = tolerances.get(datatype)
    if tolerance is None:
        wrong = np.asarray(got != expected)
        if wrong.any():
            at = _index(int(np.argmax(wrong)), got.shape)
            raise FailedTestError(_mismatch(at, wrong, repr(_item(got, at)), repr(_item(expected, at)), "", datatype))
        return 0.0
    one, other = as_floats(got, datatype), as_floats(expected, datatype)
    with np.errstate(invalid="ignore"):
        # Equal infinities are close; what is finite on one side only differs without end.
        difference = np.where((one == other) | (np.isnan(one) & np.isnan(other)), 0.0, np.abs(one - other))
    difference = np.asarray(np.nan_to_num(difference, nan=np.inf, posinf=np.inf))
    allowed = tolerance.absolute + tolerance.relative * np.abs(np.where(np.isfinite(other), other, 0.0))
    wrong = np.asarray(difference > allowed)
    if wrong.any():
        at = _index(int(np.argmax(np.where(wrong, difference, -1.0))), got.shape)
        limits = f" (by {difference[at]:.6g}; allowed is {allowed[at]:.6g})"
        raise FailedTestError(_mismatch(at, wrong, f"{one[at]:.7g}", f"{other[at]:.7g}", limits, datatype))
    return float(difference.max(initial=0.0))


def _mismatch(at: tuple[int, ...], wrong: Any, got: str, expected: str, limits: str, datatype: str) -> str:
    where = f" at {list(at)}" if at else ""
    count = f"; {int(wrong.sum())} of {wrong.size} {datatype} elements differ" if wrong.size > 1 else ""
    return f"is {got[:100]}{where}, expected {expected[:100]}{limits}{count}"


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(position) for position in np.unravel_index(flat, shape))


def _item(array: Any, at: tuple[int, ...]) -> Any:
    found = array[at]
    return found.item() if isinstance(found, np.generic) else found


def _list(names: Mapping[str, object]) -> str:
    shown = ", ".join(list(names)[:_MAX_SHOWN])
    return shown + (f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else "")
