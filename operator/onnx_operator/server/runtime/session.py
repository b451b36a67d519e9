"""A model in ONNX Runtime: loading it, what it takes and gives, and running it."""

import ctypes
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from onnx_operator.model.batching.kernels import kernels_here
from onnx_operator.model.batching.proof import Proof, prove
from onnx_operator.model.batching.reading import UnreadableError, read_model
from onnx_operator.model.elements import RAW_NAMES
from onnx_operator.model.reading.zipmaps import Classes
from onnx_operator.server.dataplane.call import Call, Cancelled
from onnx_operator.server.dataplane.tensors import BITS, TensorInfo, datatype_of
from onnx_operator.server.errors import RequestError
from onnx_operator.server.runtime.assignment import (
    CPU,
    PROVIDERS,
    Assignment,
    check_fallback,
    read_assignment,
    start_error,
)
from onnx_operator.server.runtime.categories import Categories, find_categories
from onnx_operator.server.runtime.failures import LoadError
from onnx_operator.server.runtime.malloc import loading_memory
from onnx_operator.server.runtime.zipmaps import served_form

__all__ = ["CPU", "PROVIDERS", "Assignment", "LoadError", "Model", "SessionSettings", "explain", "load"]

logger = logging.getLogger(__name__)

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
# Bounded runs: messages repeat texts of models and callers, which must not make looking through them quadratic.
_SOURCE_PLACE = re.compile(
    r"(?:/\S{1,300}?|\b\w{1,100})\.(?:h|hpp|cc|cpp|cuh?):\d{1,6} "
    r"(?:[\w:<>&*, ]{1,300}\([^()]{0,300}\)(?: const)? )?"
)
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
_SILENT = 4
_ELEMENTS = {name: number for number, name in RAW_NAMES.items()}
"""ONNX Runtime prints names of nodes as they are, escapes of a terminal included; what it means it raises as well."""


@dataclass(frozen=True)
class SessionSettings:
    """How to load: execution providers in order of preference (keys of ``PROVIDERS``), and threads.

    With ``fail_on_fallback`` a model is refused of which the CPU computes what a GPU was asked for.
    """

    providers: tuple[str, ...] = ("CPU",)
    intra_op_threads: int = 1
    inter_op_threads: int = 1
    fail_on_fallback: bool = False


# What a run refuses comes back as an exception, which the log tells.
ort.set_default_logger_severity(_SILENT)


class Model:
    """A loaded model. ``run`` and ``run_plain`` may be called from several threads at once.

    Types that numpy does not have (BF16, floats of 8 bits) are carried as their bits in unsigned integers, in both
    directions.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        assignment: Assignment,
        path: Path | None = None,
        classes: Mapping[str, Classes] | None = None,
    ) -> None:
        """``classes``: the outputs that are tensors here and sequences of maps in the file, with their labels."""
        self.session = session
        self.path = path
        self.assignment = assignment
        self.inputs = [_info(arg) for arg in session.get_inputs()]
        self.inputs += [_info(arg, optional=True) for arg in session.get_overridable_initializers()]
        self.outputs = [_with_classes(_info(arg), classes or {}) for arg in session.get_outputs()]
        self.input_by_name = {info.name: info for info in self.inputs}
        self.output_by_name = {info.name: info for info in self.outputs}
        self._bit_inputs = {info.name: _ELEMENTS[info.datatype] for info in self.inputs if info.datatype in _ELEMENTS}
        self._bit_outputs = frozenset(info.name for info in self.outputs if info.datatype in _ELEMENTS)
        # The Python wrapper around it checks on each call again what the data plane has checked: 0.8 µs.
        self._session = session._sess
        self._compute = self._run_bits if self._bit_inputs or self._bit_outputs else self._session.run

    def fill_up(self) -> None:
        """Take fewer rows than the fixed number as well: whoever runs it then fills them up."""
        self.inputs = [info if info.optional else replace(info, filled_up=True) for info in self.inputs]
        self.input_by_name = {info.name: info for info in self.inputs}

    @cached_property
    def categories(self) -> Categories:
        """What inputs may hold where the graph fails on all else; read from the file when it is first asked for."""
        if self.path is None or "ai.onnx.ml.OneHotEncoder" not in self.assignment.operators:
            return {}
        return find_categories(self.path, self.inputs)

    def prove_rows(self, most_rows: int) -> Proof:
        """Look in the file whether rows of a batch may meet, on what computes here: a few milliseconds.

        At most ``most_rows`` share a run.
        """
        if self.path is None:
            return Proof("Unproven", reason="its file is not at hand")
        try:
            structure = read_model(self.path)
        except UnreadableError as error:
            return Proof("Unproven", reason=str(error))
        return prove(structure, kernels_here(accelerated=self.assignment.accelerated, most_rows=most_rows))

    def run(self, outputs: Sequence[str], feed: Mapping[str, Any], call: Call) -> list[Any]:
        """Compute ``outputs`` (names): arrays, or lists and dicts for sequences and maps.

        Raises :class:`RequestError`: 400 where ONNX Runtime blames an argument, 500 otherwise;
        :class:`~onnx_operator.server.dataplane.call.Cancelled` once ``call`` was given up.
        """
        options = ort.RunOptions()
        options.log_severity_level = _SILENT

        def stop() -> None:
            options.terminate = True

        call.begin(stop)
        try:
            results: list[Any] = self._compute(outputs, feed, options)
        except Exception as error:
            if call.cancelled:
                raise Cancelled from None
            raise _refusal(error) from None
        return results

    def run_plain(self, outputs: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """Compute as :meth:`run` does, without a way to stop: for runs that are shorter than stopping them."""
        try:
            results: list[Any] = self._compute(outputs, feed, None)
        except Exception as error:
            raise _refusal(error) from None
        return results

    def _run_bits(self, outputs: Sequence[str], feed: Mapping[str, Any], options: ort.RunOptions | None) -> list[Any]:
        # The values point into the arrays of the feed, which lives until this returns.
        values = {
            name: _from_bits(value, self._bit_inputs[name])
            if name in self._bit_inputs and not isinstance(value, ort.OrtValue)
            else value
            for name, value in feed.items()
        }
        if self._bit_outputs.isdisjoint(outputs):
            plain: list[Any] = self._session.run(outputs, values, options)
            return plain
        wrapped = {name: _ort_value(name, value) for name, value in values.items()}
        found = self._session.run_with_ort_values({n: v._get_c_value() for n, v in wrapped.items()}, outputs, options)
        return [_to_array(name, value) for name, value in zip(outputs, found, strict=True)]


def load(path: Path, settings: SessionSettings) -> Model:
    """Load the model at ``path``. Raises :class:`LoadError`, and with ``fail_on_fallback`` :class:`FallbackError`.

    Otherwise a provider that is not there, or does not start, is not an error here: the CPU takes over, and
    :class:`Assignment` tells. Sequences of maps from class to score are loaded as tensors where the graph allows it.
    """
    with served_form(path) as (file, classes):
        if classes:
            try:
                return _load(path, settings, file, classes)
            except LoadError as error:
                # As its author made it, then.
                logger.warning("class scores stay sequences of maps: %s", error)
    return _load(path, settings, path, {})


def _load(path: Path, settings: SessionSettings, file: Path, classes: Mapping[str, Classes]) -> Model:
    """Load ``file``, which is the model at ``path`` or made of it."""
    wanted = [PROVIDERS[name] for name in settings.providers]
    available = ort.get_available_providers()
    usable = [name for name in wanted if name in available and name != CPU] + [CPU]

    if usable != [CPU]:
        # CUDA and cuDNN come as packages beside ONNX Runtime, where the loader does not look by itself.
        ort.preload_dlls()

    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = settings.inter_op_threads
    if settings.inter_op_threads > 1:
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.log_severity_level = _SILENT
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if file != path:
        options.add_session_config_entry(_EXTERNAL_FOLDER, str(path.parent))
    session = _session(file, options, usable)
    # Later trouble with a device must surface as an error, not as a silent reload on the CPU.
    session.disable_fallback()
    assignment = read_assignment(
        session.get_provider_graph_assignment_info(),
        wanted=wanted,
        available=available,
        started=session.get_providers(),
        start_error=_start_error,
    )
    if settings.fail_on_fallback:
        check_fallback(assignment, wanted)
    if assignment.causes:
        fields = {"fallbackOperators": assignment.fallback_operators, "causes": assignment.causes}
        logger.warning("the CPU takes over what a GPU was asked for", extra={"fields": fields})
    return Model(session, assignment, path, classes)


def _session(path: Path, options: ort.SessionOptions, providers: list[str]) -> ort.InferenceSession:
    """Load, and where an optimization is what fails, with fewer of them. Raises :class:`LoadError` of the first try."""
    levels = ort.GraphOptimizationLevel
    lower: list[tuple[Any, list[str]]] = [(levels.ORT_ENABLE_BASIC, ["ConstantFolding"]), (levels.ORT_DISABLE_ALL, [])]
    try:
        with loading_memory():
            return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        first = LoadError(explain(error))
    for level, disabled in lower:
        options.graph_optimization_level = level
        try:
            with loading_memory():
                session = ort.InferenceSession(str(path), options, providers=providers, disabled_optimizers=disabled)
        except Exception as error:
            logger.debug("fewer optimizations do not help: %s", explain(error))
            continue
        logger.warning("the model loads with fewer optimizations only", extra={"fields": {"why": str(first)}})
        return session
    raise first


def explain(error: BaseException) -> str:
    """ONNX Runtime's message without its status code and source positions."""
    text = _SOURCE_PLACE.sub("", _PREFIX.sub("", str(error).strip()))
    return " ".join(text.split()) or type(error).__name__


def _refusal(error: Exception) -> RequestError:
    # ONNX Runtime's exceptions have no common base.
    if isinstance(error, RequestError):
        return error
    if isinstance(error, UnicodeDecodeError):
        return RequestError("an output holds a string that is not UTF-8, which cannot be returned", 500)
    if type(error).__name__ == "InvalidArgument":
        return RequestError(f"the model refused the inputs: {explain(error)}")
    return RequestError(f"the model failed on these inputs: {explain(error)}", 500)


def _start_error(provider: str) -> str:
    from onnx_operator.server.runtime.capabilities import identity_model

    return start_error(provider, identity_model(8, [("", 13)]))


def _from_bits(array: Any, element: int) -> ort.OrtValue:
    contiguous = array if array.flags.c_contiguous else array.copy()
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(contiguous, element)


def _ort_value(name: str, value: Any) -> ort.OrtValue:
    if isinstance(value, ort.OrtValue):
        return value
    if not isinstance(value, np.ndarray) or value.dtype.hasobject:
        raise RequestError(
            f"input {name}: ONNX Runtime's Python interface cannot return BF16 or FP8 outputs of a model that also "
            "takes strings, sequences or maps; ask for the other outputs only",
            500,
        )
    return ort.OrtValue.ortvalue_from_numpy(value if value.flags.c_contiguous else value.copy())


def _to_array(name: str, value: Any) -> Any:
    if not value.is_tensor():
        raise RequestError(
            f"output {name}: ONNX Runtime's Python interface cannot return sequences and maps together with BF16 "
            "or FP8 outputs; ask for them apart",
            500,
        )
    datatype = RAW_NAMES.get(value.element_type())
    if datatype is None:
        return value.numpy()
    bits = np.empty(value.shape(), BITS[datatype])
    if bits.nbytes:
        ctypes.memmove(bits.ctypes.data, value.data_ptr(), bits.nbytes)
    return bits


def _with_classes(info: TensorInfo, classes: Mapping[str, Classes]) -> TensorInfo:
    labels = classes.get(info.name)
    if labels is None:
        return info
    # ZipMap takes a row of scores for each class, or a list of rows.
    shape = (*(info.shape or (None, None))[:-1], len(labels))
    if info.shape and info.shape[-1] not in (None, len(labels)) and isinstance(info.shape[-1], int):
        raise LoadError(f"output {info.name} has {info.shape[-1]} scores for {len(labels)} classes")
    key = "string" if isinstance(labels[0], str) else "int64"
    return replace(info, onnx_type=f"seq(map({key},tensor(float)))", shape=shape, classes=labels)


def _info(arg: Any, *, optional: bool = False) -> TensorInfo:
    shape = tuple(None if size is None or (isinstance(size, int) and size < 0) else size for size in arg.shape)
    return TensorInfo(arg.name, arg.type, datatype_of(arg.type), shape, optional)
