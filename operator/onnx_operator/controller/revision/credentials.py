"""Credentials of a source: read from a Secret that consents, and only the keys that the store's scheme knows."""

import base64
import binascii
from collections.abc import Mapping

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import ModelSource
from onnx_operator.api.report import Refusal
from onnx_operator.api.schemes import HTTPS_HOSTS, credential_names, scheme_of, secret_key
from onnx_operator.controller.cluster.kube import SECRET, Kube
from onnx_operator.model.inspection.testdata import folder_of
from onnx_operator.model.sources import SourceError
from onnx_operator.model.sources.opening import check_destination


class CredentialsNotFoundError(Exception):
    """There is no usable Secret; ``refusal`` says what is missing."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(reason=Reason.CREDENTIALS_NOT_FOUND, message=message, retriable=True)


async def read_credentials(kube: Kube, namespace: str, source: ModelSource) -> dict[str, str]:
    """The variables of the model's credentials Secret; empty when none is named.

    Raises:
        CredentialsNotFoundError: the Secret does not exist, does not consent, holds none of the expected keys, or does
            not mean them for the hosts of the model and its test data.
    """
    if source.credentials is None:
        return {}
    name = source.credentials.secret_name
    secret = await kube.get(SECRET, namespace, name)
    if secret is None:
        raise CredentialsNotFoundError(
            f"spec.model.credentials.secretName: there is no Secret {name!r} in namespace {namespace!r}; create it"
        )
    labels = secret["metadata"].get("labels") or {}
    if labels.get(names.LABEL_CREDENTIALS) != "true":
        raise CredentialsNotFoundError(
            f"spec.model.credentials.secretName: Secret {name!r} does not consent to be read for models; "
            f"if it should, run: kubectl label secret {name} -n {namespace} {names.LABEL_CREDENTIALS}=true"
        )
    scheme = scheme_of(source.uri)
    expected = {secret_key(variable): variable for variable in credential_names(source.uri)}
    if not expected:
        raise CredentialsNotFoundError(
            f"spec.model.credentials: {scheme} sources are read without credentials; remove the field"
        )
    data = secret.get("data") or {}
    try:
        texts = {v: base64.b64decode(data[k]).decode().strip() for k, v in expected.items() if data.get(k)}
    except (binascii.Error, UnicodeDecodeError):
        raise CredentialsNotFoundError(
            f"spec.model.credentials.secretName: a value in Secret {name!r} is not text"
        ) from None
    # As everybody who is given them takes them: a blank is nothing.
    found = {variable: text for variable, text in texts.items() if text}
    if not found.keys() - {HTTPS_HOSTS}:
        raise CredentialsNotFoundError(
            f"spec.model.credentials.secretName: Secret {name!r} holds none of the keys {', '.join(expected)} "
            f"that {scheme} sources use (it holds: {', '.join(sorted(data)) or 'nothing'})"
        )
    check_destinations(source, found)
    return found


def check_destinations(source: ModelSource, credentials: Mapping[str, str]) -> None:
    """See that the Secret's owner means the keys for the hosts that the model's author names.

    Raises:
        CredentialsNotFoundError: he does not; the message says which key of the Secret is to name the host.
    """
    places = [source.uri, *([folder_of(source.test_data)] if source.test_data else [])]
    for uri in places:
        try:
            counted = {name: credentials[name] for name in credential_names(uri) if name in credentials}
            check_destination(uri, counted)
        except SourceError as error:
            raise CredentialsNotFoundError(error.message) from None
