"""What an input holds that the graph is known to fail on. Pure functions."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from onnx_operator.server.dataplane.model import ServedModel
from onnx_operator.server.dataplane.tensors import Array
from onnx_operator.server.errors import RequestError, listed, quote


def check_feed_categories(model: ServedModel, feed: Mapping[str, Any]) -> None:
    """Refuse inputs that an encoder of the graph does not know and fails on. Raises :class:`RequestError`."""
    for name, columns in model.categories.items():
        if name in feed:
            check_categories((name,), feed[name], columns)


def check_categories(names: Sequence[str], array: Array, columns: Mapping[int, frozenset[Any]]) -> None:
    """The same for one input; ``names`` of its columns, as far as they have any."""
    table = array.reshape(len(array), math.prod(array.shape[1:]))
    for column, known in columns.items():
        if column >= table.shape[1]:
            continue
        name = names[column] if column < len(names) else str(column)
        for row, value in enumerate(table[:, column].tolist()):
            if value not in known:
                expected = listed(sorted(map(str, known)))
                raise RequestError(f"column {quote(name)}, row {row} is {quote(value)}, expected one of {expected}")
