"""Load from the other core: wrk for HTTP/1.1, h2load for gRPC, ghz where no two calls are alike."""

import json
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine
from tests.cluster import tools

_LUA = """
local bodies = {}
for number = 0, %(count)d - 1 do
  local file = io.open("%(folder)s/" .. number .. ".body", "rb")
  bodies[number] = file:read("*a")
  file:close()
end
local requests = {}
local turn = 0
local headers = {%(headers)s}
local heads = {}
init = function(arguments)
  for number = 0, %(count)d - 1 do
    local whole = wrk.format("POST", nil, headers[number + 1], bodies[number])
    requests[number] = whole
    heads[number] = whole:sub(1, #whole - #bodies[number] - 2)
  end
end
request = function()
  turn = turn + 1
  local number = turn %% %(count)d
  if not %(traced)s then return requests[number] end
  local trace = string.format("traceparent: 00-%%016x%%016x-%%016x-01\\r\\n", turn, turn, turn)
  return heads[number] .. trace .. "x-request-id: " .. turn .. "\\r\\n\\r\\n" .. bodies[number]
end
done = function(summary, latency, requests)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write
  failed = failed + summary.errors.status + summary.errors.timeout
  io.write(string.format("@@ %%d %%d %%d %%f %%f\\n", summary.requests, summary.duration, failed,
    latency:percentile(50), latency:percentile(99)))
end
"""


class LoadError(Exception):
    """The load could not be made, or not all of it was answered."""


@dataclass(frozen=True)
class Load:
    """Answers a second, and latencies in seconds (0 where the program does not tell)."""

    rate: float
    p50: float
    p99: float
    answers: int


def program(name: str, package: str) -> str:
    """The path of a load generator. Raises :class:`LoadError` saying how to get it."""
    found = shutil.which(name)
    if found is None:
        raise LoadError(f"{name} is needed to make load; install it, as with: apt-get install {package}")
    return found


class Wrk:
    """Requests that take turns so that no two neighbours are the same.

    ``traced`` ones bear a ``traceparent`` and an ``x-request-id`` that no other has.
    """

    def __init__(self, folder: Path, requests: list[tuple[bytes, dict[str, str]]], *, traced: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (body, _) in enumerate(requests):
            (folder / f"{number}.body").write_bytes(body)
        tables = ", ".join(
            "{" + ", ".join(f"[{json.dumps(k)}] = {json.dumps(v)}" for k, v in headers.items()) + "}"
            for _, headers in requests
        )
        self._script = folder / "load.lua"
        self._script.write_text(
            _LUA % {"count": len(requests), "folder": folder, "headers": tables, "traced": str(traced).lower()}
        )

    def run(self, url: str, clients: int, seconds: float, core: int | None) -> Load:
        """Keep ``clients`` connections busy. Raises :class:`LoadError` if any request was not answered with 200."""
        command = [program("wrk", "wrk"), "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout", "60s"]
        output = _run([*command, "-s", str(self._script), url], core)
        found = re.search(r"@@ (\d+) (\d+) (\d+) (\S+) (\S+)", output)
        if found is None or int(found[3]) or not int(found[1]):
            raise LoadError(f"not all requests to {url} were answered with 200:\n{output}")
        answers, microseconds = int(found[1]), int(found[2])
        return Load(answers / microseconds * 1e6, float(found[4]) / 1e6, float(found[5]) / 1e6, answers)


def h2load(folder: Path, message: bytes, port: int, streams: int, seconds: float, core: int) -> Load:
    """Keep ``streams`` calls of ModelInfer going on one connection. Raises :class:`LoadError`."""
    folder.mkdir(parents=True, exist_ok=True)
    body = folder / "call.bin"
    body.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    command = [program("h2load", "nghttp2-client"), "-D", str(max(1, round(seconds))), "-c1", f"-m{streams}"]
    command += ["-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers"]
    output = _run([*command, f"http://127.0.0.1:{port}/inference.GRPCInferenceService/ModelInfer"], core)
    rate = re.search(r"finished in [^,]+, ([\d.]+) req/s", output)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
    if rate is None or codes is None or not int(codes[1]) or any(int(codes[n]) for n in (2, 3, 4)):
        raise LoadError(f"not all calls were answered:\n{output}")
    return Load(float(rate[1]), 0.0, 0.0, int(codes[1]))


def ghz(folder: Path, messages: list[bytes], port: int, streams: int, seconds: float, core: int | None) -> Load:
    """Keep ``streams`` calls going on one connection, with messages that take turns and metadata of each call's own.

    Raises :class:`LoadError` if any call was not answered.
    """
    from google.protobuf.json_format import MessageToDict

    from onnx_operator.server import rpc
    from onnx_operator.server.rpc import inference_pb2

    folder.mkdir(parents=True, exist_ok=True)
    calls = [
        MessageToDict(inference_pb2.ModelInferRequest.FromString(each), preserving_proto_field_name=True)
        for each in messages
    ]
    (folder / "calls.json").write_text(json.dumps(calls))
    trace = "{{printf `00-%032x-%016x-01` .RequestNumber .RequestNumber}}"
    command = [str(tools.program("ghz")), "--insecure", "--proto", str(Path(rpc.__file__).with_name("inference.proto"))]
    command += ["--call", "inference.GRPCInferenceService/ModelInfer", "--data-file", str(folder / "calls.json")]
    command += ["--metadata", json.dumps({"traceparent": trace, "x-request-id": "{{.RequestNumber}}"})]
    command += ["--concurrency", str(streams), "--connections", "1", "--cpus", "1", "--format", "json"]
    command += ["--duration", f"{max(1, round(seconds))}s", "--duration-stop", "wait", f"127.0.0.1:{port}"]
    told = json.loads(_run(command, core))
    answered = told["statusCodeDistribution"].get("OK", 0)
    if not answered or answered != told["count"]:
        raise LoadError(f"not all calls were answered: {told['statusCodeDistribution']}")
    at = {each["percentage"]: each["latency"] / 1e9 for each in told["latencyDistribution"]}
    return Load(told["rps"], at[50], at[99], answered)


def _run(command: list[str], core: int | None) -> str:
    bind = machine.unpin if core is None else lambda: machine.pin(core)
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=bind, timeout=300)
    if done.returncode:
        raise LoadError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[:2000]}")
    return done.stdout
