"""Which texts and numbers an input may hold, where the graph fails on all others.

Only what is certain: a ``OneHotEncoder`` with ``zeros=0`` (as scikit-learn's ``handle_unknown="error"`` is converted)
that reads an input, or one column of it, as it came.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from onnx_operator.server.dataplane.tensors import TensorInfo
from onnx_operator.server.runtime.guessing.graph import (
    MAX_GUESS_NODES,
    MAX_LISTED,
    SMALL_BYTES,
    Graph,
    Node,
    read_graph,
    readers,
)

Categories = Mapping[str, Mapping[int, frozenset[int] | frozenset[str]]]
"""By input and column; the only column of ``[N, 1]`` and ``[N]`` is 0."""

_LISTED = {"BYTES": "cats_strings", "INT64": "cats_int64s"}
_BRANCHING = frozenset({"If", "Loop", "Scan"})
_MAX_STEPS = 64


def find_categories(path: Path, inputs: Sequence[TensorInfo]) -> Categories:
    """What the graph at ``path`` says of its ``inputs``."""
    graph = read_graph(path)
    # Where a node may not run, its categories say nothing.
    if len(graph.nodes) >= MAX_GUESS_NODES or any(node.operator in _BRANCHING for node in graph.nodes):
        return {}
    readers_of = readers(graph)
    found: dict[str, dict[int, frozenset[int] | frozenset[str]]] = {}
    for info in inputs:
        attribute = _LISTED.get(info.datatype or "")
        for node, column in _encoders(info, readers_of, graph) if attribute else ():
            listed = node.attributes.get(attribute or "")
            if isinstance(listed, tuple) and _whole(listed):
                known: frozenset[int] | frozenset[str] = frozenset(listed)  # type: ignore[assignment]
                columns = found.setdefault(info.name, {})
                columns[column] = columns.get(column, known) & known
    return found


def _encoders(
    info: TensorInfo, readers_of: Mapping[str, Sequence[tuple[Node, int]]], graph: Graph
) -> Iterator[tuple[Node, int]]:
    """The encoders that fail on what they do not know, with the column that each of them reads."""
    sole = all(size == 1 for size in info.shape[1:]) and len(info.shape) in (1, 2)
    waiting: list[tuple[str, int | None]] = [(info.name, 0 if sole else None)]
    for _ in range(_MAX_STEPS):
        if not waiting:
            return
        tensor, column = waiting.pop()
        for node, position in readers_of.get(tensor, ()):
            if position or node.domain not in ("", "ai.onnx", "ai.onnx.ml"):
                continue
            if node.operator == "OneHotEncoder" and node.attributes.get("zeros") == 0 and column is not None:
                yield node, column
            elif node.operator == "Identity":
                waiting += [(output, column) for output in node.outputs]
            elif node.operator == "ArrayFeatureExtractor" and column is None and len(info.shape) == 2:
                index = graph.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
                if index and len(index.values) == 1 and type(index.values[0]) is int and index.values[0] >= 0:
                    waiting += [(output, index.values[0]) for output in node.outputs]


def _whole(listed: tuple[object, ...]) -> bool:
    """Whether the list was read to its end, and its texts as well."""
    return 0 < len(listed) < MAX_LISTED and not any(
        isinstance(each, str) and (len(each) >= SMALL_BYTES // 4 or "\ufffd" in each) for each in listed
    )
