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
UNLIKE_ROWS = 256
"""The same where callers do not resemble each other: none has the length of another, or nearly so."""
CONNECTIONS = (1, 8, 32, 128)


@dataclass(frozen=True)
class Case:
    """One measurement.

    ``aim`` is the share of bare runs to reach, ``peers`` who is measured beside us, ``longer`` how much longer than
    others each turn takes. ``unlike`` callers send bodies of all lengths, each request with a ``traceparent`` and an
    ``x-request-id`` of its own. ``processes`` beyond one share both cores with the load.
    """

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
    unlike: bool = False
    processes: int = 1

    @property
    def path(self) -> str:
        """Where our server takes it."""
        return "/score" if self.protocol == "csv" else "/v2/models/m/infer"


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

_FORMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("json", ("kserve", "mlserver")),
    ("binary", ("kserve",)),
    ("csv", ()),
    ("grpc", ("kserve",)),
)
UNLIKE_CASES = (
    *(
        Case(f"unlike-{form}-{clients}", f"MLP, {form}", *_MLP, form, clients, None, peers, unlike=True)
        for form, peers in _FORMS
        for clients in CONNECTIONS
    ),
    *(
        Case(f"unlike-{form}-32-by-two", f"MLP, {form}", *_MLP, form, 32, None, (), unlike=True, processes=2)
        for form, _ in _FORMS
    ),
)


def rows(case: Case) -> list[Any]:
    """The inputs of all requests, uniform in 0 to 1 as pixels are; of unlike ones with 1 to 8 digits."""
    random = np.random.default_rng(models.SEED)
    if case.unlike:
        # The nearest float32 has the same shortest text: what is compared is what was sent.
        return [
            np.round(random.random(case.shape), random.integers(1, 9)).astype(np.float32) for _ in range(UNLIKE_ROWS)
        ]
    return [random.random(case.shape, dtype=np.float32) for _ in range(ROWS)]


def request_id(case: Case, number: int) -> dict[str, str]:
    """The ``id`` of a request's body, of another length for each of unlike ones; nothing for the others."""
    return {"id": "r" * (1 + number % UNLIKE_ROWS)} if case.unlike else {}


def body(case: Case, row: Any, number: int = 0) -> tuple[bytes, dict[str, str]]:
    """A request over HTTP and its headers; JSON as most Python clients write it, ``array.tolist()``."""
    if case.protocol == "csv":
        line = ",".join(map(repr, _numbers(case, row)))
        return f"{line}\n".encode(), {"Content-Type": "text/csv; header=absent"}
    tensor = {"name": case.input, "shape": list(case.shape), "datatype": "FP32"}
    named = request_id(case, number)
    if case.protocol != "binary":
        text = json.dumps(named | {"inputs": [tensor | {"data": _numbers(case, row)}]}).encode()
        return text, {"Content-Type": "application/json"}
    raw = row.tobytes()
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps(named | {"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return head + raw, headers


def _numbers(case: Case, row: Any) -> list[float]:
    """The row as Python floats; of unlike requests those with the shortest text."""
    return [float(str(each)) for each in row.ravel()] if case.unlike else row.ravel().tolist()


def message(case: Case, row: Any, number: int = 0) -> bytes:
    """A ModelInferRequest with raw contents."""
    from onnx_operator.server.rpc import inference_pb2

    request = inference_pb2.ModelInferRequest(model_name="m", **request_id(case, number))
    request.inputs.add(name=case.input, datatype="FP32", shape=list(case.shape))
    request.raw_input_contents.append(row.tobytes())
    return bytes(request.SerializeToString())
