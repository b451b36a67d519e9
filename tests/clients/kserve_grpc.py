"""kserve's InferenceGRPCClient: python kserve_grpc.py HTTP_PORT GRPC_PORT JOBS RESULTS."""

import asyncio
import sys
from typing import Any

from kserve import InferenceGRPCClient
from kserve_tensors import request_of, results_of
from lockstep import Job, follow

loop = asyncio.new_event_loop()


async def connect() -> InferenceGRPCClient:
    """The client wants a running loop when it is made."""
    return InferenceGRPCClient(f"127.0.0.1:{sys.argv[2]}")


client = loop.run_until_complete(connect())


def ask(job: Job, raw: bool) -> dict[str, Any]:
    """Infer with raw contents, or with typed ones."""
    return results_of(job, loop.run_until_complete(client.infer(request_of(job, raw))))


follow({"raw": lambda job: ask(job, True), "typed": lambda job: ask(job, False)})
