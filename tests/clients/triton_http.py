"""tritonclient over HTTP: python triton_http.py HTTP_PORT GRPC_PORT JOBS RESULTS."""

import sys
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.http as triton
from lockstep import Job, follow

client = triton.InferenceServerClient(f"127.0.0.1:{sys.argv[1]}")


def ask(job: Job, binary: bool) -> dict[str, Any]:
    """Infer with all tensors binary, or none."""
    inputs = []
    for name, datatype, array in job["inputs"]:
        tensor = triton.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array.view(ml_dtypes.bfloat16) if datatype == "BF16" else array, binary_data=binary)
        inputs.append(tensor)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in job["outputs"]]
    result = client.infer("m", inputs, outputs=outputs, request_id=job["name"])
    answer = result.get_response()
    assert answer["id"] == job["name"]
    assert [output["name"] for output in answer["outputs"]] == job["outputs"]
    found = {}
    for output in answer["outputs"]:
        array = result.as_numpy(output["name"])
        found[output["name"]] = output["datatype"], array.view(np.uint16) if output["datatype"] == "BF16" else array
    return found


follow({"binary": lambda job: ask(job, True), "json": lambda job: ask(job, False)})
