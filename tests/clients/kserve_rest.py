"""kserve's InferenceRESTClient: python kserve_rest.py HTTP_PORT GRPC_PORT JOBS RESULTS."""

import asyncio
import sys
from typing import Any

from kserve import InferenceRESTClient, RESTConfig
from kserve_tensors import request_of, results_of
from lockstep import Job, follow

loop = asyncio.new_event_loop()
client = InferenceRESTClient(RESTConfig(protocol="v2"))


def ask(job: Job, binary: bool) -> dict[str, Any]:
    """Infer with all tensors binary, or none."""
    request = request_of(job, binary, binary_data=binary)
    return results_of(
        job, loop.run_until_complete(client.infer(f"http://127.0.0.1:{sys.argv[1]}", request, model_name="m"))
    )


follow({"binary": lambda job: ask(job, True), "json": lambda job: ask(job, False)})
