"""ONNX Runtime, loading what it is given from memory: without threads of its own, files but one, or optimizations."""

import re
from dataclasses import dataclass
from typing import Any, Protocol

from onnx_operator.common.text import visible

_MAX_WORDS = 600
"""Characters of what the runtime says that are shown."""
_MAX_FOLDED = str(64 << 10)
"""Bytes of a constant that is computed: sizes have few, and weights are not to be made of a model's few bytes."""
_ROOM = re.compile(r"bad_alloc|bad alloc|Cannot allocate memory|[Ff]ailed to allocate|mmap of ", re.ASCII)
"""What the runtime says where it was given too little memory: that is about us, not about the model."""
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_SOURCE_PLACE = re.compile(
    r"(?:/\S{1,300}?|\b\w{1,100})\.(?:h|hpp|cc|cpp|cuh?):\d{1,6} "
    r"(?:[\w:<>&*, ]{1,300}\([^()]{0,300}\)(?: const)? )?"
)

_TEMPLATE = re.compile(r"\[with [^\]]{0,300}\] ?|Exception during initialization: ")


@dataclass(frozen=True)
class Declared:
    """An input or output, as the runtime describes it."""

    name: str
    kind: str
    """In ONNX's notation."""
    shape: tuple[int | str | None, ...]
    """Empty also for a tensor of unknown rank, and for what is no tensor."""


@dataclass(frozen=True)
class Answer:
    """What the runtime makes of a model."""

    loads: bool | None
    """None: it could not be asked, or lacked room."""
    words: str = ""
    """Its own, where it does not load; fit to be shown."""
    unimplemented: bool = False
    """Whether it says that it has no kernel."""
    interface: tuple[Declared, ...] = ()
    """Inputs and outputs of what it loads."""


class Runtime(Protocol):
    """What loads models in the place of the server."""

    version: str

    def load(self, model: bytes, mapped: list[int], *, folded: bool = False) -> Answer:
        """Load a model whose stand-ins map so many bytes each; raises MemoryError.

        ``folded``: with what is computed from constants alone computed, which tells more of the outputs' shapes.
        """


class OnnxRuntime:
    """The ONNX Runtime of this process. Raises ImportError where there is none.

    ``folder`` holds the file of zeros. Import it with ``ORT_DISABLE_TELEMETRY`` and ``OPENBLAS_NUM_THREADS`` set to 1
    in the environment, or it brings threads of its own, which no fork survives.
    """

    def __init__(self, folder: str) -> None:
        import onnxruntime

        self._ort: Any = onnxruntime
        self._folder = folder
        self.version = str(onnxruntime.__version__)

    def load(self, model: bytes, mapped: list[int], *, folded: bool = False) -> Answer:
        """Load without optimizations; where that is refused, with those that compute nothing."""
        levels = self._ort.GraphOptimizationLevel
        if folded:
            return self._attempt(model, levels.ORT_ENABLE_BASIC, set())
        first = self._attempt(model, levels.ORT_DISABLE_ALL, set())
        if first.loads is not False:
            return first
        second = self._attempt(model, levels.ORT_ENABLE_BASIC, {"ConstantFolding"})
        # What lacked room the second time was not judged: the first refusal may be one of what the second cures.
        return first if second.loads is False else second

    def _attempt(self, model: bytes, level: Any, without: set[str]) -> Answer:
        ort = self._ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.graph_optimization_level = level
        options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", _MAX_FOLDED)
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", self._folder)
        try:
            # The class around it would write to the standard output, and load again elsewhere.
            session = ort.capi.onnxruntime_pybind11_state.InferenceSession(options, model, False, False)
            session.initialize_session(["CPUExecutionProvider"], [{}], without)
            found = tuple(map(_declared, (*session.inputs_meta, *session.outputs_meta)))
        except MemoryError:
            return Answer(None, "it had too little memory")
        except Exception as error:
            text = str(error)
            if _ROOM.search(text):
                return Answer(None, "it had too little memory")
            return Answer(False, words_of(text), type(error).__name__ == "NotImplemented")
        return Answer(True, interface=found)


def _declared(arg: Any) -> Declared:
    return Declared(arg.name, arg.type, tuple(arg.shape))


def words_of(text: str) -> str:
    """The runtime's message, without its status code and source positions, on one line that steers no terminal."""
    shown = visible(" ".join(_TEMPLATE.sub("", _SOURCE_PLACE.sub("", _PREFIX.sub("", text.strip()[:8192]))).split()))
    return shown if len(shown) <= _MAX_WORDS else shown[:_MAX_WORDS] + "…"
