"""Reading ``SequenceProto`` files of maps, as expected outputs of classifiers are, without the onnx package.

A map from class to score comes as its keys and as a sequence of as many tensors, or of one with an element for each
key.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from onnx_operator.model.reading.numbers import MapField, SequenceField
from onnx_operator.model.reading.window import Memory
from onnx_operator.model.reading.wire import BYTES, VARINT, Field, WireError, fields, varints
from onnx_operator.server.dataplane.tensors import Array
from onnx_operator.server.runtime.tensorproto import TensorError, parse_tensor

_SHOWN = 5


def parse_scores(data: bytes, classes: Sequence[int | str]) -> Array:
    """The scores of a serialized sequence of maps, FP32 ``[rows, classes]`` in the order of ``classes``.

    Raises :class:`TensorError`.
    """
    try:
        rows = _Reader(data).maps()
    except WireError as error:
        raise TensorError(f"it is not a SequenceProto: {error} (byte {error.offset})") from None
    except UnicodeDecodeError:
        raise TensorError("it holds a string that is not UTF-8") from None
    if not rows:
        raise TensorError("it is not a sequence of maps")
    found = np.empty((len(rows), len(classes)), np.float32)
    for index, row in enumerate(rows):
        if set(row) != set(classes):
            raise TensorError(f"row {index} has the classes {_list(row)}; the model's are {_list(classes)}")
        found[index] = [row[label] for label in classes]
    return found


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._window = Memory(data)
        self._size = len(data)

    def maps(self) -> list[dict[int | str, float]]:
        found = [each for each in fields(self._window, 0, self._size) if each.number == SequenceField.MAP_VALUES]
        return [self._map(each) for each in found if each.wire_type == BYTES]

    def _map(self, message: Field) -> dict[int | str, float]:
        keys: list[int | str] = []
        values: list[float] = []
        for each in fields(self._window, message.begin, message.end):
            if each.number == MapField.KEYS:
                numbers = [each.value] if each.wire_type == VARINT else varints(self._content(each))
                keys += [number - (1 << 64) if number >> 63 else number for number in numbers]
            elif each.number == MapField.STRING_KEYS:
                keys.append(self._content(each).decode())
            elif each.number == MapField.VALUES and each.wire_type == BYTES:
                tensors = [
                    f for f in fields(self._window, each.begin, each.end) if f.number == SequenceField.TENSOR_VALUES
                ]
                arrays = [parse_tensor(self._content(f)).array.reshape(-1).tolist() for f in tensors]
                values += chain.from_iterable(arrays)
        if len(keys) != len(values) or any(isinstance(value, str) for value in values):
            raise TensorError(f"a map has {len(keys)} keys for {len(values)} scores")
        return dict(zip(keys, values, strict=True))

    def _content(self, each: Field) -> bytes:
        if each.wire_type != BYTES:
            raise WireError(f"field {each.number} has the wire type {each.wire_type}", each.start)
        return self._window.slice(each.begin, each.end)


def _list(names: Sequence[int | str] | dict[int | str, float]) -> str:
    shown = ", ".join(str(name)[:100] for name in list(names)[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
