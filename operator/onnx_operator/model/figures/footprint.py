"""What of a model takes memory while it is loaded and run: its constants by what is done to them, its values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from onnx_operator.model.figures.sized import MAX_FIGURE, Tensor, fill_in, known_tensors
from onnx_operator.model.nodes import STANDARD_DOMAINS, domain_of, subgraphs
from onnx_operator.model.reading.lists import list_length
from onnx_operator.model.reading.skeleton import Weight

MAPPED_BYTES = 1 << 20
"""Pieces of this size and above are mapped on their own and return to the system when freed: the server holds glibc's
threshold for that (``M_MMAP_THRESHOLD``) here while it loads."""
_ARENA_BYTES = 256
"""The arena gives no less for a value."""
_SHARED_ELEMENTS = 8
"""Equal constants up to this size become one, and equal nodes that read nothing else then too."""
_NOT_FOLDED = frozenset(
    {
        "Bernoulli",
        "DequantizeLinear",
        "Multinomial",
        "QuantizeLinear",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_IN_PLACE = frozenset(
    {
        *("Abs", "Add", "BatchNormalization", "Cast", "Ceil", "Clip", "Div", "Dropout", "Elu", "Erf", "Exp", "Flatten"),
        *("Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "LogSoftmax", "Mul", "Neg"),
        *("Not", "PRelu", "Pow", "Reciprocal", "Relu", "Reshape", "Round", "Sigmoid", "Softmax", "Softplus"),
        *("Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Unsqueeze"),
    }
)
"""Operators that write over the first value they read where nothing reads it later and the sizes are equal."""
_PACKED = {
    "Attention": (1,),
    "Conv": (1,),
    "ConvInteger": (1,),
    "ConvTranspose": (1,),
    "DynamicQuantizeLSTM": (1, 2),
    "DynamicQuantizeMatMul": (1,),
    "FusedMatMul": (1,),
    "GRU": (1, 2),
    "Gemm": (1,),
    "LSTM": (1, 2),
    "MatMul": (1,),
    "MatMulInteger": (1,),
    "MatMulIntegerToFloat": (1,),
    "MatMulNBits": (1,),
    "QAttention": (1,),
    "QGemm": (3,),
    "QLinearConv": (3,),
    "QLinearMatMul": (3,),
}
"""Inputs that kernels keep in an order of their own when they are constant."""
_FLOATING = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})


@dataclass
class Footprint:
    """Bytes, if nothing else is said. Matrices and filters of FP16 count as the FP32 that the CPU makes of them."""

    kept: int = 0
    """Constants that the loaded model holds: initializers in use, and what is computed from them while loading."""
    mapped: int = 0
    """Constants that stay in a file of their own: of these only what is read gets into memory."""
    largest: int = 0
    """The largest constant, but for those in files of their own."""
    plain: int = 0
    """The largest of those that are used as they are."""
    computed_only: int = 0
    """The largest that only leads to other constants."""
    filters: int = 0
    """Of convolutions over two dimensions: copied in blocks."""
    mapped_filters: int = 0
    """The same, of filters in files of their own."""
    packed: int = 0
    """Matrices below :data:`MAPPED_BYTES` that kernels pack."""
    converted: int = 0
    """Matrices and filters of FP16 as they are in the file."""
    packing: int = 0
    """What packing matrices from :data:`MAPPED_BYTES` on takes at most beyond what the loaded model holds."""
    small: int = 0
    """Number of constants that are used as they are and are not large."""
    trees: int = 0
    """Nodes of decision trees."""
    leaves: int = 0
    """Weights at their ends."""
    coefficients: int = 0
    """Numbers of other classical models."""
    nodes: int = 0
    """Nodes of the graph."""
    activations: int = 0
    """The most that values take which live at the same time, but for inputs."""
    inputs: int = 0
    input_elements: int = 0
    output_elements: int = 0
    large: list[tuple[int, bool]] = field(default_factory=list, repr=False)
    """Packed matrices that :attr:`packing` is worked out from, in order: size, and whether in a file of its own."""


def read_footprint(sized: ModelProto, weights: Mapping[str, Weight]) -> Footprint:
    """Go through a model from :func:`~onnx_operator.model.figures.sized.size_model`; ``weights`` are not in it."""
    found = Footprint()
    plan = _Plan(sized.graph, weights, None, found)
    found.activations = plan.run()
    plan.read_interface()
    named = {value.name for value in sized.graph.input}
    inside = sum(_tensor(weight).bytes for name, weight in weights.items() if name not in named)
    found.kept += inside  # tensors in attributes, which kernels copy
    found.coefficients += inside // 4
    _pack_large(found)
    for name, value in vars(found).items():
        if isinstance(value, int):
            setattr(found, name, min(value, MAX_FIGURE))
    return found


def _pack_large(found: Footprint) -> None:
    left = sum(size for size, beside in found.large if beside)
    for size, beside in found.large:
        left -= size if beside else 0
        if size >= MAPPED_BYTES:
            found.packing = max(found.packing, size - left)


class _Plan:
    """A graph as the runtime has it after its transformations, as far as memory is concerned."""

    def __init__(
        self, graph: GraphProto, weights: Mapping[str, Weight], outer: "_Plan | None", found: Footprint
    ) -> None:
        self._graph = graph
        self._found = found
        self._tensors: dict[str, Tensor] = {**(outer._tensors if outer else {}), **known_tensors(graph)}
        self._tensors |= {name: _tensor(weight) for name, weight in weights.items()}
        self._own = {*weights, *(tensor.name for tensor in graph.initializer)}
        self._own |= {sparse.values.name for sparse in graph.sparse_initializer}
        self._constants: set[str] = self._own | (outer._constants if outer else set())
        self._beside: set[str] = {name for name, weight in weights.items() if weight.file}
        self._beside |= {t.name for t in graph.initializer if t.data_location == TensorProto.EXTERNAL}
        self._beside |= outer._beside if outer else set()
        self._seen: set[str] = outer._seen if outer else set()
        self._equal: dict[str, object] = {
            tensor.name: _tensor_key(tensor)
            for tensor in graph.initializer
            if tensor.name not in weights and self._tensors[tensor.name].elements <= _SHARED_ELEMENTS
        }
        self._twin: dict[str, str] = {}

    def run(self) -> int:
        """Count the constants into the footprint; return the peak of the values."""
        running, made = self._fold()
        self._found.nodes += len(self._graph.node)
        used = {name for node in running for name in _reads(node)} | {value.name for value in self._graph.output}
        kept = {self._twin.get(name, name) for name in used & (self._own | made)}
        readers: dict[str, list[NodeProto]] = {}
        for node in running:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        copied = self._copy_constants(running, readers)
        for name in kept:
            size = self._copied_bytes(name) if name in copied else self._bytes(name)
            if name in self._beside and name not in copied:
                self._found.mapped += size
                continue
            self._found.kept += size
            self._found.small += name not in copied and size < MAPPED_BYTES
            if name not in self._beside:
                self._found.largest = max(self._found.largest, size)
                self._found.plain = max(self._found.plain, 0 if name in copied else size)
        for name in made - used:
            self._found.computed_only = max(self._found.computed_only, self._bytes(name))
        return self._peak(running, readers)

    def read_interface(self) -> None:
        """Count what callers send and get."""
        for value in self._graph.input:
            if value.name not in self._own and value.name in self._tensors:
                self._found.inputs += self._tensors[value.name].bytes
                self._found.input_elements += self._tensors[value.name].elements
        for value in self._graph.output:
            if value.name in self._tensors:
                self._found.output_elements += self._tensors[value.name].elements

    def _fold(self) -> tuple[list[NodeProto], set[str]]:
        """Tell nodes that run from those that are computed once while loading, and what the latter make."""
        first: dict[object, str] = {}
        running: list[NodeProto] = []
        made: set[str] = set()
        for node in self._graph.node:
            fill_in(node, self._tensors)
            if not self._folds(node):
                running.append(node)
                continue
            made.update(filter(None, node.output))
            self._constants.update(filter(None, node.output))
            if len(node.output) == 1 and all(not name or name in self._equal for name in node.input):
                inputs = tuple(self._equal.get(name) for name in node.input)
                key = (node.op_type, inputs, tuple(each.SerializeToString() for each in node.attribute))
                self._equal[node.output[0]] = key
                self._twin[node.output[0]] = first.setdefault(key, node.output[0])
        return running, made

    def _folds(self, node: NodeProto) -> bool:
        if node.op_type in _NOT_FOLDED or domain_of(node.domain) not in STANDARD_DOMAINS:
            return False
        if next(subgraphs(node), None) is not None or not (node.input or node.op_type == "Constant"):
            return False
        return all(name in self._constants for name in node.input if name)

    def _copy_constants(self, running: Sequence[NodeProto], readers: Mapping[str, Sequence[NodeProto]]) -> set[str]:
        """Sort the constants that kernels copy by how; return their names."""
        copied: set[str] = set()
        # The integers of a quantized weight are what its kernel reads.
        stored = {
            node.output[0]: node.input[0]
            for node in running
            if node.op_type == "DequantizeLinear" and node.output and node.input and node.input[0] in self._constants
        }
        for node in running:
            self._count_classical(node)
            for index in _PACKED.get(node.op_type, ()):
                given = node.input[index] if index < len(node.input) else ""
                name = stored.get(given, given)
                if name not in self._constants or name not in self._tensors:
                    continue
                name = self._twin.get(name, name)
                copied.add(name)
                self._copy(name, node, readers)
        return copied

    def _copy(self, name: str, node: NodeProto, readers: Mapping[str, Sequence[NodeProto]]) -> None:
        found, tensor, size = self._found, self._tensors[name], self._copied_bytes(name)
        follow = [each for output in node.output if output for each in readers.get(output, ())]
        floating_filter = node.op_type == "Conv" and tensor.data_type in _FLOATING
        if name in self._seen:
            if not (floating_filter and len(follow) == 1 and follow[0].op_type == "BatchNormalization"):
                return
            # With the normalisation in them, each convolution has filters of its own.
            found.kept += size
        self._seen.add(name)
        if tensor.data_type == TensorProto.FLOAT16:
            found.converted += tensor.bytes
        if floating_filter:
            if len(tensor.dims) == 4 and name in self._beside:
                found.mapped_filters += size
            elif len(tensor.dims) == 4:
                found.filters += size
            return
        if size >= MAPPED_BYTES or name in self._beside:
            found.large.append((size, name in self._beside))
        else:
            found.packed += size

    def _count_classical(self, node: NodeProto) -> None:
        if domain_of(node.domain) != "ai.onnx.ml":
            return
        sizes = {each.name: list_length(each) for each in node.attribute}
        if node.op_type.startswith("TreeEnsemble"):
            self._found.trees += sizes.get("nodes_featureids", 0)
            self._found.leaves += max((n for name, n in sizes.items() if not name.startswith("nodes_")), default=0)
        else:
            self._found.coefficients += sum(sizes.values())

    def _bytes(self, name: str) -> int:
        return self._tensors[name].bytes if name in self._tensors else 0

    def _copied_bytes(self, name: str) -> int:
        """Size of a constant that kernels copy: those of FP16 are computed with in FP32."""
        half = name in self._tensors and self._tensors[name].data_type == TensorProto.FLOAT16
        return 2 * self._bytes(name) if half else self._bytes(name)

    def _peak(self, nodes: Sequence[NodeProto], readers: Mapping[str, Sequence[NodeProto]]) -> int:
        last = {name: index for index, node in enumerate(nodes) for name in _reads(node)}
        outputs = {value.name for value in self._graph.output}
        last |= dict.fromkeys(outputs, len(nodes))
        # Kernels for integers take the place of a float kernel with conversions around it.
        unseen = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
        unseen |= {name for name, by in readers.items() if all(each.op_type == "QuantizeLinear" for each in by)}
        unseen -= outputs
        live: dict[str, int] = {}
        current = peak = 0
        for index, node in enumerate(nodes):
            for name in filter(None, node.output):
                over = self._overwritten(node, name, live, last, index)
                if over:
                    live[name] = live.pop(over)
                elif name not in live:
                    live[name] = max(0 if name in unseen else self._bytes(name), _ARENA_BYTES)
                    current += live[name]
            inner = sum(_Plan(body, {}, self, self._found).run() for body in subgraphs(node))
            peak = max(peak, current + inner)
            for name in {*_reads(node), *node.output}:
                if name in live and last.get(name, -1) <= index:
                    current -= live.pop(name)
        return peak

    def _overwritten(
        self, node: NodeProto, name: str, live: Mapping[str, int], last: Mapping[str, int], index: int
    ) -> str:
        """The value in whose place the first output comes; none where it needs a place of its own."""
        if node.op_type not in _IN_PLACE or name != node.output[0] or name not in self._tensors:
            return ""
        size = max(self._tensors[name].bytes, _ARENA_BYTES)
        return next((each for each in node.input if live.get(each) == size and last.get(each) == index), "")


def _tensor_key(tensor: TensorProto) -> object:
    """What two small tensors have in common when they are equal."""
    unnamed = TensorProto()
    unnamed.CopyFrom(tensor)
    unnamed.ClearField("name")
    return unnamed.SerializeToString(deterministic=True)


def _tensor(weight: Weight) -> Tensor:
    return Tensor(weight.data_type, tuple(weight.dims))


def _reads(node: NodeProto) -> set[str]:
    names = {name for name in node.input if name}
    for graph in subgraphs(node):
        for each in graph.node:
            names |= _reads(each)
        names |= {value.name for value in graph.output}
    return names
