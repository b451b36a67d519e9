"""Where a server's memory and its start go: what each part of it adds to a process that loads them in turn."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

PARTS = (
    ("Python", "pass"),
    ("NumPy", "import numpy"),
    ("ONNX Runtime", "import onnxruntime"),
    ("a session of the model and one run", "session(model)"),
    ("gRPC", "import grpc.aio"),
    ("uvloop, httptools, orjson, simdjson", "import uvloop, httptools, orjson, simdjson"),
    ("pydantic (options and facts of the start)", "import pydantic; pydantic.BaseModel"),
    ("prometheus-client", "import prometheus_client"),
    ("the server's own modules", "import onnx_operator.server.serve"),
)
FLOOR = 4
"""How many of them nobody who serves a model with Python and ONNX Runtime can do without."""


def measure(model: Path, core: int) -> list[tuple[str, float, int]]:
    """Seconds and resident bytes that each part adds, the least of three processes."""
    from benchmarks import machine

    # As the servers are started: with bytecode that is written once.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    turns = []
    for _ in range(3):
        began = time.time()
        command = [sys.executable, "-m", "benchmarks.serving.parts", str(model), str(began)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=variables, preexec_fn=lambda: machine.pin(core)
        )
        turns.append(json.loads(done.stdout))
    return [
        (title, min(turn[n][0] for turn in turns), min(turn[n][1] for turn in turns))
        for n, (title, _) in enumerate(PARTS)
    ]


def _resident() -> int:
    """As ``machine.memory``, whose module would load more than Python itself."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS in /proc/self/status")


def main() -> None:
    """Load part after part and print what each added."""
    model, began = sys.argv[1], float(sys.argv[2])

    def session(path: str) -> None:
        import numpy
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        loaded = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        kept.append(loaded)
        feed = {
            each.name: numpy.zeros([size if isinstance(size, int) else 1 for size in each.shape], numpy.float32)
            for each in loaded.get_inputs()
        }
        loaded.run(None, feed)

    kept: list[object] = []
    found, resident = [], 0
    for _, code in PARTS:
        exec(code, {"session": session, "model": model})
        now, holds = time.time(), _resident()
        found.append((now - began, holds - resident))
        began, resident = now, holds
    print(json.dumps(found))


if __name__ == "__main__":
    main()
