"""``kubectl onnx predict``: one prediction, by a model of this machine or by a running endpoint."""

import http.client
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from onnx_operator.api.text import visible
from onnx_operator.cli.output import console, echo, echo_json
from onnx_operator.server.dataplane.batching import run
from onnx_operator.server.dataplane.inference import Inference, check_feed, check_shape, choose_outputs, find_input
from onnx_operator.server.dataplane.tensors import DTYPES, Array, decode
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.jsonbody import encode, parse_object
from onnx_operator.server.http.openinference import Codec
from onnx_operator.server.http.score import read_score

TIMEOUT_SECONDS = 60
LONGEST_ANSWER = 1 << 30
"""Bytes."""
Answer = dict[str, Any]


class PredictionError(click.ClickException):
    """The model, or the server, refuses the request; ends with 1."""

    exit_code = 1


class UnreachableError(click.ClickException):
    """Nobody answers, or an input cannot be read; ends with 2."""

    exit_code = 2


def read_data(given: str) -> bytes:
    """The body that ``--data`` names: JSON, ``@FILE``, or ``-`` for standard input."""
    if given == "-":
        return sys.stdin.buffer.read()
    if not given.startswith("@"):
        return given.encode()
    try:
        return Path(given[1:]).read_bytes()
    except OSError as error:
        raise UnreachableError(f"--data {given}: {error.strerror}") from None


def read_inputs(given: Sequence[str]) -> dict[str, Array]:
    """The arrays that ``--input NAME=FILE`` name: .npy, .npz (its only array), .pb (TensorProto) or .json."""
    found: dict[str, Array] = {}
    for entry in given:
        name, equals, file = entry.rpartition("=")
        if not equals or not name:
            raise click.UsageError(f"--input {entry!r}: expected NAME=FILE, such as data=picture.npy")
        found[name] = _array(Path(file))
    return found


def _array(path: Path) -> Array:
    try:
        match path.suffix.lower():
            case ".npy":
                return np.asarray(np.load(path, allow_pickle=False))
            case ".npz":
                with np.load(path, allow_pickle=False) as arrays:
                    if len(arrays.files) != 1:
                        raise UnreachableError(f"--input {path}: holds {len(arrays.files)} arrays; expected one")
                    return np.asarray(arrays[arrays.files[0]])
            case ".pb":
                from onnx_operator.server.runtime.tensorproto import parse_tensor

                return np.asarray(parse_tensor(path.read_bytes()).array)
            case ".json":
                return np.asarray(json.loads(path.read_text()))
            case ending:
                raise UnreachableError(f"--input {path}: {ending or 'no ending'}; expected .npy, .npz, .pb or .json")
    except (OSError, ValueError, RecursionError) as error:
        raise UnreachableError(f"--input {path} cannot be read: {error}") from None


def predict_here(path: Path, name: str, data: bytes | None, arrays: dict[str, Array]) -> Answer:
    """Run the model once; made-up values where neither data nor arrays are given. Raises :class:`PredictionError`."""
    from onnx_operator.server.runtime.failures import LoadError
    from onnx_operator.server.runtime.finding import NotFound, Sources
    from onnx_operator.server.runtime.finding import find_input as find_made_up
    from onnx_operator.server.runtime.session import SessionSettings, load

    try:
        model = load(path, SessionSettings())
        codec = Codec(model, name, "")
        if arrays:
            inference = _inference(model, arrays)
        elif data is None:
            found = find_made_up(model, Sources())
            if isinstance(found, NotFound):
                raise PredictionError(f"no made-up input is answered, give one with --data: {found.message}")
            feed = found.feed
            echo("no input was given: these are the answers to made-up values", err=True)
            inference = Inference(feed, choose_outputs(model, ()))
        elif "inputs" in (body := parse_object(data)) and isinstance(body["inputs"], list):
            inference, _ = codec.read(data, None)
        else:
            inference = read_score(model, body)
            inference.outputs = choose_outputs(model, ())
        # All outputs, in the protocol's form.
        form = codec.read_form(list(inference.outputs))
        answer, _ = codec.write(form, run(model, inference))
        return dict(json.loads(answer))
    except (RequestError, LoadError) as error:
        raise PredictionError(str(error)) from None


def _inference(model: Any, arrays: dict[str, Array]) -> Inference:
    feed: dict[str, Array] = {}
    for name, array in arrays.items():
        info = find_input(model, name)
        check_shape(info, array.shape)
        if info.datatype not in DTYPES:
            raise RequestError(f"input {name} has datatype {info.datatype}, which files here cannot hold")
        if array.dtype == DTYPES[info.datatype]:
            feed[name] = array
        else:
            feed[name] = decode(array.reshape(-1).tolist(), info.datatype, list(array.shape), f"input {name}")
    check_feed(model, feed)
    return Inference(feed, choose_outputs(model, ()))


def predict_there(endpoint: str, name: str, data: bytes | None, arrays: dict[str, Array], token: str) -> Answer:
    """Ask a running server by the Open Inference Protocol, or ``/score`` for data of that form.

    Raises :class:`PredictionError`, :class:`UnreachableError`.
    """
    base = endpoint.rstrip("/")
    if arrays:
        metadata = _ask(f"{base}/v2/models/{name}", None, token)
        try:
            inputs = {str(entry["name"]): entry | {"datatype": entry["datatype"]} for entry in metadata["inputs"]}
        except (LookupError, TypeError) as error:
            raise PredictionError(f"{base} describes no model of the Open Inference Protocol: {error!r:.200}") from None
        unknown = [entry for entry in arrays if entry not in inputs]
        if unknown:
            raise PredictionError(f"unknown input {unknown[0]!r}; the model takes {', '.join(inputs)}")
        tensors = [
            {"name": n, "datatype": inputs[n]["datatype"], "shape": list(a.shape), "data": a.reshape(-1).tolist()}
            for n, a in arrays.items()
        ]
        return _ask(f"{base}/v2/models/{name}/infer", encode({"inputs": tensors}), token)
    if data is None:
        raise click.UsageError("with --endpoint, give the input with --data or --input")
    try:
        given = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PredictionError(f"--data is not JSON: {error}") from None
    protocol = isinstance(given, dict) and isinstance(given.get("inputs"), list)
    return _ask(f"{base}/v2/models/{name}/infer" if protocol else f"{base}/score", data, token)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take the token along, to whomever the server names."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _why(error: urllib.error.HTTPError) -> str:
    if 300 <= error.code <= 399:
        there = error.headers.get("Location", "")
        return f"it redirects to {there:.500}, where nothing is sent; give that address as --endpoint if it is meant"
    try:
        said = error.read(4000)
    except (OSError, http.client.HTTPException):
        return "and breaks off"
    try:
        return str(json.loads(said)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return said.decode(errors="replace")


def _ask(url: str, body: bytes | None, token: str) -> Answer:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    if not url.startswith(("http://", "https://")):
        raise click.UsageError(f"--endpoint {url!r}: expected http://HOST:PORT or https://HOST")
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - checked above
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT_SECONDS) as read:
            told = read.read(LONGEST_ANSWER + 1)
        if len(told) > LONGEST_ANSWER:
            raise UnreachableError(f"{url} answers with more than {LONGEST_ANSWER >> 20} MiB")
        answer = json.loads(told)
    except urllib.error.HTTPError as error:
        with error:
            raise PredictionError(f"{url} answers {error.code}: {_why(error)}") from None
    # A peer that does not speak HTTP makes the client raise any of these.
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
        raise UnreachableError(f"{url} does not answer: {error!s:.500}") from None
    return answer if isinstance(answer, dict) else {"answer": answer}


def show(answer: Answer) -> None:
    """Print an answer for people: a table an output, the likeliest classes of one row.

    Raises :class:`PredictionError` for an answer that is none of the protocol.
    """
    try:
        _show(answer)
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise PredictionError(f"the answer is not one of the Open Inference Protocol: {error!r:.200}") from None


def _show(answer: Answer) -> None:
    from rich.table import Table

    if not isinstance(answer.get("outputs"), list):
        echo_json(answer, indent=2)
        return
    for output in answer["outputs"]:
        table = Table(title=visible(f"{output['name']}  {output['datatype']} {output['shape']}"), title_justify="left")
        data = output["data"]
        columns = output["shape"][-1] if output["shape"] else 1
        if len(data) == columns and columns > 5 and all(isinstance(v, int | float) for v in data):
            table.add_column("class")
            table.add_column("value")
            for index in sorted(range(len(data)), key=lambda i: -data[i])[:5]:
                table.add_row(str(index), f"{data[index]:.6g}")
            table.caption = f"the five largest of {len(data)}"
        else:
            for _ in range(min(columns, 12)):
                table.add_column("")
            rows = [data[at : at + columns] for at in range(0, len(data), columns or 1)]
            for row in rows[:10]:
                table.add_row(*(f"{v:.6g}" if isinstance(v, float) else visible(str(v)) for v in row[:12]))
            if len(rows) > 10 or columns > 12:
                table.caption = f"cut: {len(rows)} rows of {columns}; --output json shows all"
        table.show_header = bool(table.columns and table.columns[0].header)
        console().print(table)
