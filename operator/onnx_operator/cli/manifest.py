"""An OnnxModel from a file, with what the file holds beside it. Pure but for reading the file."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import ValidationError

from onnx_operator.api.names import KIND
from onnx_operator.api.onnxmodel import OnnxModelSpec

ENDINGS = (".yaml", ".yml", ".json")
SCRIPT = "score.py"


@dataclass(frozen=True)
class Manifest:
    """A model as a manifest asks for it. ``scoring`` are the script's files by name."""

    name: str
    spec: OnnxModelSpec
    scoring: dict[str, str] = field(default_factory=dict)


def is_manifest(given: str) -> bool:
    """Whether an argument names a manifest; ``-`` is standard input."""
    return given == "-" or given.lower().endswith(ENDINGS)


def read_manifest(given: str) -> Manifest:
    """Read the one OnnxModel of a file. Raises click's exceptions, naming the field that is wrong."""
    try:
        text = sys.stdin.read() if given == "-" else Path(given).read_text()
        documents = [document for document in yaml.safe_load_all(text) if isinstance(document, dict)]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise click.ClickException(f"{given} cannot be read as YAML: {error}") from None
    models = [document for document in documents if document.get("kind") == KIND]
    if len(models) != 1:
        raise click.ClickException(f"{given} holds {len(models)} documents of kind {KIND}; expected one")
    (model,) = models
    try:
        spec = OnnxModelSpec.model_validate(model.get("spec") or {})
    except ValidationError as error:
        problems = "; ".join(f"spec.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise click.ClickException(f"{given}: {problems}") from None
    name = str((model.get("metadata") or {}).get("name") or "model")
    return Manifest(name, spec, _scoring(given, spec, documents))


def _scoring(given: str, spec: OnnxModelSpec, documents: list[dict[str, Any]]) -> dict[str, str]:
    scoring = spec.scoring
    if scoring is None:
        return {}
    if scoring.script is not None:
        return {SCRIPT: scoring.script}
    if scoring.image is not None:
        raise click.ClickException(
            f"{given}: spec.scoring.image {scoring.image!r} runs in a cluster only; name its script with --script"
        )
    for document in documents:
        if document.get("kind") == "ConfigMap" and document["metadata"].get("name") == scoring.config_map_name:
            return {str(name): str(text) for name, text in (document.get("data") or {}).items()}
    raise click.ClickException(
        f"{given}: spec.scoring.configMapName: the ConfigMap {scoring.config_map_name!r} is not in the same file; "
        "put it there, or name the script with --script"
    )
