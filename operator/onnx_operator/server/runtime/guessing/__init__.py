"""Made-up inputs that a model can answer: facts of its graph in, candidates out, words of the runtime back in.

Nobody knows which sizes an open dimension may take or which values make sense. What the graph says of them is read
(:mod:`.graph`, :mod:`.hints`), the rest is searched for, smallest sizes first (:mod:`.search`). A failed guess is ours,
never the model's.
"""

from onnx_operator.server.runtime.guessing.feeds import UnmakeableError, make_feed, run_once
from onnx_operator.server.runtime.guessing.graph import NOTHING, Graph, read_graph
from onnx_operator.server.runtime.guessing.guess import Guess, shape_of
from onnx_operator.server.runtime.guessing.search import Search

__all__ = [
    "NOTHING",
    "Graph",
    "Guess",
    "Search",
    "UnmakeableError",
    "make_feed",
    "read_graph",
    "run_once",
    "shape_of",
]
