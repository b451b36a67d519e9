"""What the page is told of the model. Pure."""

from collections.abc import Sequence
from typing import Any

from onnx_operator import __version__
from onnx_operator.server.dataplane.tensors import DTYPES, TensorInfo


def facts(
    name: str,
    version: str,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    providers: Sequence[str],
    *,
    scripted: bool,
) -> dict[str, Any]:
    """The document at ``/page/facts.json``; sizes that the model leaves open are their names, or null."""
    return {
        "name": name,
        "version": version,
        "server": f"onnx-operator {__version__}",
        "providers": list(providers),
        "scripted": scripted,
        "inputs": [_tensor(info) for info in inputs],
        "outputs": [_tensor(info) for info in outputs],
    }


def _tensor(info: TensorInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "datatype": info.onnx_type if info.classes else info.datatype or info.onnx_type,
        "json": info.datatype in DTYPES and not info.classes,
        "shape": list(info.shape),
        "optional": info.optional,
    }
