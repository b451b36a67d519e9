"""What is asked of the servers, how, and what is aimed at."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto

from benchmarks import cases as models

ROWS = 16
"""Different requests that take turns."""


@dataclass(frozen=True)
class Case:
    """One measurement. ``aim`` is the share of bare runs to reach, ``peers`` who is measured beside us."""

    name: str
    title: str
    make: Callable[[], ModelProto]
    input: str
    shape: tuple[int, ...]
    protocol: str
    clients: int
    aim: float | None
    peers: tuple[str, ...] = ("kserve", "mlserver")
    longer: float = 1.0


_MLP = (models.mlp, "x", (1, 784))
_RESNET = (models.resnet50, "gpu_0/data_0", (1, 3, 224, 224))

CASES = (
    Case("mlp-json-8", "MLP 784→256→10, JSON", *_MLP, "json", 8, 0.30),
    Case("mlp-json-32", "MLP 784→256→10, JSON", *_MLP, "json", 32, 0.45),
    Case("mlp-binary-32", "MLP 784→256→10, binary", *_MLP, "binary", 32, 0.80, ("kserve",)),
    Case("iris-json-8", "linear 4→3, JSON", models.iris, "x", (1, 4), "json", 8, 0.25),
    Case("resnet50-binary-8", "ResNet-50, binary", *_RESNET, "binary", 8, 0.95, ("kserve",), 3.0),
    Case("resnet50-json-8", "ResNet-50, JSON", *_RESNET, "json", 8, 0.85, (), 3.0),
    Case("mlp-grpc-32", "MLP 784→256→10, gRPC", *_MLP, "grpc", 32, None, ("kserve",)),
)


def rows(case: Case) -> list[Any]:
    """The inputs of all requests, uniform in 0 to 1 as pixels are."""
    random = np.random.default_rng(models.SEED)
    return [random.random(case.shape, dtype=np.float32) for _ in range(ROWS)]


def body(case: Case, row: Any) -> tuple[bytes, dict[str, str]]:
    """A request over HTTP and its headers; JSON as most Python clients write it, ``array.tolist()``."""
    tensor = {"name": case.input, "shape": list(case.shape), "datatype": "FP32"}
    if case.protocol != "binary":
        text = json.dumps({"inputs": [tensor | {"data": row.ravel().tolist()}]}).encode()
        return text, {"Content-Type": "application/json"}
    raw = row.tobytes()
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return head + raw, headers


def message(case: Case, row: Any) -> bytes:
    """A ModelInferRequest with raw contents."""
    from onnx_operator.server.rpc import inference_pb2

    request = inference_pb2.ModelInferRequest(model_name="m")
    request.inputs.add(name=case.input, datatype="FP32", shape=list(case.shape))
    request.raw_input_contents.append(row.tobytes())
    return bytes(request.SerializeToString())
