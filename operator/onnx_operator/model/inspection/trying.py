"""The runtime in the process that forks, and how its children ask it."""

from collections.abc import Callable
from pathlib import Path

from onnx_operator.api.capabilities import Capabilities, load_capabilities
from onnx_operator.model.inspection import sandbox
from onnx_operator.model.reading.folder import Folder, beside
from onnx_operator.model.reading.skeleton import Skeleton
from onnx_operator.model.trial.asking import ask
from onnx_operator.model.trial.runtime import Answer, OnnxRuntime, Runtime
from onnx_operator.model.trial.standins import ZEROS

_MAPPED_TIMES = 4
"""Of the largest model: how much of the file may be mapped at a time. Weights may share their values in a file."""


class RuntimeTrial:
    """The runtime, or why there is none."""

    def __init__(self, runtime: Runtime | None, why: str = "", zeros: Path | None = None) -> None:
        self.runtime = runtime
        self.why = why
        self.zeros = zeros
        self.mapped_bytes = _MAPPED_TIMES * zeros.stat().st_size if zeros is not None else 0
        self._serving = load_capabilities()

    @classmethod
    def prepare(cls, folder: str) -> "RuntimeTrial":
        """Import the runtime, where ``folder`` holds the file of zeros and the kernel can keep children to it."""
        if not folder:
            return cls(None, "there is no place for its stand-ins")
        if not sandbox.can_open_one_file():
            return cls(None, "this kernel has no Landlock to hold it")
        try:
            return cls(OnnxRuntime(folder), zeros=Path(folder) / ZEROS)
        except ImportError:
            return cls(None, "onnxruntime is not installed")

    def bound_to(
        self, trying: Callable[[bool], None] = lambda begins: None, capabilities: Capabilities | None = None
    ) -> Callable[[Skeleton, Folder, str], Answer]:
        """Ask for a runtime of these capabilities; ``trying`` hears when it begins and when it ends."""

        def trial(skeleton: Skeleton, folder: Folder, name: str) -> Answer:
            if self.runtime is None:
                return Answer(None, self.why)
            if capabilities != self._serving or self._serving.onnx_runtime_version != self.runtime.version:
                return Answer(None, f"another one than ONNX Runtime {self.runtime.version} for the CPU serves it")
            trying(True)
            answer = ask(self.runtime, skeleton, folder, name, beside(name), sandbox.mapping)
            trying(False)
            return answer

        return trial
