"""No body of JSON, whatever its making, takes time that grows faster than it does, or is read in two ways."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.jsonbody import _once, parse_object
from onnx_operator.server.http.openinference import Codec
from onnx_operator.server.http.score import read_score
from tests.security.fuzzing import Fuzz, mutated
from tests.unit.server.http.codeckit import read
from tests.unit.server.serving import Process, identity, linear, load_bytes, serving, tensor

ANY_RANK = load_bytes(identity(TensorProto.FLOAT, None))
LINEAR = load_bytes(linear())
PATIENCE = 60
"""Seconds that a test waits before it takes the server for hung; what is asked takes a second at most."""


@pytest.fixture(scope="module")
def server() -> Iterator[Process]:
    with serving(identity(TensorProto.FLOAT, None), "--request-timeout", str(PATIENCE)) as process:
        yield process


def ask(server: Process, path: str, body: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request("POST", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Counted(str):
    """A key that counts how often it is compared and hashed."""

    work = 0
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        Counted.work += 1
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        Counted.work += 1
        return str.__hash__(self)


def test_a_key_that_comes_twice_is_found_in_one_pass() -> None:
    for count in (1000, 8000):
        Counted.work = 0
        pairs: list[tuple[str, Any]] = [(Counted(f"{number:x}"), 0) for number in range(count)]
        with pytest.raises(RequestError, match="comes twice"):
            _once([*pairs, (Counted(f"{count - 1:x}"), 0)])
        assert Counted.work < 8 * count


def test_a_large_object_with_a_key_twice_stops_nobody(server: Process) -> None:
    body = "{" + ",".join(f'"{number:x}":0' for number in range(180_000)) + ',"2bf1f":0}'
    status, text = ask(server, "/score", body)
    assert (status, "comes twice" in text) == (400, True)
    small = body[: body.index(",", 250_000)] + ',"0":0}'
    status, text = ask(server, "/v2/models/m/infer", small)
    assert (status, "comes twice" in text) == (400, True)


@pytest.mark.parametrize("kilobytes", [250, 2000])
@pytest.mark.parametrize("size", ["9223372036854775807", "9" * 4200, "1"])
def test_a_shape_without_end_is_refused_before_its_sizes_are_multiplied(
    server: Process, kilobytes: int, size: str
) -> None:
    count = kilobytes * 1000 // (len(size) + 1)
    shape = ",".join([size] * count)
    inputs = '{"inputs":[{"name":"x","datatype":"FP32","shape":[%s],%s}]}'
    status, text = ask(server, "/v2/models/m/infer", inputs % (shape, '"data":[1]'))
    assert status == 400
    assert f"got one of {count} dimensions" in text or "is beyond what an array can have" in text
    body = inputs % (shape, '"parameters":{"binary_data_size":4}')
    answer = server.post(
        "/v2/models/m/infer", body.encode() + b"\0\0\0\0", Inference_Header_Content_Length=str(len(body))
    )
    assert answer.status == 400


@pytest.mark.parametrize(
    "body",
    [
        "[" * 500_000,
        '{"a":' * 200_000,
        '{"data":' + "[" * 900 + "1" + "]" * 900 + "}",
        '{"data":[' + "9" * 1_000_000 + "]}",
        '{"data":[' + ",".join(["9" * 4299] * 200) + "]}",
        '{"data":[0.' + "1" * 1_000_000 + "]}",
        '{"data":[1' + "0" * 500_000 + "e-500000]}",
        '{"data":[' + ",".join("[]" for _ in range(300_000)) + ",1]}",
        '{"data":[' + ",".join("[" + "1," * (n % 700) + "1]" for n in range(2000)) + "]}",
        '{"data":"' + "\\ud83d" * 100_000 + '"}',
        '{"data":[' + ",".join(['"NaN"'] * 200_000) + ',"x"]}',
        '{"outputs":[' + ",".join(['{"name":"y"}'] * 50_000) + '],"inputs":[]}',
        '{"inputs":[' + ",".join(['{"name":"x","datatype":"FP32","shape":[1],"data":[1]}'] * 20_000) + "]}",
        '{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1],"parameters":{'
        + ",".join(f'"{n}":{n}' for n in range(100_000))
        + "}}]}",
    ],
    ids=range(14),
)
def test_bodies_that_have_stopped_readers_before_are_answered(server: Process, body: str) -> None:
    for path in ("/score", "/v2/models/m/infer"):
        status, _ = ask(server, path, body)
        assert status in (200, 400)
    assert server.get("/v2/health/live").status == 200


def thorough(model: Any) -> Codec:
    codec = Codec(model, "m", "")
    codec._try_quickly = lambda _: None  # type: ignore[method-assign]
    return codec


@pytest.mark.fuzz
def test_both_readers_see_the_same_in_damaged_bodies(fuzz: Fuzz) -> None:
    seeds = [
        json.dumps({"inputs": [tensor("X", "FP32", [1, 4], [1, 0.5, -2e3, 3])]}).encode(),
        json.dumps({"inputs": [tensor("X", "FP32", [2, 4], [[1, 2, 3, 4], [5, 6, 7, 8]])], "id": "a"}).encode(),
        json.dumps({"inputs": [tensor("X", "FP32", [1, 4], [1, 2, 3, 4])], "outputs": [{"name": "label"}]}).encode(),
    ]
    scores = [b'{"data":[[1,2,3,4],[5,6,7,8.5]]}', b'{"X":[[1,2,3,"NaN"]]}', b'{"data":{"X":[[null,true,3,4]]}}']
    raw = {"name": "X", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
    head = json.dumps({"inputs": [raw]}).encode()
    quick = Codec(LINEAR, "m", "")
    for rng in fuzz(4000):
        # The quick reader goes on with what it has learned from all bodies before.
        body = mutated(rng, rng.choice(seeds)) if rng.random() < 0.9 else rng.choice(seeds)
        assert read(quick, body, None) == read(thorough(LINEAR), body, None)
        sent = mutated(rng, head + np.ones(4, np.float32).tobytes())
        length = str(rng.choice([len(head), len(head), rng.randrange(len(sent) + 2)])).encode()
        assert read(quick, sent, length) == read(Codec(LINEAR, "m", ""), sent, length)
        with contextlib.suppress(RequestError):
            assert read_score(LINEAR, parse_object(mutated(rng, rng.choice(scores)))).feed["X"].shape[1] == 4
