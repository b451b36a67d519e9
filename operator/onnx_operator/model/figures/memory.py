"""How much memory a model will need to be scored, estimated from its graph.

Resident is the peak of a server's process that loads the model, warms up and answers requests one after the other.
The estimate follows what ONNX Runtime 1.32 does on the CPU:

1. The file is parsed, and each tensor copied out of what was parsed, which is then freed: the largest is there twice.
2. What depends on constants alone is computed, once for nodes that are equal. Normalisations are multiplied into
   the filters before them.
3. Filters over two dimensions are copied in blocks for the vector unit; only then are the originals freed.
4. Kernels pack their matrices, one after the other, each original being freed after its copy. Those in files of
   their own were not in memory before.
5. The first run takes from the arena what lives at the same time; the second one takes it as one planned block.

What is freed while loading returns to the system at once only where it was mapped on its own
(:data:`~onnx_operator.model.figures.footprint.MAPPED_BYTES`). Smaller pieces leave holes in the heap, of which the next
ones fill a part only: smaller ones that stay get in between. How much is lost by that, and by the other things that
a graph does not tell, was measured: the constants below are fitted to the peaks of the models in
``benchmarks/memory_cases.py``, with glibc 2.36 on x86-64. ``python -m benchmarks.memory`` measures them anew.

While serving it is less: originals of filters and of large matrices are gone then. What is left of them was measured
with the same models.

Not in it: requests at the same time, each of which takes ``activations_bytes`` for itself; dimensions that the model
leaves open, beyond 1; constants in files of their own that are only looked up, such as tables of words, which come
in page by page and which the system may drop again.
"""

from collections.abc import Mapping

import onnx
import onnx.inliner
from onnx import ModelProto

from onnx_operator.api.report import MemoryEstimate
from onnx_operator.model.checks.structure import FAULTS_FOUND
from onnx_operator.model.figures.cost import operator_counts
from onnx_operator.model.figures.footprint import Footprint, read_footprint
from onnx_operator.model.figures.sized import MAX_FIGURE, size_model
from onnx_operator.model.limits import MAX_NODES
from onnx_operator.model.reading.skeleton import Weight

RUNTIME_BYTES = 88 << 20
"""The process with Python, ONNX Runtime and the server, before any model."""
NODE_BYTES = 15_000
"""A node with its names, its kernel, and what the optimizer tries with it."""
FILTER_COPIES = 1.0
"""Filters over two dimensions are there again, as originals."""
MAPPED_FILTER_COPIES = 1.0
"""The same for filters in files of their own, of which the originals are let go."""
PACKED_COPIES = 0.7
"""Of the places of packed matrices, this much is lost to smaller pieces in between."""
PACKED_COPIES_ALONE = 0.25
"""The same where a model has no constants but such matrices, so that each takes the place of the one before."""
TREE_NODE_BYTES = 410
"""A node of a tree: eight lists of attributes as parsed, copied for the kernel, and the kernel's own node."""
LEAF_BYTES = 140
"""A weight at the end of a tree, in four lists."""
COEFFICIENT_BYTES = 16
"""A number of another classical model: as parsed, in the graph, and in the kernel."""
MANY_SMALL = 10
"""Constants that are neither packed nor large. With as many, a copy of the largest one that no kernel packs, such as a
table of words, is not given back."""
ARENA_SHARE = 2.5
"""The first run's pieces stay beside the second run's block; both round up, and kernels need room to work."""
INPUT_NUMBER_BYTES = 105
"""A number in a request: about 20 characters in up to three buffers, and an object in a list."""
OUTPUT_NUMBER_BYTES = 20
"""A number in an answer: about 20 characters."""


def estimate_memory(
    model: ModelProto,
    weights: Mapping[str, Weight],
    *,
    inferred: ModelProto | None = None,
    sizes: Mapping[str, int] | None = None,
) -> MemoryEstimate:
    """Estimate for one request at a time, every dimension that the model leaves open being 1.

    ``weights`` are tensors whose values are not in the model. ``inferred`` is the model from ``size_model`` where it
    is at hand; else it is made, with ``sizes`` for dimensions that have a name. Typical errors are 5 %, those measured
    at most 21 %; real models of other kinds may differ more.
    """
    if model.functions:
        # The runtime puts the functions' nodes in the place of their calls, and so their values count.
        sized = size_model(_inline(model), weights, sizes=sizes)
    else:
        sized = inferred if inferred is not None else size_model(model, weights, sizes=sizes)
    footprint = read_footprint(sized, weights)
    return MemoryEstimate(
        weights_bytes=min(footprint.kept + footprint.mapped - footprint.converted, MAX_FIGURE),
        activations_bytes=min(footprint.activations + footprint.inputs, MAX_FIGURE),
        resident_bytes=min(int(_resident(footprint)), MAX_FIGURE),
        serving_bytes=min(int(_serving(footprint)), MAX_FIGURE),
    )


def _inline(model: ModelProto) -> ModelProto:
    # A few functions that call each other twice can make any number of nodes.
    if sum(operator_counts(model).values()) > MAX_NODES:
        return model
    try:
        inlined: ModelProto = onnx.inliner.inline_local_functions(model)
    except FAULTS_FOUND:
        return model
    return inlined


def _resident(found: Footprint) -> float:
    filters = FILTER_COPIES * found.filters + MAPPED_FILTER_COPIES * found.mapped_filters
    holes = filters + _holes(found)
    beyond = max(found.largest, found.computed_only, holes + found.packing, holes + _running(found))
    return RUNTIME_BYTES + _structure(found) + found.kept + beyond


def _serving(found: Footprint) -> float:
    """What is left once originals of filters and matrices are let go, and requests run."""
    left = found.plain if found.small >= MANY_SMALL else 0
    return RUNTIME_BYTES + _structure(found) + found.kept + max(left, _holes(found) + _running(found))


def _structure(found: Footprint) -> float:
    trees = TREE_NODE_BYTES * found.trees + LEAF_BYTES * found.leaves
    return NODE_BYTES * found.nodes + trees + COEFFICIENT_BYTES * found.coefficients


def _holes(found: Footprint) -> float:
    return found.converted + (PACKED_COPIES if found.small else PACKED_COPIES_ALONE) * found.packed


def _running(found: Footprint) -> float:
    numbers = INPUT_NUMBER_BYTES * found.input_elements + OUTPUT_NUMBER_BYTES * found.output_elements
    return ARENA_SHARE * found.activations + found.inputs + numbers
