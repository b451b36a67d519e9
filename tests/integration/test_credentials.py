"""Credentials of a source, from Secrets in a real API server: only what consents, and only what the store knows."""

import json

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import ModelSource
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.revision.credentials import read_credentials
from onnx_operator.model.refusal import RefusedError

CONSENT = {"onnx-operator.dev/credentials": "true"}
CONFIG = json.dumps({"auths": {"registry.example": {"auth": "bWU6cHc="}}})


@pytest.fixture
async def kube(apiserver):
    connection = await Kube.connect(str(apiserver.kubeconfig))
    yield connection
    await connection.close()


@pytest.fixture
def secret(apiserver, namespace):
    def make(data, labels=CONSENT, kind="Opaque"):
        metadata = {"name": "keys", "labels": labels}
        apiserver.apply(
            {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "stringData": data}, namespace
        )

    return make


def source(uri: str) -> ModelSource:
    return ModelSource.model_validate({"uri": uri, "credentials": {"secretName": "keys"}})


@pytest.mark.parametrize(
    ("uri", "data", "expected"),
    [
        ("s3://models/m", {"AWS_ACCESS_KEY_ID": "a\n", "HF_TOKEN": "t"}, {"AWS_ACCESS_KEY_ID": "a"}),
        ("gs://models/m", {"GOOGLE_SERVICE_ACCOUNT_KEY": "{}"}, {"GOOGLE_SERVICE_ACCOUNT_KEY": "{}"}),
        (
            "az://models/m",
            {"AZURE_STORAGE_ACCOUNT_NAME": "theirs", "AZURE_CLIENT_ID": "c", "other": "x"},
            {"AZURE_STORAGE_ACCOUNT_NAME": "theirs", "AZURE_CLIENT_ID": "c"},
        ),
        (
            "https://h/m",
            {"HTTPS_BEARER_TOKEN": "t", "HTTPS_HOSTS": "h, other:8443", "HF_TOKEN": "x", "AZURE_CLIENT_ID": " "},
            {"HTTPS_BEARER_TOKEN": "t", "HTTPS_HOSTS": "h, other:8443"},
        ),
        ("https://h/m", {"AZURE_STORAGE_SAS_TOKEN": "sig"}, {"AZURE_STORAGE_SAS_TOKEN": "sig"}),
        ("hf://org/m", {"HF_TOKEN": "t", "AWS_ACCESS_KEY_ID": "a"}, {"HF_TOKEN": "t"}),
        (
            "models:/m/1",
            {"MLFLOW_TRACKING_TOKEN": "t", "AWS_ACCESS_KEY_ID": "a"},
            {"MLFLOW_TRACKING_TOKEN": "t", "AWS_ACCESS_KEY_ID": "a"},
        ),
    ],
    ids=["s3", "gs", "az", "https", "a link", "hf", "models"],
)
async def test_only_the_keys_of_the_store_are_read(kube, namespace, secret, uri, data, expected):
    secret(data)
    assert await read_credentials(kube, namespace, source(uri)) == expected


async def test_a_secret_that_pulls_images_reads_models_from_registries(kube, namespace, secret):
    secret({".dockerconfigjson": CONFIG}, kind="kubernetes.io/dockerconfigjson")
    found = await read_credentials(kube, namespace, source("oci://registry.example/m:1"))
    assert found == {"DOCKERCONFIGJSON": CONFIG}


async def test_a_model_without_credentials_reads_none(kube, namespace):
    assert await read_credentials(kube, namespace, ModelSource(uri="s3://models/m")) == {}


@pytest.mark.parametrize(
    ("uri", "data", "labels", "words"),
    [
        ("s3://models/m", {"AWS_ACCESS_KEY_ID": "a"}, {}, "consent"),
        ("s3://models/m", {"HF_TOKEN": "t"}, CONSENT, "AWS_SECRET_ACCESS_KEY"),
        ("oci://registry.example/m", {"DOCKERCONFIGJSON": CONFIG}, CONSENT, ".dockerconfigjson"),
        ("pvc://claim/m", {"AWS_ACCESS_KEY_ID": "a"}, CONSENT, "without credentials"),
        ("https://h/m", {"HTTPS_HOSTS": "h"}, CONSENT, "HTTPS_BEARER_TOKEN"),
        ("https://h/m", {"HTTPS_BEARER_TOKEN": "t"}, CONSENT, "HTTPS_HOSTS: h"),
        ("https://h/m", {"HTTPS_BEARER_TOKEN": "t", "HTTPS_HOSTS": "other"}, CONSENT, "HTTPS_HOSTS: h"),
    ],
    ids=[
        "no consent",
        "keys of another store",
        "not as registries have it",
        "pvc",
        "no keys",
        "no host",
        "another host",
    ],
)
async def test_what_is_missing_is_said(kube, namespace, secret, uri, data, labels, words):
    secret(data, labels)
    with pytest.raises(RefusedError) as caught:
        await read_credentials(kube, namespace, source(uri))
    assert caught.value.refusal.reason is Reason.CREDENTIALS_NOT_FOUND
    assert words in caught.value.refusal.message


async def test_a_secret_that_is_not_there_is_named(kube, namespace):
    with pytest.raises(RefusedError, match="'keys'"):
        await read_credentials(kube, namespace, source("s3://models/m"))
