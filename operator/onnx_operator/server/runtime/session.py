"""A model in ONNX Runtime: loading it, what it takes and gives, and running it."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime as ort

from onnx_operator.server.dataplane.call import Call, Cancelled
from onnx_operator.server.dataplane.tensors import TensorInfo, datatype_of
from onnx_operator.server.errors import RequestError

logger = logging.getLogger(__name__)

PROVIDERS = {
    "CPU": "CPUExecutionProvider",
    "CUDA": "CUDAExecutionProvider",
    "TensorRT": "TensorrtExecutionProvider",
}
"""ONNX Runtime's names of the execution providers that may be asked for."""
CPU = PROVIDERS["CPU"]

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_SOURCE_PLACE = re.compile(r"(?:/\S+?|\b\w+)\.(?:h|hpp|cc|cpp|cuh?):\d+ (?:[\w:<>&*, ]+\([^()]*\)(?: const)? )?")


@dataclass(frozen=True)
class SessionSettings:
    """How to load: execution providers in order of preference (keys of ``PROVIDERS``), and threads."""

    providers: tuple[str, ...] = ("CPU",)
    intra_op_threads: int = 1
    inter_op_threads: int = 1


@dataclass(frozen=True)
class Assignment:
    """Which providers run the nodes, and which operators (``Op``, ``domain.Op``) the CPU took over."""

    providers: list[str] = field(default_factory=list)
    fallback_operators: list[str] = field(default_factory=list)


class LoadError(Exception):
    """The model cannot be served; the text names the cause as ONNX Runtime tells it."""


class Model:
    """A loaded model. ``run`` may be called from several threads at once."""

    def __init__(self, session: ort.InferenceSession, assignment: Assignment) -> None:
        self.session = session
        self.assignment = assignment
        self.inputs = [_info(arg) for arg in session.get_inputs()]
        self.inputs += [_info(arg, optional=True) for arg in session.get_overridable_initializers()]
        self.outputs = [_info(arg) for arg in session.get_outputs()]
        self.input_by_name = {info.name: info for info in self.inputs}
        self.output_by_name = {info.name: info for info in self.outputs}

    def run(self, outputs: Sequence[str], feed: Mapping[str, Any], call: Call) -> list[Any]:
        """Compute ``outputs`` (names): arrays, or lists and dicts for sequences and maps.

        Raises :class:`RequestError`: 400 where ONNX Runtime blames an argument, 500 otherwise;
        :class:`~onnx_operator.server.dataplane.call.Cancelled` once ``call`` was given up.
        """
        options = ort.RunOptions()

        def stop() -> None:
            options.terminate = True

        call.begin(stop)
        try:
            results: list[Any] = self.session.run(list(outputs), dict(feed), options)
        except UnicodeDecodeError:
            raise RequestError(
                "an output holds a string that is not UTF-8, which cannot be returned as JSON", 500
            ) from None
        except Exception as error:
            # ONNX Runtime's exceptions have no common base.
            if call.cancelled:
                raise Cancelled from None
            if type(error).__name__ == "InvalidArgument":
                raise RequestError(f"the model refused the inputs: {explain(error)}") from None
            raise RequestError(f"the model failed on these inputs: {explain(error)}", 500) from None
        return results


def load(path: Path, settings: SessionSettings) -> Model:
    """Load the model at ``path``. Raises :class:`LoadError`.

    A provider that is not there, or does not start, is not an error here: the CPU takes over, and
    :class:`Assignment` tells.
    """
    wanted = [PROVIDERS[name] for name in settings.providers]
    available = ort.get_available_providers()
    for name in wanted:
        if name not in available:
            logger.warning("%s is not part of this build of ONNX Runtime; the CPU takes over", name)
    usable = [name for name in wanted if name in available and name != CPU] + [CPU]

    if usable != [CPU]:
        # CUDA and cuDNN come as packages beside ONNX Runtime, where the loader does not look by itself.
        ort.preload_dlls()

    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = settings.inter_op_threads
    if settings.inter_op_threads > 1:
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = ort.InferenceSession(str(path), options, providers=usable)
    except Exception as error:
        raise LoadError(explain(error)) from None
    # Later trouble with a device must surface as an error, not as a silent reload on the CPU.
    session.disable_fallback()
    return Model(session, _assignment(session, accelerated=any(name != CPU for name in wanted)))


def explain(error: BaseException) -> str:
    """ONNX Runtime's message without its status code and source positions."""
    text = _SOURCE_PLACE.sub("", _PREFIX.sub("", str(error).strip()))
    return " ".join(text.split()) or type(error).__name__


def _assignment(session: ort.InferenceSession, *, accelerated: bool) -> Assignment:
    providers: dict[str, None] = {}
    on_cpu: set[str] = set()
    for subgraph in session.get_provider_graph_assignment_info():
        nodes = subgraph.get_nodes()
        if nodes:
            providers[subgraph.ep_name] = None
        if subgraph.ep_name == CPU:
            on_cpu |= {f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in nodes}
    # A graph without nodes (all folded into constants) is copied out by the CPU.
    return Assignment(list(providers) or [CPU], sorted(on_cpu) if accelerated else [])


def _info(arg: Any, *, optional: bool = False) -> TensorInfo:
    shape = tuple(None if size is None or (isinstance(size, int) and size < 0) else size for size in arg.shape)
    return TensorInfo(arg.name, arg.type, datatype_of(arg.type), shape, optional)
