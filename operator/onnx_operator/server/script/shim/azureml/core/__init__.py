"""Stands in for ``azureml-core`` in a scoring pod: the model's path, a run, and words for what is not there."""

from onnx_operator.server.script.azure import (
    Dataset,
    Datastore,
    Environment,
    Experiment,
    Keyvault,
    Run,
    Webservice,
    Workspace,
)
from onnx_operator.server.script.modelpath import Model

__all__ = [
    "Dataset",
    "Datastore",
    "Environment",
    "Experiment",
    "Keyvault",
    "Model",
    "Run",
    "Webservice",
    "Workspace",
]
