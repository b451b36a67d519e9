"""kserve's InferenceRESTClient: python kserve_rest.py HTTP_PORT GRPC_PORT JOBS RESULTS."""

import asyncio
import sys
from typing import Any

from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from lockstep import Job, follow

loop = asyncio.new_event_loop()
client = InferenceRESTClient(RESTConfig(protocol="v2"))


def ask(job: Job, binary: bool) -> dict[str, Any]:
    """Infer with all tensors binary, or none."""
    inputs = []
    for name, datatype, array in job["inputs"]:
        tensor = InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    outputs = [RequestedOutput(name, parameters={"binary_data": binary}) for name in job["outputs"]]
    request = InferRequest("m", inputs, request_id=job["name"], request_outputs=outputs)
    answer = loop.run_until_complete(client.infer(f"http://127.0.0.1:{sys.argv[1]}", request, model_name="m"))
    assert answer.id == job["name"]
    assert [output.name for output in answer.outputs] == job["outputs"]
    return {output.name: (output.datatype, output.as_numpy()) for output in answer.outputs}


follow({"binary": lambda job: ask(job, True), "json": lambda job: ask(job, False)})
