"""The document at ``/swagger.json`` for a script: its own file, or made from its schema decorators."""

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

_ANYTHING = {"type": "object", "example": {}}


def describe(
    folders: Sequence[Path], run: Callable[..., Any], name: str, version: str, decorated: bool
) -> dict[str, Any] | None:
    """Swagger 2.0, or OpenAPI 3.0 where the schema needs that; None where neither can hold it.

    A ``swagger.json`` in one of the script's folders wins, as in Azure ML. Raises ValueError where that is no JSON
    object.
    """
    for file in [folder / each for folder in folders for each in ("swagger.json", "swagger2.json")]:
        if file.is_file():
            document = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(document, dict):
                raise ValueError(f"{file.name} is not a JSON object")
            return document
    taken, given, versions = _ANYTHING, _ANYTHING, ["2.0"]
    if decorated:
        schema_util = import_module("inference_schema.schema_util")
        taken, given = schema_util.get_input_schema(run), schema_util.get_output_schema(run)
        versions = schema_util.get_supported_versions(run)
    info = {"title": name or "score", "version": version or "1.0", "description": "Answered by a scoring script."}
    schemas = {"ServiceInput": taken, "ServiceOutput": given, "ErrorResponse": _ERROR}
    if any(str(v).startswith("2") for v in versions):
        return _document({"swagger": "2.0", "info": info, "definitions": schemas}, "#/definitions/", nested=False)
    if any(str(v).startswith("3") for v in versions):
        head = {"openapi": "3.0.3", "info": info, "components": {"schemas": schemas}}
        return _document(head, "#/components/schemas/", nested=True)
    return None


_ERROR = {"type": "object", "properties": {"error": {"type": "string"}, "message": {"type": "string"}}}


def _document(head: dict[str, Any], prefix: str, nested: bool) -> dict[str, Any]:
    def body(schema: str) -> dict[str, Any]:
        reference = {"schema": {"$ref": prefix + schema}}
        return {"content": {"application/json": reference}} if nested else reference

    taken: dict[str, Any] = (
        {"requestBody": {"required": True, **body("ServiceInput")}}
        if nested
        else {
            "consumes": ["application/json"],
            "produces": ["application/json"],
            "parameters": [{"name": "serviceInputPayload", "in": "body", "required": True, **body("ServiceInput")}],
        }
    )
    responses = {
        "200": {"description": "What the script returned.", **body("ServiceOutput")},
        "default": {"description": "What went wrong.", **body("ErrorResponse")},
    }
    operation = {"operationId": "RunMLService", "summary": "Run the script.", **taken, "responses": responses}
    return {**head, "paths": {"/score": {"post": operation}}}
