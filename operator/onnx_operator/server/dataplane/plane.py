"""The Open Inference Protocol v2 as functions from JSON objects to JSON objects, whatever the transport.

Calls block while the model runs: transports make them from a worker thread.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnx_operator import __version__
from onnx_operator.server.dataplane.call import Call
from onnx_operator.server.dataplane.model import ServedModel
from onnx_operator.server.dataplane.tensors import DTYPES, Array, TensorInfo, decode, encode, show_shape
from onnx_operator.server.errors import RequestError, quote

Json = dict[str, Any]


class DataPlane:
    """Answers protocol requests for one model, once it is there.

    ``name`` and ``version`` are what requests call it; an empty version means that it has none.
    """

    def __init__(self, name: str, version: str = "") -> None:
        self.name = name
        self.version = version
        self._model: ServedModel | None = None

    @property
    def model(self) -> ServedModel:
        """The loaded model. Raises :class:`RequestError` (503) before that."""
        if self._model is None:
            raise RequestError(f"model {self.name} is still loading", 503)
        return self._model

    def attach(self, model: ServedModel) -> None:
        """Serve ``model`` from now on."""
        self._model = model

    def check_name(self, name: str, version: str | None = None) -> None:
        """Raise :class:`RequestError` (404) unless this is the model, naming the one that is served."""
        served = f"model {self.name}" + (f" version {self.version}" if self.version else " (without versions)")
        if name != self.name:
            raise RequestError(f"unknown model {quote(name)}; this server serves {served}", 404)
        if version is not None and version != self.version:
            raise RequestError(f"unknown version {quote(version)}; this server serves {served}", 404)

    def server_metadata(self) -> Json:
        """Describe the server."""
        return {"name": "onnx-operator", "version": __version__, "extensions": []}

    def model_metadata(self) -> Json:
        """Describe the model's tensors, not its sequences and maps; symbolic and unknown sizes are -1."""
        return {
            "name": self.name,
            "versions": [self.version] if self.version else [],
            "platform": "onnx_onnxv1",
            "inputs": [_metadata(info) for info in self.model.inputs if info.datatype],
            "outputs": [_metadata(info) for info in self.model.outputs if info.datatype],
        }

    def infer(self, request: Json, call: Call) -> Json:
        """Answer an inference request. Raises :class:`RequestError`.

        Without ``outputs`` all tensors are returned; the protocol has no form for sequences and maps.
        """
        model = self.model
        request_id = request.get("id")
        if request_id is not None and not isinstance(request_id, str):
            raise RequestError(f'"id" must be a string, got {quote(request_id)}')
        names = _chosen_outputs(model, request.get("outputs"))
        feed = _feed(model, request.get("inputs"))
        results = compute(model, names, feed, call)
        response: Json = {"model_name": self.name}
        if self.version:
            response["model_version"] = self.version
        if request_id is not None:
            response["id"] = request_id
        response["outputs"] = [
            _output(model.output_by_name[name], np.asarray(result)) for name, result in zip(names, results, strict=True)
        ]
        return response


def compute(model: ServedModel, outputs: Sequence[str], feed: Mapping[str, Any], call: Call) -> list[Any]:
    """Run the model. Raises :class:`RequestError`; 400 where inputs disagree on the size of a dimension.

    ONNX Runtime does not compare sizes that a model calls the same, and many models can do with different ones: only
    when the run fails is the caller told of them.
    """
    try:
        return model.run(outputs, feed, call)
    except RequestError as error:
        sizes: dict[str, set[int]] = {}
        for name, value in feed.items():
            for dimension, size in zip(model.input_by_name[name].shape, np.shape(value), strict=False):
                if isinstance(dimension, str):
                    sizes.setdefault(dimension, set()).add(size)
        clashing = {d: sorted(found) for d, found in sizes.items() if len(found) > 1}
        if error.status != 500 or not clashing:
            raise
        told = ", ".join(f"{dimension} is {' and '.join(map(str, found))}" for dimension, found in clashing.items())
        raise RequestError(f"inputs disagree on sizes that the model gives one name: {told}; {error.message}") from None


def check_feed(model: ServedModel, feed: Mapping[str, object]) -> None:
    """Raise :class:`RequestError` for an input of the model that has neither a value nor a default."""
    missing = [info for info in model.inputs if info.name not in feed and not info.optional]
    if missing:
        expected = ", ".join(f"{info.name} ({info.describe()})" for info in missing)
        raise RequestError(f"missing input: {expected}")


def check_shape(info: TensorInfo, shape: tuple[int, ...]) -> None:
    """Raise :class:`RequestError` when a value of this shape does not fit the input."""
    if not info.accepts(shape):
        raise RequestError(f"input {info.name}: expected shape {show_shape(info.shape)}, got {show_shape(shape)[:200]}")


def find_input(model: ServedModel, name: str) -> TensorInfo:
    """Look up an input that JSON can carry. Raises :class:`RequestError`."""
    info = model.input_by_name.get(name)
    if info is None:
        raise RequestError(f"unknown input {quote(name)}; the model takes {_list(model.input_by_name)}")
    _refuse_uncarriable(info, "input")
    return info


def _metadata(info: TensorInfo) -> Json:
    shape = [size if isinstance(size, int) else -1 for size in info.shape]
    return {"name": info.name, "datatype": info.datatype, "shape": shape}


def _list(names: Mapping[str, object], limit: int = 20) -> str:
    shown = ", ".join(list(names)[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "") if names else "none"


def _refuse_uncarriable(info: TensorInfo, side: str) -> None:
    if info.datatype is None:
        hint = "; POST /score returns it" if side == "output" else ""
        raise RequestError(f"{side} {info.name} is {info.onnx_type}, not a tensor; the protocol cannot carry it{hint}")
    if info.datatype not in DTYPES:
        raise RequestError(f"{side} {info.name} has datatype {info.datatype}, which JSON cannot carry")


def _chosen_outputs(model: ServedModel, chosen: object) -> list[str]:
    if chosen is None or chosen == []:
        tensors = [info for info in model.outputs if info.datatype]
        for info in tensors:
            if info.datatype not in DTYPES:
                raise RequestError(
                    f"output {info.name} has datatype {info.datatype}, which JSON cannot carry; "
                    'choose others with "outputs"'
                )
        if not tensors:
            raise RequestError("no output of this model is a tensor; POST /score returns sequences and maps")
        return [info.name for info in tensors]
    if not isinstance(chosen, list):
        raise RequestError(f'"outputs" must be a list of objects with a "name", got {quote(chosen)}')
    names: dict[str, None] = {}
    for index, entry in enumerate(chosen):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise RequestError(f'outputs[{index}] must be an object with a "name"')
        if name not in model.output_by_name:
            raise RequestError(f"unknown output {quote(name)}; the model gives {_list(model.output_by_name)}")
        if name in names:
            raise RequestError(f"output {name} is asked for twice")
        _refuse_uncarriable(model.output_by_name[name], "output")
        names[name] = None
    return list(names)


def _feed(model: ServedModel, inputs: object) -> dict[str, Array]:
    if not isinstance(inputs, list):
        found = "it is missing" if inputs is None else f"got {quote(inputs)}"
        raise RequestError(f'"inputs" must be a list of tensors with name, shape, datatype and data; {found}')
    feed: dict[str, Array] = {}
    for index, tensor in enumerate(inputs):
        name = tensor.get("name") if isinstance(tensor, dict) else None
        if not isinstance(name, str):
            raise RequestError(f'inputs[{index}] must be an object with a "name"')
        info = find_input(model, name)
        if name in feed:
            raise RequestError(f"input {name} is given twice")
        feed[name] = _decode_input(info, tensor)
    check_feed(model, feed)
    return feed


def _decode_input(info: TensorInfo, tensor: Json) -> Array:
    label = f"input {info.name}"
    for key in ("shape", "datatype", "data"):
        if key not in tensor:
            raise RequestError(f'{label}: "{key}" is missing; the model expects {info.describe()}')
    datatype, shape = tensor["datatype"], tensor["shape"]
    if datatype != info.datatype:
        raise RequestError(f"{label}: expected datatype {info.datatype}, got {quote(datatype)}")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise RequestError(f'{label}: "shape" must be a list of sizes (integers from 0), for {show_shape(info.shape)}')
    check_shape(info, tuple(shape))
    assert info.datatype is not None
    return decode(tensor["data"], info.datatype, shape, label)


def _output(info: TensorInfo, array: Array) -> Json:
    return {
        "name": info.name,
        "datatype": info.datatype,
        "shape": list(array.shape),
        "data": encode(array),
    }
