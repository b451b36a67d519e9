"""Models to judge, and what judges them."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_operator.api.report import Capabilities, InspectionResult
from onnx_operator.model.reading.folder import MemoryFolder
from onnx_operator.model.verdict import verify

CAPABILITIES = Capabilities(
    onnx_runtime_version="1.32.0",
    ir_version=14,
    opsets={"ai.onnx": 28, "ai.onnx.ml": 5, "com.microsoft": 1},
    operators={"com.microsoft": ["BiasGelu", "FusedMatMul", "Gelu"]},
)


def verdict(model: onnx.ModelProto | bytes, capabilities: Capabilities = CAPABILITIES) -> InspectionResult:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return verify(MemoryFolder({"model.onnx": data}), "model.onnx", capabilities=capabilities)


def reason(model: onnx.ModelProto | bytes, capabilities: Capabilities = CAPABILITIES) -> str:
    result = verdict(model, capabilities)
    return result.refusal.reason.value if result.refusal else "Accepted"


def message(model: onnx.ModelProto | bytes, capabilities: Capabilities = CAPABILITIES) -> str:
    result = verdict(model, capabilities)
    assert result.refusal is not None, result
    return result.refusal.message


def value(name: str, shape=("N", 4), kind=TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def tensor(name: str, *shape: int, kind=np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, kind), name)


def model(
    nodes, inputs=None, outputs=None, initializers=(), opsets=(("", 17),), ir_version=8, functions=()
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x")] if inputs is None else inputs,
        [value("y")] if outputs is None else outputs,
        list(initializers),
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=ir_version, functions=list(functions), producer_name="tests"
    )


def linear(size: int = 4, kind=np.float32) -> onnx.ModelProto:
    return model(
        [helper.make_node("MatMul", ["x", "w"], ["h"], name="mm"), helper.make_node("Relu", ["h"], ["y"])],
        inputs=[value("x", ("N", size))],
        outputs=[value("y", ("N", size))],
        initializers=[tensor("w", size, size, kind=kind)],
    )
