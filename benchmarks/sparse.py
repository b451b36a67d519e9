"""Models of many gigabytes that take no room: their weights are holes in the file."""

from pathlib import Path

from onnx import TensorProto, helper

from onnx_operator.model.reading.wire import encode_varint, head

TENSORS = 300
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9


def write_single_file(path: Path, side: int = 1260) -> None:
    """A chain of 300 matrix products; each matrix has ``side`` squared numbers: 1.9 GB by default."""
    size = side * side * 4
    graph = _chain(side)
    tensors = []
    for number in range(TENSORS):
        tensor = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=[side, side]).SerializeToString()
        tensors.append(tensor + head(_TENSOR_RAW_DATA, size))
    nodes = graph.SerializeToString()
    initializers = [head(_GRAPH_INITIALIZER, len(tensor) + size) + tensor for tensor in tensors]
    length = len(nodes) + sum(len(each) + size for each in initializers)
    opset = helper.make_opsetid("", 17).SerializeToString()
    with path.open("wb") as file:
        file.write(encode_varint(1 << 3) + encode_varint(8) + head(_MODEL_GRAPH, length) + nodes)
        for each in initializers:
            file.write(each)
            file.seek(size, 1)
        file.write(head(8, len(opset)) + opset)


def write_external(path: Path, side: int = 2887) -> Path:
    """The same with external data, 10 GB by default. Returns the path of the weights."""
    size = side * side * 4
    graph = _chain(side)
    for number in range(TENSORS):
        tensor = graph.initializer.add(name=f"w{number}", data_type=TensorProto.FLOAT, dims=[side, side])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights.bin"), ("offset", number * size), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    weights = path.with_name("weights.bin")
    with weights.open("wb") as file:
        file.truncate(TENSORS * size)
    return weights


def _chain(side: int):
    nodes = [helper.make_node("MatMul", [f"h{n}", f"w{n}"], [f"h{n + 1}"], f"product{n}") for n in range(TENSORS)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", side]) for name in ("h0", f"h{TENSORS}")]
    return helper.make_graph(nodes, "chain", ends[:1], ends[1:])
