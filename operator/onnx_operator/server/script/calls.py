"""How ``run()`` wants to be called: with text, with the request, or with the parameters of its schema."""

import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl

from onnx_operator.server.script import web

_REQUEST_MODULES = ("azureml.contrib.services.aml_request", "azureml_inference_server_http.api.aml_request")
HEADERS_PARAMETER = "request_headers"


class CallError(Exception):
    """The request cannot be handed to ``run()``; ``status`` says why, ``azure`` does in Azure ML's words."""

    def __init__(self, message: str, azure: str, status: int = 400) -> None:
        super().__init__(message)
        self.azure = azure
        self.status = status


class EntryError(Exception):
    """The script has no ``run()`` that can be called."""


@dataclass(frozen=True)
class Request:
    """A request as the server received it; ``target`` is the path and what follows ``?``."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Caller:
    """Calls ``run`` in the one way it was written for."""

    run: Callable[..., Any]
    arguments: Callable[[Request], dict[str, Any]]
    wants_headers: bool
    schema: bool
    raw: bool
    """Whether it takes requests of every method as they are."""

    def __call__(self, request: Request) -> Any:
        """Call ``run``. Raises :class:`CallError`, and whatever ``run`` raises."""
        arguments = self.arguments(request)
        if self.wants_headers:
            arguments[HEADERS_PARAMETER] = {name.title(): value for name, value in request.headers}
        return self.run(**arguments)


def analyse(run: Callable[..., Any]) -> Caller:
    """Find out how ``run`` is to be called. Raises :class:`EntryError`."""
    parameters = list(inspect.signature(run).parameters.values())
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise EntryError(f"run() has the parameter {parameter}; expected named ones, as in run(raw_data)")
    wants_headers = any(parameter.name == HEADERS_PARAMETER for parameter in parameters)
    parameters = [parameter for parameter in parameters if parameter.name != HEADERS_PARAMETER]
    if not parameters:
        raise EntryError("run() takes no data; expected a parameter, as in run(raw_data)")
    decorated, raw = _has_schema(run), _raw_http()
    if decorated and raw:
        raise EntryError("run() is decorated with both @rawhttp and @input_schema; expected one of them")
    arguments: Callable[[Request], dict[str, Any]]
    name = parameters[0].name
    if raw:
        make = _request_maker()
        arguments = lambda request: {name: make(request)}  # noqa: E731
    elif decorated:
        arguments = lambda request: _by_name(parameters, request)  # noqa: E731
    else:
        arguments = lambda request: {name: _text(request)}  # noqa: E731
    return Caller(run, arguments, wants_headers, decorated, raw)


def _has_schema(run: Callable[..., Any]) -> bool:
    if "inference_schema" not in sys.modules:
        return False
    return bool(import_module("inference_schema.schema_util").is_schema_decorated(run))


def _raw_http() -> bool:
    return web.raw_http_requested() or any(
        getattr(sys.modules.get(name), "_rawHttpRequested", False) for name in _REQUEST_MODULES
    )


def _request_maker() -> Callable[[Request], Any]:
    if web.raw_http_requested():
        return lambda request: web.AMLRequest(request.method, request.target, request.headers, request.body)
    # Azure's own package was installed: its requests and responses are Flask's.
    flask = import_module("flask")
    return lambda request: flask.Request(_wsgi(request))


def _wsgi(request: Request) -> dict[str, Any]:
    import io
    from urllib.parse import unquote_to_bytes

    path, _, query = request.target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "CONTENT_LENGTH": str(len(request.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in request.headers:
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_LENGTH", "TRANSFER_ENCODING"):
            environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    return environ


def _text(request: Request) -> str:
    if request.method == "GET":
        return json.dumps(_query(request))
    try:
        return request.body.decode()
    except UnicodeDecodeError as error:
        raise CallError(
            f"the body is not UTF-8 text: {error}; a script takes bytes when it is @rawhttp",
            f"Input cannot be decoded as UTF-8: {error}",
        ) from None


def _query(request: Request) -> dict[str, Any]:
    found: dict[str, list[Any]] = {}
    for name, value in parse_qsl(request.target.partition("?")[2], keep_blank_values=True):
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        found.setdefault(name, []).append(parsed)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _by_name(parameters: list[inspect.Parameter], request: Request) -> dict[str, Any]:
    given = _query(request) if request.method == "GET" else _json_object(request)
    by_lower = {str(name).lower(): value for name, value in given.items()}
    arguments = {}
    for parameter in parameters:
        if parameter.name in given:
            arguments[parameter.name] = given[parameter.name]
        elif parameter.name.lower() in by_lower:
            arguments[parameter.name] = by_lower[parameter.name.lower()]
        elif parameter.default is not parameter.empty:
            # The decorators convert what is handed over alone, so that defaults are, too.
            arguments[parameter.name] = parameter.default
        else:
            expected = ", ".join(p.name for p in parameters if p.default is p.empty)
            raise CallError(
                f"the parameter {parameter.name!r} is missing; expected an object with: {expected}",
                f"A value is not provided for the {parameter.name!r} parameter.",
            )
    return arguments


def _json_object(request: Request) -> dict[str, Any]:
    kind = next((value for name, value in request.headers if name.lower() == "content-type"), "")
    mimetype = kind.partition(";")[0].strip().lower()
    if mimetype != "application/json" and not (mimetype.startswith("application/") and mimetype.endswith("+json")):
        raise CallError(
            f"Content-Type is {kind!r}, expected application/json", "Expects Content-Type to be application/json", 415
        )
    try:
        given = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        told = f"POST body could not be decoded as JSON: {error}"
        azure = told if request.body else "POST body is empty. Expecting a JSON dictionary."
        raise CallError(f"the body is not JSON: {error}", azure) from None
    if not isinstance(given, dict):
        raise CallError(
            "the body is not a JSON object; expected the parameters of run() by name",
            "POST body should be a JSON dictionary.",
        )
    return given
