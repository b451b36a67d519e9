"""The scoring server with a model that changes: the real HTTP and gRPC layers, for thousands of models in a minute.

``python -m tests.clients.fleet``: prints its two ports, then for each line with the path of a model on standard input
attaches that model and prints ``ready``. Its end is that of its input.
"""

import asyncio
import socket
import sys
from pathlib import Path

import uvloop

from onnx_operator.api.contract import Phase
from onnx_operator.server.dataplane.admission import Admission
from onnx_operator.server.dataplane.batching import Batcher, BatchPolicy
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.http.limits import Limits
from onnx_operator.server.http.routes import Routes
from onnx_operator.server.http.server import HttpServer
from onnx_operator.server.lifecycle import Lifecycle
from onnx_operator.server.metrics import Metrics
from onnx_operator.server.rpc.server import serve_grpc
from onnx_operator.server.runtime.session import SessionSettings, load


async def main() -> None:
    """Serve until the input ends."""
    lifecycle, metrics, plane = Lifecycle(), Metrics(), DataPlane("m", timeout=60)
    lifecycle.phase = Phase.SERVING
    limits = Limits()
    http = HttpServer(lifecycle, Admission(metrics, limits.places), limits)
    routes = Routes(http, plane, lifecycle, metrics)
    listener = socket.create_server(("127.0.0.1", 0))
    await http.listen(listener)
    grpc = await serve_grpc(plane, lifecycle, Admission(metrics, limits.places), host="127.0.0.1", port=0)
    print(listener.getsockname()[1], grpc.port, flush=True)
    batcher = None
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            model = load(Path(line.rstrip("\n")), SessionSettings())
            if batcher is not None:
                batcher.close()
            batcher = Batcher(model, BatchPolicy(inline=True), 1, metrics.run)
            plane.attach(model, batcher)
            routes.attach()
        except Exception as error:
            print(f"{type(error).__name__}: {error}".replace("\n", " "), flush=True)
        else:
            print("ready", flush=True)
    await asyncio.gather(grpc.drain(1), http.close(1))


if __name__ == "__main__":
    uvloop.run(main())
