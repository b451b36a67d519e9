"""What takes the place of large and external tensors, so that checks see their types and shapes without values.

``onnx.checker`` refuses a tensor without a value. Declared as inputs of the graph, weights keep their types and
shapes for every check. Weights of subgraphs move up, for subgraphs may not have inputs of their own choosing.
"""

from collections.abc import Callable
from dataclasses import replace

import onnx
from onnx import GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, helper

from onnx_operator.api.conditions import Reason
from onnx_operator.model.elements import bits, tensor_bytes
from onnx_operator.model.lfs import MAX_POINTER_BYTES, pointer_text
from onnx_operator.model.nodes import all_graphs, all_nodes, all_tensors, domain_of, node_text, subgraphs, tensors_of
from onnx_operator.model.reading.folder import Folder
from onnx_operator.model.reading.skeleton import STRIPPED, Skeleton, Weight
from onnx_operator.model.refusal import RefusedError, raise_it
from onnx_operator.model.sources.base import is_confined

_MAX_DIMENSION = 2**62
_MAX_FOLDERS = 32
_IN_MEMORY = "_ORT_MEM_ADDR_"
"""In a location by which the runtime means an address in its own memory."""
_CONSTANT_VALUES = ("value", "sparse_value")


def complete_model(
    skeleton: Skeleton, folder: Folder, refuse: Callable[[RefusedError], None] = raise_it
) -> tuple[ModelProto, dict[str, Weight]]:
    """Declare weights as inputs. Returns the model and the weights by their names in it.

    ``folder`` is the one that the model's file lies in. Raises :class:`RefusedError`: ``InvalidGraph`` for weights that
    contradict themselves, ``ExternalDataMissing`` for values in files that are not there, too short, pointers of Git
    LFS, or outside the model's folder. What the runtime may see otherwise goes to ``refuse``.
    """
    model = ModelProto()
    model.CopyFrom(skeleton.model)
    completion = _Completion(model, skeleton, folder, refuse)
    completion.graph(model.graph, top=True)
    for function in model.functions:
        for node in all_nodes(function.node):
            completion.refuse_external(node)
    return model, completion.weights


class _Completion:
    def __init__(
        self,
        model: ModelProto,
        skeleton: Skeleton,
        folder: Folder,
        refuse: Callable[[RefusedError], None],
    ) -> None:
        self._refuse = refuse
        self._unread = {each.name for each in model.graph.initializer} - _names_read(model.graph)
        self._inputs = model.graph.input
        self._declared = {value.name for value in model.graph.input}
        self._stripped = skeleton.weights
        self._folder = folder
        self._sizes: dict[str, int | None] = {}
        self.weights: dict[str, Weight] = {}

    def graph(self, graph: GraphProto, *, top: bool = False) -> None:
        """Take the weights out of a graph and, first, out of the graphs within it."""
        for node in graph.node:
            for inner in subgraphs(node):
                self.graph(inner)
        moved: dict[str, str] = {}
        self._initializers(graph, top, moved)
        self._constants(graph, top, moved)
        if moved:
            _rename(graph, moved)

    def _initializers(self, graph: GraphProto, top: bool, moved: dict[str, str]) -> None:
        kept_names: set[str] = set()
        weights: list[Weight] = []
        kept: list[TensorProto] = []
        for tensor in graph.initializer:
            weight = self._weight(tensor)
            if weight is None:
                kept.append(tensor)
            else:
                weights.append(weight)
            name = tensor.name
            if name in kept_names and (weight is not None or name in {w.name for w in weights}):
                self._refuse(_invalid(f'Two initializers have the name "{name}".'))
            kept_names.add(name)
        if weights:
            _keep(graph.initializer, kept)
        # The runtime makes dense tensors of them, which is what operators are to see of their types.
        weights += [self._sparse(sparse) for sparse in graph.sparse_initializer]
        del graph.sparse_initializer[:]
        for weight in weights:
            self._declare(weight, top, moved)

    def _sparse(self, sparse: SparseTensorProto) -> Weight:
        parts = [self._weight(sparse.values), self._weight(sparse.indices)]
        if not any(parts):
            try:
                onnx.checker.check_sparse_tensor(sparse)
            except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
                text = " ".join(str(error).split())[:300]
                self._refuse(_invalid(f'The sparse initializer "{sparse.values.name}" is not valid ONNX: {text}'))
        stored = sum(part.stored_bytes for part in parts if part) or sparse.ByteSize()
        name, dims = sparse.values.name, tuple(sparse.dims)
        _check_shape(name, sparse.values.data_type, dims)
        return Weight(name, sparse.values.data_type, dims, stored, raw=False)

    def _constants(self, graph: GraphProto, top: bool, moved: dict[str, str]) -> None:
        kept: list[NodeProto] = []
        for node in graph.node:
            weight = self._constant(node)
            if weight is None:
                kept.append(node)
            else:
                self._declare(weight, top, moved)
        if len(kept) < len(graph.node):
            _keep(graph.node, kept)

    def _constant(self, node: NodeProto) -> Weight | None:
        """The weight that a Constant node makes; other nodes with large tensors keep stand-ins for them."""
        constant = node.op_type == "Constant" and not domain_of(node.domain) and len(node.output) == 1
        for attribute in node.attribute:
            for tensor in tensors_of(attribute):
                weight = self._weight(tensor)
                if weight is None:
                    continue
                if constant and attribute.name in _CONSTANT_VALUES and len(node.attribute) == 1:
                    sparse = attribute.sparse_tensor if attribute.name == "sparse_value" else None
                    dims = tuple(sparse.dims) if sparse is not None else weight.dims
                    data_type = sparse.values.data_type if sparse is not None else weight.data_type
                    return replace(weight, name=node.output[0], dims=dims, data_type=data_type)
                where = f"{node.output[0] if node.output else node.name}.{attribute.name}"
                self.weights[where] = replace(weight, name=where)
                if weight.kept:
                    # Inference reads the numbers of some operators, such as trees.
                    del tensor.external_data[:]
                    tensor.MergeFromString(weight.kept)
                else:
                    tensor.CopyFrom(_smallest(tensor))
        return None

    def _declare(self, weight: Weight, top: bool, moved: dict[str, str]) -> None:
        name = weight.name
        if not top:
            # Both branches of an If may call their weights the same.
            number = 1
            while (name := f"{weight.name} ({number})") in self.weights or name in self._declared:
                number += 1
            moved[weight.name] = name
        elif name in self.weights:
            self._refuse(_invalid(f'Two initializers have the name "{name}".'))
        self.weights[name] = replace(weight, name=name)
        if name not in self._declared:
            self._declared.add(name)
            self._inputs.append(helper.make_tensor_value_info(name, weight.data_type, weight.dims))

    def _weight(self, tensor: TensorProto) -> Weight | None:
        """Describe a tensor whose values are not in the skeleton; None for one that is complete."""
        if tensor.data_location == TensorProto.EXTERNAL:
            weight = self._external(tensor)
        else:
            index = next((e.value for e in reversed(tensor.external_data) if e.key == STRIPPED), None)
            if index is None or not index.isdecimal() or int(index) >= len(self._stripped):
                return None
            weight = self._stripped[int(index)]
            if (weight.name, weight.data_type, weight.dims) != (tensor.name, tensor.data_type, tuple(tensor.dims)):
                # A file may hold such a mark itself: it is no value.
                return None
            _check_values(weight)
        return weight

    def _external(self, tensor: TensorProto) -> Weight:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = plain(entries.get("location", ""))
        who = f'The values of tensor "{tensor.name}"'
        _check_shape(tensor.name, tensor.data_type, list(tensor.dims))
        if not is_confined(location) or _IN_MEMORY in location:
            raise _missing(
                f'{who} lie at "{entries.get("location", "")}", which is not inside the model\'s folder. Save the model'
                " anew, with the file of the weights beside it (onnx.save with save_as_external_data=True)."
            )
        expected = tensor_bytes(tensor.data_type, list(tensor.dims))
        offset, length = _number(entries, "offset", 0, who), _number(entries, "length", expected, who)
        if tensor.data_type == TensorProto.STRING or length != expected:
            raise _invalid(
                f"{who} of shape {list(tensor.dims)} need {expected} bytes, but {length} are declared in external data."
            )
        if location not in self._sizes:
            self._sizes[location] = self._size(location, who)
        size = self._sizes[location]
        if size is None and tensor.name in self._unread:
            # The runtime drops what nothing reads before it opens files.
            return Weight(tensor.name, tensor.data_type, tuple(tensor.dims), 0, True)
        if size is None:
            raise _missing(
                f'{who} lie in another file ("{location}"), which is not there. Upload it beside the model, or save the'
                " model as one file (onnx.save with save_as_external_data=False)."
            )
        if offset + length > size:
            raise _missing(
                f'{who} end at byte {offset + length} of "{location}", which has only {size} bytes. Upload that file'
                " again: it is cut off, or belongs to another version of the model."
            )
        return Weight(tensor.name, tensor.data_type, tuple(tensor.dims), length, True, location, offset)

    def _size(self, location: str, who: str) -> int | None:
        """Bytes of a file of weights; None for one that is not there."""
        size = self._folder.size(location)
        if size is not None and size <= MAX_POINTER_BYTES:
            pointer = pointer_text(self._folder.read_at(location, 0, size) if size else b"")
            if pointer:
                raise _missing(f'{who} lie in another file ("{location}"); it is {pointer}.')
        return size

    def refuse_external(self, node: NodeProto) -> None:
        """Local functions are kept whole; the runtime reads no external data in them."""
        for attribute in node.attribute:
            for tensor in tensors_of(attribute):
                if tensor.data_location == TensorProto.EXTERNAL:
                    raise _missing(
                        f"A tensor of {node_text(node)}, which is in a function of the model, lies in another file."
                        " Keep such tensors in the model itself."
                    )


def plain(location: str) -> str:
    """A path without the parts that lead nowhere, as the runtime sees it; one that leads out stays one that does."""
    if location.startswith("/"):
        return location
    parts: list[str] = []
    for part in location.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def folders_passed(model: ModelProto) -> set[str]:
    """Folders that paths of external data go into and leave again: the runtime minds that they are there."""
    passed: set[str] = set()
    for tensor in all_tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL or len(passed) >= _MAX_FOLDERS:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        parts = location.split("/")
        ways = {plain("/".join(parts[:end])) for end, part in enumerate(parts) if part == ".."}
        passed |= {way for way in ways if is_confined(way)}
    return passed


def _names_read(graph: GraphProto) -> set[str]:
    """Names that callers may set, that a node of the graph or of its subgraphs reads, or that are outputs of one."""
    names = {value.name for value in graph.input}
    for each in all_graphs(graph):
        names.update(name for node in each.node for name in node.input)
        names.update(value.name for value in each.output)
    return names


def _smallest(tensor: TensorProto) -> TensorProto:
    """A complete tensor of the same type and rank, with no element."""
    return TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0] * max(1, len(tensor.dims)), raw_data=b"")


def _rename(graph: GraphProto, moved: dict[str, str]) -> None:
    for node in all_nodes(graph.node):
        for index, name in enumerate(node.input):
            if name in moved:
                node.input[index] = moved[name]
    for value in graph.output:
        if value.name in moved:
            # An output keeps its name; what it was is handed through.
            graph.node.append(helper.make_node("Identity", [moved[value.name]], [value.name]))


def _keep(repeated: object, kept: list) -> None:  # type: ignore[type-arg]
    """Leave only these messages in a repeated field; they are copied, since clearing it frees them."""
    copies = [type(each).FromString(each.SerializeToString()) for each in kept]
    del repeated[:]  # type: ignore[attr-defined]
    repeated.extend(copies)  # type: ignore[attr-defined]


def _number(entries: dict[str, str], key: str, default: int, who: str) -> int:
    text = entries.get(key)
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise _invalid(f"{who} have the {key} {text!r} in external data, which is not a size in bytes.")
    return int(text)


def _check_shape(name: str, data_type: int, dims: list[int] | tuple[int, ...]) -> None:
    if any(not 0 <= size <= _MAX_DIMENSION for size in dims):
        raise _invalid(f'The initializer "{name}" has a negative dimension.')
    if bits(data_type) == 0 and data_type != TensorProto.STRING:
        raise _invalid(f'The initializer "{name}" has no known type ({data_type}).')


def _check_values(weight: Weight) -> None:
    _check_shape(weight.name, weight.data_type, weight.dims)
    expected = tensor_bytes(weight.data_type, weight.dims)
    fixed = weight.raw or weight.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    if weight.data_type != TensorProto.STRING and fixed and weight.stored_bytes != expected:
        raise _invalid(
            f'The initializer "{weight.name}" of shape {list(weight.dims)} needs {expected} bytes but holds'
            f" {weight.stored_bytes}."
        )


def _invalid(text: str) -> RefusedError:
    return RefusedError(Reason.INVALID_GRAPH, text)


def _missing(text: str) -> RefusedError:
    return RefusedError(Reason.EXTERNAL_DATA_MISSING, text)
