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

from onnx_operator.api.urls import model_path
from onnx_operator.cli.output import console, echo, echo_json
from onnx_operator.common.text import visible
from onnx_operator.server.dataplane.batching import run
from onnx_operator.server.dataplane.inference import Inference, check_feed, check_shape, choose_outputs, find_input
from onnx_operator.server.dataplane.model import ServedModel
from onnx_operator.server.dataplane.tensors import DTYPES, Array, decode
from onnx_operator.server.dataplane.tensors import encode as encode_values
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.jsonbody import encode, parse_value
from onnx_operator.server.http.openinference import Codec
from onnx_operator.server.http.score import read_score_body, write_score

TIMEOUT_SECONDS = 60
MAX_ANSWER_LENGTH = 1 << 30
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


def media_type(given: str | None) -> str:
    """What ``--data`` names: CSV by its file's ending, else JSON."""
    return "text/csv" if given and given.startswith("@") and given.lower().endswith(".csv") else "application/json"


def predict_here(path: Path, name: str, data: bytes | None, arrays: dict[str, Array], media: str = "") -> Answer:
    """Run the model once; made-up values where neither data nor arrays are given. Raises :class:`PredictionError`.

    ``media``: the media type of the data.
    """
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
            inference = Inference(feed, _outputs(model))
        elif media != "text/csv" and _of_protocol(parse_value(data)):
            inference, _ = codec.read(data, None)
        else:
            inference = read_score_body(model, data, media.encode())
            inference.outputs = _outputs(model)
        return _answer(model, codec, inference)
    except (RequestError, LoadError) as error:
        raise PredictionError(str(error)) from None


def _of_protocol(body: object) -> bool:
    """Whether a body is of the Open Inference Protocol, and not of ``/score``."""
    return isinstance(body, dict) and isinstance(body.get("inputs"), list)


def _outputs(model: ServedModel) -> tuple[str, ...]:
    """All outputs. Raises :class:`RequestError` for a tensor that cannot be shown."""
    if any(info.datatype for info in model.outputs):
        choose_outputs(model, ())
    return tuple(info.name for info in model.outputs)


def _answer(model: ServedModel, codec: Codec, inference: Inference) -> Answer:
    """All that was asked for in the protocol's form, with the names of classes; sequences and maps as in ``/score``."""
    results = dict(zip(inference.outputs, run(model, inference), strict=True))
    infos = [model.output_by_name[name] for name in inference.outputs]
    tensors = [info.name for info in infos if info.datatype]
    text, _ = codec.write(codec.read_form(tensors), [results[name] for name in tensors])
    answer: Answer = json.loads(text)
    written = {output["name"]: output for output in answer["outputs"]}
    for info in infos:
        if info.classes:
            written[info.name]["parameters"] = {"classes": list(info.classes)}
        elif not info.datatype:
            data = write_score(model, [info.name], [results[info.name]])[info.name]
            written[info.name] = {"name": info.name, "datatype": info.onnx_type, "shape": [], "data": data}
    return answer | {"outputs": [written[info.name] for info in infos]}


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
            feed[name] = decode(encode_values(array), info.datatype, list(array.shape), f"input {name}")
    check_feed(model, feed)
    return Inference(feed, _outputs(model))


def predict_there(
    endpoint: str, name: str, data: bytes | None, arrays: dict[str, Array], token: str, media: str = ""
) -> Answer:
    """Ask a running server by the Open Inference Protocol, or ``/score`` for data of that form.

    Raises :class:`PredictionError`, :class:`UnreachableError`.
    """
    base = endpoint.rstrip("/")
    if arrays:
        metadata = _ask(f"{base}{model_path(name)}", None, token)
        try:
            inputs = {str(entry["name"]): entry | {"datatype": entry["datatype"]} for entry in metadata["inputs"]}
        except (LookupError, TypeError) as error:
            raise PredictionError(f"{base} describes no model of the Open Inference Protocol: {error!r:.200}") from None
        unknown = [entry for entry in arrays if entry not in inputs]
        if unknown:
            raise PredictionError(f"unknown input {unknown[0]!r}; the model takes {', '.join(inputs)}")
        tensors = [
            {"name": n, "datatype": inputs[n]["datatype"], "shape": list(a.shape), "data": _values(n, a)}
            for n, a in arrays.items()
        ]
        return _with_classes(_ask(f"{base}{model_path(name)}/infer", encode({"inputs": tensors}), token), metadata)
    if data is None:
        raise click.UsageError("with --endpoint, give the input with --data or --input")
    if media == "text/csv":
        return _ask(f"{base}/score", data, token, media)
    try:
        given = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PredictionError(f"--data is not JSON: {error}") from None
    if not _of_protocol(given):
        return _ask(f"{base}/score", data, token)
    answer = _ask(f"{base}{model_path(name)}/infer", data, token)
    try:
        return _with_classes(answer, _ask(f"{base}{model_path(name)}", None, token))
    except (PredictionError, UnreachableError):
        # Another server may have no metadata; the answer is there.
        return answer


def _values(name: str, array: Array) -> list[Any]:
    """The elements as JSON values; NaN and the infinities in the protocol's words. Raises :class:`PredictionError`."""
    if array.dtype.kind not in "biufUO":
        raise PredictionError(f"--input {name}: holds {array.dtype}; expected numbers, booleans or texts")
    return encode_values(array)


def _with_classes(answer: Answer, metadata: Answer) -> Answer:
    """The answer with the names of classes that the metadata tells, which may hold anything."""
    told: dict[str, Any] = {}
    outputs, described = answer.get("outputs"), metadata.get("outputs")
    for entry in described if isinstance(described, list) else []:
        parameters = entry.get("parameters") if isinstance(entry, dict) else None
        classes = parameters.get("classes") if isinstance(parameters, dict) else None
        if isinstance(classes, list):
            told[str(entry.get("name"))] = classes
    for output in outputs if isinstance(outputs, list) else []:
        if isinstance(output, dict) and str(output.get("name")) in told:
            own = output.get("parameters")
            output["parameters"] = {
                **(own if isinstance(own, dict) else {}),
                "classes": told[str(output.get("name"))],
            }
    return answer


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


def _ask(url: str, body: bytes | None, token: str, media: str = "application/json") -> Answer:
    headers = {"Content-Type": media} | ({"Authorization": f"Bearer {token}"} if token else {})
    if not url.startswith(("http://", "https://")):
        raise click.UsageError(f"--endpoint {url!r}: expected http://HOST:PORT or https://HOST")
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - checked above
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT_SECONDS) as read:
            told = read.read(MAX_ANSWER_LENGTH + 1)
        if len(told) > MAX_ANSWER_LENGTH:
            raise UnreachableError(f"{url} answers with more than {MAX_ANSWER_LENGTH >> 20} MiB")
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
    if not isinstance(answer.get("outputs"), list):
        echo_json(answer, indent=2)
        return
    for output in answer["outputs"]:
        console().print(_table(output))


def _table(output: dict[str, Any]) -> Any:
    from rich.table import Table

    title = visible(f"{output['name']}  {output['datatype']} {output['shape']}")
    # A title is wrapped at the table's own width, which may be that of one word.
    table = Table(title=title, title_justify="left", min_width=min(len(title), 60))
    data, names = output["data"], (output.get("parameters") or {}).get("classes") or []
    if str(output["datatype"]).startswith(("seq(", "map(", "optional(")):
        # No tensor: in the words of /score, an element a row.
        table.add_column("")
        table.show_header = False
        for entry in data[:10] if isinstance(data, list) else [data]:
            table.add_row(visible(json.dumps(entry, ensure_ascii=False)[:2000]))
        return table
    columns = output["shape"][-1] if output["shape"] else 1
    names = [str(each) for each in names] if len(names) == columns else []
    if len(data) == columns and columns > 5 and all(isinstance(v, int | float) for v in data):
        table.add_column("class")
        table.add_column("value")
        for index in sorted(range(len(data)), key=lambda i: -data[i])[:5]:
            table.add_row(visible(names[index]) if names else str(index), f"{data[index]:.6g}")
        table.caption = f"the five largest of {len(data)}"
    else:
        for index in range(min(columns, 12)):
            table.add_column(visible(names[index]) if names else "")
        rows = [data[at : at + columns] for at in range(0, len(data), columns or 1)]
        for row in rows[:10]:
            table.add_row(*(f"{v:.6g}" if isinstance(v, float) else visible(str(v)) for v in row[:12]))
        if len(rows) > 10 or columns > 12:
            table.caption = f"cut: {len(rows)} rows of {columns}; --output json shows all"
    table.show_header = bool(table.columns and any(column.header for column in table.columns))
    return table
