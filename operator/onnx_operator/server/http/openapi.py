"""Descriptions of the served model's HTTP interface for tools: OpenAPI 3.1, and Swagger 2.0 as Azure ML has it.

https://spec.openapis.org/oas/v3.1.0 and https://swagger.io/specification/v2/
"""

from collections.abc import Mapping
from typing import Any

from onnx_operator import __version__
from onnx_operator.api.urls import model_path, prediction_path
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.dataplane.tensors import DTYPES, TensorInfo

Json = dict[str, Any]

_SPELLED: Json = {"enum": ["NaN", "Infinity", "-Infinity"]}
_ELEMENTS: dict[str, Json] = {
    "f": {"anyOf": [{"type": ["number", "boolean", "null"]}, _SPELLED]},
    "i": {"type": ["integer", "boolean"]},
    "u": {"type": ["integer", "boolean"]},
    "b": {"anyOf": [{"type": "boolean"}, {"enum": [0, 1]}]},
}
"""What ``/score`` takes for an element, by the kind of its type."""


def openapi(plane: DataPlane, example: Mapping[str, Any] | None, scripted: bool = False) -> Json:
    """The document at ``/openapi.json``. ``example`` holds nested lists by input. Raises RequestError while loading."""
    paths: Json = {
        "/v2": {"get": _get("serverMetadata", "Name and version of the server", _object(name="string"))},
        "/v2/health/live": {"get": _get("serverLive", "Whether the process works", _object(live="boolean"))},
        "/v2/health/ready": {
            "get": _get("serverReady", "Whether requests should come here", _object(ready="boolean"), ready=True)
        },
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Prometheus metrics",
                "responses": {"200": {"description": "Text", "content": {"text/plain": {}}}},
            }
        },
    }
    paths["/v2/models"] = {"get": _get("models", "The model that is served", _object(models="array"))}
    model = model_path(plane.name)
    paths[model + "/ready"] = {
        "get": _get("modelReady", "Whether the model answers", _object(name="string", ready="boolean"), ready=True)
    }
    paths[model + "/stats"] = {
        "get": _get("modelStats", "What was scored, as Triton has it", _object(model_stats="array"))
    }
    if scripted:
        paths["/score"] = {"post": _post("score", "Score by the script", {}, {}, None, plane)}
    else:
        paths[model] = {"get": _get("modelMetadata", "Inputs and outputs", _object(name="string", platform="string"))}
        configuration = _object(name="string", platform="string", max_batch_size="integer")
        paths[model + "/config"] = {"get": _get("modelConfig", "Triton's model configuration", configuration)}
        paths[model + "/infer"] = {
            "post": _post(
                "modelInfer",
                "Open Inference Protocol v2",
                infer_request_schema(plane),
                infer_response_schema(plane),
                infer_example(plane, example),
                plane,
            )
        }
        paths["/score"] = {
            "post": _post("score", "Plain JSON", _score_body(plane), _score_response(plane), example, plane)
        }
        for path, operation in ((prediction_path(plane.name), "predict"), ("/invocations", "invocations")):
            told = "Rows in, rows out, as KServe's V1 protocol and MLflow have them"
            paths[path] = {"post": _post(operation, told, _rows_body(), _object(predictions={}), None, plane)}
    return {
        "openapi": "3.1.0",
        "info": {"title": plane.name, "version": plane.version or "1", "x-server": f"onnx-operator {__version__}"},
        "paths": paths,
        "components": {"schemas": {"Error": _error_schema()}},
    }


def swagger(plane: DataPlane, example: Mapping[str, Any] | None, script: Mapping[str, Any] | None = None) -> Json:
    """The document at ``/swagger.json``; ``script`` is that of a scoring script, which is returned as it is."""
    if script is not None:
        return dict(script)
    definition: Json = {"type": "object"}
    response: Json = {"type": "object"}
    try:
        definition, response = _plain(score_schema(plane)), _plain(_score_response(plane))
    except Exception:
        # A scoring script without a schema of its own: anything goes.
        example = None
    if example is not None:
        definition["example"] = dict(example)
    return {
        "swagger": "2.0",
        "info": {"title": plane.name, "version": plane.version or "1"},
        "schemes": ["http", "https"],
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "paths": {
            "/": {"get": {"operationId": "ServiceHealthCheck", "responses": {"200": {"description": "Healthy"}}}},
            "/score": {
                "post": {
                    "operationId": "RunMLService",
                    "parameters": [
                        {
                            "name": "serviceInputPayload",
                            "in": "body",
                            "required": True,
                            "schema": {"$ref": "#/definitions/ServiceInput"},
                        }
                    ],
                    "responses": {
                        "200": {"description": "The outputs", "schema": {"$ref": "#/definitions/ServiceOutput"}},
                        "default": {"description": "Why not", "schema": {"$ref": "#/definitions/ErrorResponse"}},
                    },
                }
            },
        },
        "definitions": {"ServiceInput": definition, "ServiceOutput": response, "ErrorResponse": _error_schema()},
    }


def infer_example(plane: DataPlane, example: Mapping[str, Any] | None) -> Json | None:
    """The protocol's request for a feed of nested lists."""
    if example is None:
        return None
    inputs = []
    for name, value in example.items():
        info = plane.model.input_by_name[name]
        inputs.append({"name": name, "datatype": info.datatype, "shape": _shape(value), "data": value})
    return {"inputs": inputs}


def infer_request_schema(plane: DataPlane) -> Json:
    """JSON Schema of the body of ``…/infer`` for this model."""
    inputs = [info for info in plane.model.inputs if info.datatype in DTYPES]
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "inputs": {
                "type": "array",
                "items": {"oneOf": [_tensor(info) for info in inputs]} if inputs else {},
                "minItems": sum(not info.optional for info in inputs),
                "maxItems": len(inputs),
            },
            "outputs": {
                "type": ["array", "null"],
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": {"enum": [info.name for info in plane.model.outputs if info.datatype]},
                        "parameters": {"type": ["object", "null"], "properties": {"binary_data": {"type": "boolean"}}},
                    },
                },
            },
            "parameters": {"type": ["object", "null"], "properties": {"binary_data_output": {"type": "boolean"}}},
        },
    }


def infer_response_schema(plane: DataPlane) -> Json:
    """JSON Schema of the answer of ``…/infer``."""
    return {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "model_name": {"const": plane.name},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name", "datatype", "shape"],
                    "properties": {
                        "name": {"enum": [info.name for info in plane.model.outputs]},
                        "datatype": {"type": "string"},
                        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                        "data": {"type": "array"},
                    },
                },
            },
        },
    }


def score_schema(plane: DataPlane) -> Json:
    """JSON Schema of the body of ``/score``: inputs by name, as nested lists."""
    inputs = [info for info in plane.model.inputs if info.datatype in DTYPES]
    return {
        "type": "object",
        "required": [info.name for info in inputs if not info.optional],
        "properties": {info.name: _nested(info) for info in inputs},
    }


def _score_body(plane: DataPlane) -> Json:
    """What ``/score`` takes: inputs by name, and tables in forms that their first values tell."""
    table = {"type": ["object", "array"], "title": "Table", "description": "as pandas writes it, or the only input"}
    return {"anyOf": [score_schema(plane), table]}


def _rows_body() -> Json:
    forms = ("instances", "inputs", "dataframe_split", "dataframe_records")
    return {"type": "object", "anyOf": [{"required": [form]} for form in forms]}


def _score_response(plane: DataPlane) -> Json:
    return {"type": "object", "properties": {info.name: {} for info in plane.model.outputs}}


def _tensor(info: TensorInfo) -> Json:
    return {
        "type": "object",
        "title": info.name,
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": info.name},
            "datatype": {"const": info.datatype},
            "shape": _shape_schema(info),
            "data": {"type": "array"},
        },
    }


def _shape_schema(info: TensorInfo) -> Json:
    if not info.shape:
        return {"type": "array", "items": {"type": "integer", "minimum": 0}}
    sizes: list[Json] = [
        {"const": size} if isinstance(size, int) else {"type": "integer", "minimum": 0, "description": size or "any"}
        for size in info.shape
    ]
    if info.filled_up:
        sizes[0] = {"type": "integer", "minimum": 1, "maximum": info.shape[0]}
    return {"type": "array", "prefixItems": sizes, "minItems": len(sizes), "maxItems": len(sizes)}


def _nested(info: TensorInfo) -> Json:
    assert info.datatype is not None
    kind = DTYPES[info.datatype].kind
    element = dict(_ELEMENTS.get(kind, {"type": "string"}))
    if not info.shape:
        return {"description": f"{info.datatype}, a value or nested lists"}
    for size in reversed(info.shape):
        element = {"type": "array", "items": element}
        if isinstance(size, int):
            element |= {"minItems": size, "maxItems": size}
    if info.filled_up:
        element["minItems"] = 1
    return element


def _shape(value: Any) -> list[int]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _plain(schema: Any) -> Any:
    """The schema in Swagger 2.0's words, which know no ``const``."""
    if isinstance(schema, dict) and (isinstance(schema.get("type"), list) or "anyOf" in schema):
        # The first of the types is the usual one.
        first = schema["anyOf"][0] if "anyOf" in schema else schema
        kind = first["type"]
        return {"type": kind[0] if isinstance(kind, list) else kind}
    if isinstance(schema, dict):
        return {("enum" if k == "const" else k): ([v] if k == "const" else _plain(v)) for k, v in schema.items()}
    return schema


def _object(**properties: str | Json) -> Json:
    found = {name: {"type": kind} if isinstance(kind, str) else kind for name, kind in properties.items()}
    return {"type": "object", "properties": found}


def _get(operation: str, summary: str, schema: Json, ready: bool = False) -> Json:
    responses = {"200": {"description": summary, "content": {"application/json": {"schema": schema}}}}
    if ready:
        responses["503"] = {"description": "Not yet", "content": {"application/json": {"schema": schema}}}
    return {"operationId": operation, "summary": summary, "responses": responses}


def _post(operation: str, summary: str, request: Json, response: Json, example: Any, plane: DataPlane) -> Json:
    body: Json = {"schema": request}
    if example is not None:
        body["example"] = dict(example)
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    failures = {
        "400": "Not a request that this model understands; the message says what was expected",
        "408": "The body did not come in time",
        "413": "The body is too large",
        "415": "The body is compressed in a way that is not understood",
        "429": "The server is full",
        "500": "The model failed",
        "503": "The model is still loading, or the server stops",
        "504": f"No answer within {plane.timeout:g} s",
    }
    responses: Json = {"200": {"description": "The outputs", "content": {"application/json": {"schema": response}}}}
    content: Json = {"application/json": body}
    if "anyOf" in request:
        content["text/csv"] = {"schema": {"type": "string"}}
    if operation == "modelInfer":
        # With binary tensors: JSON, then bytes.
        responses["200"]["content"]["application/octet-stream"] = {}
    responses |= {code: {"description": text, "content": error} for code, text in failures.items()}
    return {
        "operationId": operation,
        "summary": summary,
        "requestBody": {"required": True, "content": content},
        "responses": responses,
    }


def _error_schema() -> Json:
    return {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
