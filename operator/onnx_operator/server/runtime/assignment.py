"""Which execution provider computes which operators, and why the CPU does where a GPU was asked for.

The truth is ONNX Runtime's own assignment of nodes. What it does not tell is the cause; that is found by looking at
what the build holds, and by starting a provider that did not come up once more in a process of its own, whose output
can be read: ONNX Runtime tells such trouble to its log only.

What counts as fallback is every operator that the CPU computes, except shape computations beside a GPU that works:
ONNX Runtime keeps these on the CPU on purpose, where the sizes are needed.
"""

import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from onnx_operator.server.runtime.failures import FallbackError

logger = logging.getLogger(__name__)

PROVIDERS = {
    "CPU": "CPUExecutionProvider",
    "CUDA": "CUDAExecutionProvider",
    "TensorRT": "TensorrtExecutionProvider",
}
"""ONNX Runtime's names of the execution providers that may be asked for."""
CPU = PROVIDERS["CPU"]

NOT_IN_BUILD = "it is not part of this build of ONNX Runtime"
NO_KERNEL = "it has no kernel for these operators with these types"

_SHAPE_OPERATORS = (
    frozenset({"Cast", "Concat", "ConstantOfShape", "Expand", "Gather", "Identity", "Range", "Reshape", "Shape"})
    | frozenset({"Size", "Slice", "Squeeze", "Unsqueeze", "Where", "Add", "Sub", "Mul", "Div", "Mod", "ReduceProd"})
    | frozenset({"Equal", "Greater", "Less", "Max", "Min"})
)
"""Arithmetic of shapes. CUDA has kernels for all of them; on the CPU they are ONNX Runtime's choice
(``GetCpuPreferredNodes``, as it says of itself in the log: nodes that compute shapes)."""

_START_SECONDS = 60.0
_START = """
import sys, onnxruntime as ort
if hasattr(ort, "preload_dlls"):
    ort.preload_dlls()
session = ort.InferenceSession(sys.stdin.buffer.read(), providers=[sys.argv[1]])
"""
_LIBRARY = re.compile(r"Failed to load library \S{0,300}?([^/\s]{1,100}\.(?:so|dll)\S{0,100}) with error: (.+)")
_FAILURE = re.compile(r"(?:CUDA|CUDNN|CUBLAS|TensorRT|TRT) (?:failure|error).*", re.IGNORECASE)
_EP_ERROR = re.compile(r"EP Error (?:/\S{1,300}:\d{1,6} [^()]{0,300}\([^()]{0,300}\) )?([^*\s].*)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_MAX_CAUSE_LENGTH = 400


class _Node(Protocol):
    domain: str
    op_type: str


class _Subgraph(Protocol):
    ep_name: str

    def get_nodes(self) -> Sequence[_Node]:
        """List the nodes that were assigned together."""


@dataclass(frozen=True)
class Assignment:
    """Which providers compute the nodes, by ONNX Runtime's names.

    ``fallback_operators`` (``Op``, ``domain.Op``) is what the CPU computes though a GPU was asked for, and
    ``causes`` says why, by provider asked for. ``kept_on_cpu`` are shape computations, which are no fallback.
    """

    providers: list[str] = field(default_factory=lambda: [CPU])
    fallback_operators: list[str] = field(default_factory=list)
    causes: dict[str, str] = field(default_factory=dict)
    kept_on_cpu: list[str] = field(default_factory=list)
    operators: frozenset[str] = frozenset()
    """All operators that are computed, those of subgraphs too."""

    @property
    def accelerated(self) -> bool:
        """Whether anything runs outside the CPU."""
        return any(provider != CPU for provider in self.providers)

    def explain(self) -> str:
        """What fell back and why, in a sentence; empty where nothing did."""
        if not self.causes:
            return ""
        causes = "; ".join(f"{provider}: {cause}" for provider, cause in self.causes.items())
        return f"the CPU computes {', '.join(self.fallback_operators) or 'everything'} ({causes})"


def read_assignment(
    subgraphs: Iterable[_Subgraph],
    *,
    wanted: Sequence[str],
    available: Sequence[str],
    started: Sequence[str],
    start_error: Callable[[str], str],
) -> Assignment:
    """Make the assignment of what ``get_provider_graph_assignment_info`` returned.

    All providers by ONNX Runtime's names: those ``wanted``, those ``available`` in the build, those that the session
    ``started``. ``start_error`` is asked for the cause only where one did not start.
    """
    providers: dict[str, None] = {}
    on_cpu: set[str] = set()
    operators: set[str] = set()
    for subgraph in subgraphs:
        names = {f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in subgraph.get_nodes()}
        if names:
            providers[subgraph.ep_name] = None
        operators |= names
        if subgraph.ep_name == CPU:
            on_cpu |= names
    # A graph without nodes (all folded into constants) is copied out by the CPU.
    found = list(providers) or [CPU]
    gpus = [name for name in wanted if name != CPU]
    if not gpus or (not on_cpu and found != [CPU]):
        return Assignment(found, operators=frozenset(operators))
    kept = on_cpu & _SHAPE_OPERATORS if found != [CPU] else set()
    fallen = on_cpu - kept
    causes: dict[str, str] = {}
    for name in gpus if fallen or found == [CPU] else ():
        if name not in available:
            causes[name] = NOT_IN_BUILD
        elif name not in started:
            causes[name] = f"it could not start: {start_error(name)}"
        else:
            causes[name] = NO_KERNEL
    return Assignment(found, sorted(fallen), causes, sorted(kept), frozenset(operators))


def check_fallback(assignment: Assignment, wanted: Sequence[str]) -> None:
    """Raise :class:`FallbackError` where a GPU provider is ``wanted`` and the CPU computes operators instead.

    These are the cases in which the resource's condition ``Accelerated`` is False.
    """
    if all(name == CPU for name in wanted) or (assignment.accelerated and not assignment.fallback_operators):
        return
    raise FallbackError(f"a GPU was asked for, but {assignment.explain()}; spec.session.onFallback: Fail forbids that")


def start_error(provider: str, model: bytes) -> str:
    """Start ``provider`` with a tiny ``model`` in a process of its own and return what it says of its failure."""
    try:
        done = subprocess.run(  # noqa: S603 - our own program in our own interpreter
            [sys.executable, "-W", "error::UserWarning", "-c", _START, provider],
            input=model,
            capture_output=True,
            timeout=_START_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the cause is not known ({error})"
    return cause_in((done.stderr + b"\n" + done.stdout).decode(errors="replace"))


def cause_in(log: str) -> str:
    """The cause in what ONNX Runtime logged while a provider failed to start."""
    text = _COLOURS.sub("", log)
    if match := _LIBRARY.search(text):
        cause = f"{match[1]} cannot be loaded: {match[2]}"
    elif (match := _FAILURE.search(text)) or (match := _EP_ERROR.search(text)):
        cause = match[match.lastindex or 0]
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        cause = lines[-1] if lines else "it did not say why"
    return " ".join(cause.split())[:_MAX_CAUSE_LENGTH]
