"""What the proof knows of a tensor: the lattice, from "the same for every run" to "may mix rows"."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from onnx_operator.model.batching.sizes import Size
from onnx_operator.model.elements import Element

MAX_FOLLOWED_ELEMENTS = 64
"""Elements of a tensor whose values are followed; shapes are shorter."""
MAX_FOLLOWED_DIMENSIONS = 16
FOLLOWED = frozenset({Element.INT32, Element.INT64, Element.BOOL})
"""Element types of numbers that are followed."""

Sizes = tuple[Size, ...]
Elements = tuple[Size | None, ...]


@dataclass(frozen=True)
class Fault:
    """Why nothing is proven of a tensor: the first node that may let rows meet."""

    node: str
    reason: str


class Value(NamedTuple):
    """One tensor.

    With ``axis`` it has the batch there: what lies at each place of that axis is made of one row of the request
    alone, the places of a row following each other. Without it, it is the same whatever the rows hold; ``counted``
    ones then depend on how many rows there are. A ``fault`` makes everything else void.
    """

    dims: Sizes | None = None
    """Its shape; None where not even the rank is known. Only the batch axis has the number of rows as a factor."""
    axis: int | None = None
    elements: Elements | None = None
    """The whole numbers in it, row-major, where they are few and followed; None for one that rows may change."""
    kind: int | None = None
    """Its element type (TensorProto.DataType); None where it is not known."""
    data: Any = None
    """A numpy array, where the model stores the values."""
    rounded: bool = False
    """Whether its last bits may depend on how many rows share the run."""
    counted: bool = False
    natural: bool = False
    """Whether no number in it can be below zero, however sums are rounded."""
    stored: bool = False
    """Whether it is a constant of the model that no caller can replace: kernels arrange those once, when loading."""
    fault: Fault | None = None

    @property
    def batch(self) -> bool:
        """Whether rows of the request are in it."""
        return self.axis is not None

    @property
    def fixed(self) -> bool:
        """Whether it is the same in every run, however many rows it has."""
        return self.axis is None and not self.counted and self.fault is None


class UnprovenError(Exception):
    """Nothing can be said of what a node makes; the text says why, as the end of a sentence about the node."""
