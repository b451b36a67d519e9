"""What the data plane needs of a loaded model; keeps ONNX Runtime out of its imports."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from onnx_operator.server.dataplane.call import Call
from onnx_operator.server.dataplane.tensors import TensorInfo


class ServedModel(Protocol):
    """A model that can be run from several threads; see :class:`onnx_operator.server.runtime.session.Model`."""

    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    input_by_name: dict[str, TensorInfo]
    output_by_name: dict[str, TensorInfo]

    @property
    def categories(self) -> Mapping[str, Mapping[int, frozenset[int] | frozenset[str]]]:
        """By input and column: what it may hold, where the graph fails on all else."""

    def run(self, outputs: Sequence[str], feed: Mapping[str, Any], call: Call) -> list[Any]:
        """Compute the named outputs; ``call`` can stop it."""

    def run_plain(self, outputs: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """Compute the named outputs; cannot be stopped, and costs less."""
