"""kserve's InferenceGRPCClient: python kserve_grpc.py HTTP_PORT GRPC_PORT JOBS RESULTS."""

import asyncio
import sys
from typing import Any

from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.infer_type import RequestedOutput
from lockstep import Job, follow

loop = asyncio.new_event_loop()


async def connect() -> InferenceGRPCClient:
    """The client wants a running loop when it is made."""
    return InferenceGRPCClient(f"127.0.0.1:{sys.argv[2]}")


client = loop.run_until_complete(connect())


def ask(job: Job, raw: bool) -> dict[str, Any]:
    """Infer with raw contents, or with typed ones."""
    inputs = []
    for name, datatype, array in job["inputs"]:
        tensor = InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=raw)
        inputs.append(tensor)
    outputs = [RequestedOutput(name) for name in job["outputs"]]
    request = InferRequest("m", inputs, request_id=job["name"], request_outputs=outputs)
    answer = loop.run_until_complete(client.infer(request))
    assert answer.id == job["name"]
    assert [output.name for output in answer.outputs] == job["outputs"]
    return {output.name: (output.datatype, output.as_numpy()) for output in answer.outputs}


follow({"raw": lambda job: ask(job, True), "typed": lambda job: ask(job, False)})
