"""A pod of 256 MiB lives through every body that may be sent to it, and answers others meanwhile."""

import gzip
import http.client
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from backports import zstd
from onnx import TensorProto

from onnx_operator.common.cgroups import memory_limit
from onnx_operator.server.dataplane.budget import LEAST, UNLIMITED, Account, Budget, request_bytes
from onnx_operator.server.errors import RequestError
from onnx_operator.server.rpc import inference_pb2 as pb
from tests.unit.server.serving import Process, identity, linear, serving

MIB = 1 << 20
SCORED = Callable[[int], tuple[str, bytes, dict[str, str]]]


def repeated(unit: str, size: int) -> str:
    return ",".join([unit] * (size // (len(unit.encode()) + 1)))


def score(unit: str) -> SCORED:
    return lambda size: ("/score", f'{{"data":[{repeated(unit, size)}]}}'.encode(), {})


def infer(unit: str, datatype: str = "FP32") -> SCORED:
    def make(size: int) -> tuple[str, bytes, dict[str, str]]:
        data = repeated(unit, size)
        head = f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[{data.count(",") + 1}],"data":['
        return "/v2/models/m/infer", (head + data + "]}]}").encode(), {}

    return make


def binary(datatype: str, element: bytes) -> SCORED:
    def make(size: int) -> tuple[str, bytes, dict[str, str]]:
        count = size // len(element)
        tensor = f'{{"name":"x","datatype":"{datatype}","shape":[{count}]'
        head = f'{{"inputs":[{tensor},"parameters":{{"binary_data_size":{count * len(element)}}}}}]}}'.encode()
        return "/v2/models/m/infer", head + element * count, {"Inference-Header-Content-Length": str(len(head))}

    return make


def keys(size: int) -> tuple[str, bytes, dict[str, str]]:
    return "/score", ("{" + ",".join(f'"{number:x}":0' for number in range(size // 9)) + "}").encode(), {}


def packed(make: SCORED, coding: str, packer: Callable[[bytes], bytes]) -> SCORED:
    """The same body compressed, sixteen times as long, with an answer that is compressed."""

    def make_packed(size: int) -> tuple[str, bytes, dict[str, str]]:
        path, body, headers = make(16 * size if size >= MIB else size)
        return path, packer(body), {**headers, "Content-Encoding": coding, "Accept-Encoding": "gzip"}

    return make_packed


NUMBERS: dict[str, SCORED] = {
    "short numbers": infer("1"),
    "long numbers": infer("0.12345678901234567"),
    "objects": score("{}"),
    "lists": score("[]"),
    "lists of lists": score("[[1]]"),
    "keys of objects": score('{"":0}'),
    "keys": keys,
    "not a number, as answers": binary("FP32", b"\0\0\xc0\x7f"),
    "gzip": packed(infer("1"), "gzip", gzip.compress),
    "objects, gzip": packed(score("{}"), "gzip", gzip.compress),
    "zstd": packed(binary("FP32", b"\0\0\xc0\x7f"), "zstd", zstd.compress),
}
STRINGS: dict[str, SCORED] = {
    "strings": infer('"ab"', "BYTES"),
    "wide strings": score('"\u4e00b"'),
    "binary strings": binary("BYTES", b"\2\0\0\0ab"),
}


class Pod:
    """A server that may use 256 MiB: in a control group where this machine has them to give, else by an option."""

    def __init__(self, process: Process, group: Path | None, budget: int) -> None:
        self.process, self.group, self.budget = process, group, budget
        self.base = self.status("VmRSS")

    def status(self, name: str) -> int:
        lines = Path(f"/proc/{self.process.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

    def send(self, path: str, body: bytes, headers: dict[str, str], count: int) -> Counter[int]:
        found: Counter[int] = Counter()

        def ask() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.process.port, timeout=60)
            try:
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
                answer.read()
                found[answer.status] += 1
            finally:
                connection.close()

        threads = [threading.Thread(target=ask) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    def check(self) -> None:
        assert self.process.process.poll() is None, "the server was killed"
        if self.group is None:
            # Outside of the budget: what gRPC and the allocator hold (40 MiB were seen).
            assert self.status("VmHWM") - self.base < self.budget + 64 * MIB
        assert self.process.get("/v2/health/live").status == 200


def _group() -> Path | None:
    folder = Path("/sys/fs/cgroup/memory") / f"onnx-requests-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(256 * MIB))
    except OSError:
        return None
    return folder


def pod(content: bytes, *options: str) -> Iterator[Pod]:
    group = _group()
    budget = 110 * MIB
    if group is None:
        options = (*options, "--memory-budget", str(budget))
    else:
        # What is started from here is born there; this process goes back.
        (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        with serving(content, "--grpc-port", "0", *options) as process:
            if group is not None:
                (group.parent / "cgroup.procs").write_text(str(os.getpid()))
            told = next(entry["bytes"] for entry in process.log if entry["message"] == "memory for requests")
            yield Pod(process, group, told)
    finally:
        if group is not None:
            (group.parent / "cgroup.procs").write_text(str(os.getpid()))
            group.rmdir()


@pytest.fixture(scope="module")
def numbers() -> Iterator[Pod]:
    yield from pod(identity(TensorProto.FLOAT, None))


@pytest.fixture(scope="module")
def strings() -> Iterator[Pod]:
    yield from pod(identity(TensorProto.STRING, None))


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    file = tmp_path_factory.mktemp("script") / "score.py"
    file.write_text('import json\n\ndef init():\n    pass\n\ndef run(raw):\n    return len(json.loads(raw)["data"])\n')
    yield from pod(linear(), "--script", str(file))


CASES = [("numbers", name) for name in NUMBERS] + [("strings", name) for name in STRINGS]
CASES += [("script", name) for name in ("objects", "lists", "lists of lists", "objects, gzip")]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_no_body_kills_the_pod(request: pytest.FixtureRequest, kind: str, name: str) -> None:
    served: Pod = request.getfixturevalue(kind)
    make = (NUMBERS | STRINGS)[name]
    for size, count in ((MIB, 32), (8 * MIB, 8)):
        found = served.send(*make(size), count)
        assert set(found) <= {200, 400, 413, 503}, found
        served.check()
    # And it goes on with what it can do.
    assert served.send(*make(20_000), 1).keys() <= {200, 400}


def test_a_large_body_of_ordinary_numbers_is_answered(numbers: Pod) -> None:
    assert numbers.send(*infer("0.12345678901234567")(6 * MIB), 1) == {200: 1}


def test_no_grpc_message_kills_the_pod(numbers: Pod) -> None:
    port = next(entry["grpcPort"] for entry in numbers.process.log if "grpcPort" in entry)
    request = pb.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[750_000])
    raw = pb.ModelInferRequest()
    raw.CopyFrom(request)
    raw.raw_input_contents.append(np.ones(750_000, np.float32).tobytes())
    typed = pb.ModelInferRequest()
    typed.CopyFrom(request)
    typed.inputs[0].contents.fp32_contents.extend(np.ones(750_000).tolist())
    tensor.contents.int64_contents.extend([1] * 3_000_000)
    bodies = [each.SerializeToString() for each in (raw, typed, request)] + [b"\x2a\x00" * 1_500_000]
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_receive_message_length", -1)]) as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for body in bodies:
            calls = [ask.future(body, timeout=60) for _ in range(32)]
            codes = Counter(call.code() for call in calls)
            allowed = {"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
            assert {code.name for code in codes} <= allowed, codes
            print(Counter(codes), numbers.status("VmHWM") >> 20, numbers.status("VmRSS") >> 20)
            numbers.check()


def test_an_answer_that_nobody_reads_is_counted_until_it_is(numbers: Pod) -> None:
    path, body, headers = binary("FP32", b"\0\0\x80\x3f")(MIB)
    idle = []
    for _ in range(60):
        connection = http.client.HTTPConnection("127.0.0.1", numbers.process.port, timeout=60)
        connection.request("POST", path, body, headers)
        idle.append(connection)
    numbers.check()
    for connection in idle:
        connection.close()
    assert numbers.send(*infer("1")(20_000), 1) == {200: 1}


def test_the_budget_is_given_back() -> None:
    budget = Budget(100)
    account = Account(budget, 0)
    account.reserve(60)
    with pytest.raises(RequestError) as refusal:
        Account(budget, 0).reserve(60)
    assert refusal.value.status == 503
    with pytest.raises(RequestError) as refusal:
        account.reserve(101)
    assert refusal.value.status == 413
    account.lower(50)
    assert account.keep(20) == 20
    assert budget.used == 20


def test_what_is_held_without_being_counted_is_left_out() -> None:
    class Held:
        held, free = 900_000, 0

        def beyond(self) -> int:
            return self.held

        def release(self) -> None:
            self.held -= self.free

    budget, held = Budget(1_000_000), Held()
    budget.memory = held
    assert not budget.take(300_000)
    held.free = 500_000
    assert budget.take(300_000)


@pytest.mark.parametrize(
    ("limit", "processes", "resident", "run", "runs", "expected"),
    [
        (None, 1, 100 * MIB, 0, 1, UNLIMITED),
        (256 * MIB, 1, 100 * MIB, 0, 1, (256 * MIB - 256 * MIB // 10) - 112 * MIB),
        (256 * MIB, 1, 100 * MIB, 10 * MIB, 3, (256 * MIB - 256 * MIB // 10) - 132 * MIB),
        (1024 * MIB, 2, 100 * MIB, 0, 1, (1024 * MIB - 1024 * MIB // 10) // 2 - 112 * MIB),
        (64 * MIB, 1, 100 * MIB, 0, 1, LEAST),
    ],
)
def test_the_budget_is_what_the_limit_leaves(
    limit: int | None, processes: int, resident: int, run: int, runs: int, expected: int
) -> None:
    assert request_bytes(limit, processes, resident, run, runs) == expected


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000\n"}, 1000),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "nonsense"}, None),
        (
            {
                "proc/self/cgroup": "0::/pod/server\n",
                "sys/fs/cgroup/pod/server/memory.max": "max\n",
                "sys/fs/cgroup/pod/memory.max": "500\n",
                "sys/fs/cgroup/memory.max": "1000\n",
            },
            500,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/a\n9:memory:/kubepods/pod\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/kubepods/pod/memory.limit_in_bytes": "700\n",
                "sys/fs/cgroup/memory/kubepods/memory.limit_in_bytes": "600\n",
            },
            600,
        ),
        # Inside a container the path is the node's; what is mounted as the root is the container's own.
        (
            {
                "proc/self/cgroup": "9:memory:/kubepods/pod\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.stat": "cache 5\nhierarchical_memory_limit 800\n",
            },
            800,
        ),
    ],
)
def test_the_least_limit_of_all_groups_counts(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_limit(tmp_path) == limit
