"""Small real models for the tests, made with the onnx package."""

import io

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def _save(graph: onnx.GraphProto, *, opset: int = 17, ir_version: int = 9, domains: tuple[str, ...] = ()) -> bytes:
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version, producer_name="onnx-operator-tests")
    buffer = io.BytesIO()
    onnx.save(model, buffer)
    return buffer.getvalue()


def linear(seed: int = 0, *, features: int = 4, outputs: int = 3, padding_bytes: int = 0) -> bytes:
    """``y = x · W + b`` with seeded weights, batch symbolic; ``padding_bytes`` of more weights."""
    random = np.random.default_rng(seed)
    weights = {
        "W": random.standard_normal((features, outputs), dtype=np.float32),
        "b": random.standard_normal(outputs, dtype=np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["product"], "product"),
        helper.make_node("Add", ["product", "b"], ["y"], "sum"),
    ]
    if padding_bytes:
        weights["padding"] = random.standard_normal(padding_bytes // 4, dtype=np.float32)
        nodes[-1] = helper.make_node("Add", ["product", "b"], ["biased"], "sum")
        nodes += [
            helper.make_node("ReduceMean", ["padding"], ["mean"], "mean", keepdims=0),
            helper.make_node("Add", ["biased", "mean"], ["y"], "shift"),
        ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", outputs])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return _save(graph)


def lower_case() -> bytes:
    """Texts in lower case, by the rules of a locale."""
    made = helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER", is_case_sensitive=1)
    texts = [helper.make_tensor_value_info(name, TensorProto.STRING, ["words"]) for name in ("x", "y")]
    return _save(helper.make_graph([made], "lower_case", texts[:1], texts[1:]))


def unknown_operator() -> bytes:
    """A model whose node ``mystery`` has an operator that no server knows."""
    graph = helper.make_graph(
        [helper.make_node("FancyGelu", ["x"], ["y"], "mystery", domain="com.example")],
        "unknown",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    return _save(graph, domains=("com.example",))


def newer_opset() -> bytes:
    """A model of an operator set that does not exist yet."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"], "same")],
        "newer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    return _save(graph, opset=99)


def invalid_graph() -> bytes:
    """A model whose node ``dangling`` reads a tensor that nothing produces."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "nowhere"], ["y"], "dangling")],
        "invalid",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    return _save(graph)


def fails_warm_up() -> bytes:
    """Structurally fine, but no input can be answered: it gathers row 10 of a table with 2 rows."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "index"], ["row"], "lookup"),
            helper.make_node("Add", ["x", "row"], ["y"], "sum"),
        ],
        "impossible",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.zeros((2, 4), np.float32), "table"),
            numpy_helper.from_array(np.array([10], np.int64), "index"),
        ],
    )
    return _save(graph)


def crashes_at_load() -> bytes:
    """Ends the process where constants are folded: the least INT64 over -1."""
    graph = helper.make_graph(
        [
            helper.make_node("Div", ["least", "minus_one"], ["overflow"], "divide"),
            helper.make_node("Add", ["x", "overflow"], ["y"], "sum"),
        ],
        "crashes",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [1])],
        [
            numpy_helper.from_array(np.array([-(2**63)], np.int64), "least"),
            numpy_helper.from_array(np.array([-1], np.int64), "minus_one"),
        ],
    )
    return _save(graph)


def answers_no_more() -> bytes:
    """The interface of ``linear``, and no input can be answered: its biases are row 10 of a table with 2 rows."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "W"], ["product"], "product"),
            helper.make_node("Gather", ["table", "index"], ["b"], "lookup"),
            helper.make_node("Add", ["product", "b"], ["y"], "sum"),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(np.ones((4, 3), np.float32), "W"),
            numpy_helper.from_array(np.zeros((2, 3), np.float32), "table"),
            numpy_helper.from_array(np.array([10], np.int64), "index"),
        ],
    )
    return _save(graph)


def hungry(mebibytes: int) -> bytes:
    """A tiny file that needs this much memory for each inference."""
    elements = mebibytes * 2**20 // 4
    graph = helper.make_graph(
        [
            helper.make_node("Expand", ["x", "size"], ["wide"], "widen"),
            helper.make_node("Exp", ["wide"], ["grown"], "grow"),
            helper.make_node("ReduceSum", ["grown"], ["y"], "reduce", keepdims=0),
        ],
        "hungry",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(np.array([elements], np.int64), "size")],
    )
    return _save(graph)
