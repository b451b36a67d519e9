"""What an event on a child may say: which models of its namespace to look at. Pure.

Anybody may put the label or a reference on an object of theirs, so it only wakes: what is true is read afterwards.
"""

from itertools import islice

from onnx_operator.api import names
from onnx_operator.controller.cluster.keys import ModelKey
from onnx_operator.controller.cluster.naming import is_model_name, is_namespace
from onnx_operator.controller.cluster.owners import models_named

MAX_WOKEN = 4
"""Models that one event may wake: the one of the label, and those that changed it by hand."""


def model_key(namespace: object, name: object) -> ModelKey | None:
    """The key of a model, where there can be one of this name."""
    if isinstance(namespace, str) and isinstance(name, str) and is_namespace(namespace) and is_model_name(name):
        return namespace, name
    return None


def woken(body: object) -> list[ModelKey]:
    """The models that an object's label and controlling owner name, in its own namespace; each once.

    The owner counts too: a label that was changed by hand names another model.
    """
    metadata = body.get("metadata") if isinstance(body, dict) else None
    if not isinstance(metadata, dict):
        return []
    labels = metadata.get("labels")
    labelled = labels.get(names.LABEL_MODEL) if isinstance(labels, dict) else None
    keys = (model_key(metadata.get("namespace"), name) for name in (labelled, *models_named(metadata)))
    return list(islice(dict.fromkeys(key for key in keys if key), MAX_WOKEN))
