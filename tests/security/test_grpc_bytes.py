"""Whatever bytes come as a message, gRPC answers with a code of the protocol, soon and within the server's memory."""

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from onnx import TensorProto

from onnx_operator.server.errors import RequestError
from onnx_operator.server.rpc import inference_pb2 as pb
from onnx_operator.server.rpc.wire import MAX_REQUEST_FIELDS, MAX_UNPACKED_ELEMENTS, parsed_bytes
from tests.security.fuzzing import Fuzz, mutated
from tests.unit.server.serving import Process, identity, linear, serving

PATIENCE = 60
CODES = {
    *(grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND),
    *(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED),
}


class Caller:
    """A channel that sends bytes and takes bytes."""

    def __init__(self, process: Process) -> None:
        port = next(entry["grpcPort"] for entry in process.log if "grpcPort" in entry)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_send_message_length", -1)])
        self.infer = self.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    def ask(self, body: bytes) -> tuple[grpc.StatusCode, str]:
        try:
            self.infer(body, timeout=PATIENCE)
        except grpc.RpcError as error:
            return error.code(), error.details()  # type: ignore[attr-defined]
        return grpc.StatusCode.OK, ""


@pytest.fixture(scope="module")
def server() -> Iterator[Process]:
    options = ["--grpc-port", "0", "--request-timeout", str(PATIENCE)]
    with serving(identity(TensorProto.FLOAT, None, "x"), *options) as process:
        yield process


@pytest.fixture(scope="module")
def caller(server: Process) -> Iterator[Caller]:
    found = Caller(server)
    yield found
    found.channel.close()


def message(shape: list[int], **values: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=shape)
    for name, elements in values.items():
        getattr(tensor.contents, name).extend(elements)
    return request


@pytest.mark.parametrize("count", [65, 60_000, 400_000])
def test_a_shape_without_end_is_refused_before_its_sizes_are_multiplied(caller: Caller, count: int) -> None:
    typed = message([2**63 - 1] * count, fp32_contents=[1.0])
    raw = message([2**63 - 1] * count)
    raw.raw_input_contents.append(b"\0\0\0\0")
    for request in (typed, raw):
        code, details = caller.ask(request.SerializeToString())
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert f"got one of {count} dimensions" in details


@pytest.mark.parametrize(
    ("piece", "words"),
    [(b"\x2a\x00", "fields"), (b"\x32\x00", "fields"), (b"\x3a\x00", "fields"), (b"\x78\x00", "fields")],
)
def test_a_message_of_empty_messages_is_refused_before_it_is_parsed(caller: Caller, piece: bytes, words: str) -> None:
    code, details = caller.ask(piece * 1_000_000)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in details


def test_what_a_message_takes_is_known_from_its_bytes() -> None:
    numbers = message([1000], fp32_contents=np.ones(1000).tolist()).SerializeToString()
    assert len(numbers) < parsed_bytes(numbers) < 10 * len(numbers)
    short = message([1], int64_contents=[1] * 10_000).SerializeToString()
    assert parsed_bytes(short) > 20 * len(short)
    with pytest.raises(RequestError, match=str(MAX_REQUEST_FIELDS)):
        parsed_bytes(b"\x2a\x00" * (MAX_REQUEST_FIELDS + 1))
    for broken in (b"\xff" * 20, b"\x2a\x7f", b"\x0b", b"\x2a" + b"\x80" * 30, b""):
        assert parsed_bytes(broken) >= 0


def test_elements_are_the_same_however_they_are_sent(caller: Caller) -> None:
    values = np.linspace(-3, 3, 1001, dtype=np.float32)
    typed = message([1001], fp32_contents=values.tolist())
    answer = pb.ModelInferResponse.FromString(caller.infer(typed.SerializeToString(), timeout=PATIENCE))
    assert list(answer.outputs[0].contents.fp32_contents) == values.tolist()


def test_callers_whose_message_never_comes_do_not_stop_others(server: Process) -> None:
    """More calls are opened than messages are taken in at once; they are ended, and the rest is answered."""
    with serving(linear(), "--grpc-port", "0", "--request-timeout", "2") as process:
        caller = Caller(process)
        stream = caller.channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        release = threading.Event()

        def never() -> Iterator[bytes]:
            release.wait(PATIENCE)
            yield b""

        hanging = [stream.future(never(), timeout=PATIENCE) for _ in range(40)]
        request = pb.ModelInferRequest(model_name="m")
        request.inputs.add(name="X", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([1, 0, 0, 0])
        body = request.SerializeToString()
        found = [caller.ask(body)[0] for _ in range(30)]
        assert found[-1] is grpc.StatusCode.OK
        assert set(found) <= CODES | {grpc.StatusCode.DEADLINE_EXCEEDED}
        release.set()
        for call in hanging:
            call.cancel()
        caller.channel.close()


@pytest.mark.fuzz
def test_damaged_messages_get_a_code_of_the_protocol_and_the_server_lives(
    fuzz: Fuzz, server: Process, caller: Caller
) -> None:
    raw = message([2])
    raw.raw_input_contents.append(np.ones(2, np.float32).tobytes())
    rich = message([1, 2], fp32_contents=[1, 2])
    rich.id = "a"
    rich.parameters["p"].string_param = "v"
    rich.inputs[0].parameters["q"].int64_param = 1
    rich.outputs.add(name="y")
    seeds = [
        message([3], fp32_contents=[1, 2, 3]).SerializeToString(),
        raw.SerializeToString(),
        rich.SerializeToString(),
    ]
    for rng in fuzz(800):
        body = mutated(rng, rng.choice(seeds))
        if rng.random() < 0.1:
            body *= rng.randint(2, 50)
        code, details = caller.ask(body)
        assert code in CODES, (code, details)
    assert caller.ask(seeds[0])[0] is grpc.StatusCode.OK
    assert server.get("/v2/health/live").status == 200
    assert not [entry for entry in server.log if "failed unexpectedly" in entry["message"]]


@pytest.mark.parametrize("inputs", [1, 4])
def test_elements_one_by_one_are_looked_at_up_to_a_number_in_all_inputs(inputs):
    """Each empty string is two bytes of the message, and a step of our own: not four million for eight MiB."""

    def message(elements: int) -> bytes:
        tensor = pb.InferTensorContents(bytes_contents=[b""] * (elements // inputs))
        one = pb.ModelInferRequest.InferInputTensor(name="x", datatype="BYTES", shape=[1], contents=tensor)
        return pb.ModelInferRequest(inputs=[one] * inputs).SerializeToString()

    assert parsed_bytes(message(MAX_UNPACKED_ELEMENTS)) > MAX_UNPACKED_ELEMENTS
    with pytest.raises(RequestError, match="raw_input_contents"):
        parsed_bytes(message(MAX_UNPACKED_ELEMENTS + inputs))
