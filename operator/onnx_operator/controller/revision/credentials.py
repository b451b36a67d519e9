"""Credentials of a source: read from a Secret that consents, and only the keys that the store's scheme knows."""

import base64
import binascii
from collections.abc import Mapping

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import ModelSource
from onnx_operator.api.schemes import HTTPS_HOSTS, credential_names, scheme_of, secret_key
from onnx_operator.controller.cluster.kinds import SECRET
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.model.inspection.testdata import folder_of
from onnx_operator.model.refusal import RefusedError
from onnx_operator.model.sources import SourceError
from onnx_operator.model.sources.opening import check_destination


async def read_credentials(kube: Kube, namespace: str, source: ModelSource) -> dict[str, str]:
    """The variables of the model's credentials Secret; empty when none is named.

    Raises:
        RefusedError: ``CredentialsNotFound``, the Secret does not exist, does not consent, holds none of the expected
            keys, or does not mean them for the hosts of the model and its test data.
    """
    if source.credentials is None:
        return {}
    name = source.credentials.secret_name
    secret = await kube.get(SECRET, namespace, name)
    if secret is None:
        raise _not_found(
            f"spec.model.credentials.secretName: there is no Secret {name!r} in namespace {namespace!r}; create it"
        )
    labels = secret["metadata"].get("labels") or {}
    if labels.get(names.LABEL_CREDENTIALS) != "true":
        raise _not_found(
            f"spec.model.credentials.secretName: Secret {name!r} does not consent to be read for models; "
            f"if it should, run: kubectl label secret {name} -n {namespace} {names.LABEL_CREDENTIALS}=true"
        )
    scheme = scheme_of(source.uri)
    expected = {secret_key(variable): variable for variable in credential_names(source.uri)}
    if not expected:
        why = (
            ": without TLS anybody on the way could read them; use https" if scheme == "http" else "; remove the field"
        )
        raise _not_found(f"spec.model.credentials: {scheme} sources are read without credentials{why}")
    data = secret.get("data") or {}
    try:
        texts = {v: base64.b64decode(data[k]).decode().strip() for k, v in expected.items() if data.get(k)}
    except (binascii.Error, UnicodeDecodeError):
        raise _not_found(f"spec.model.credentials.secretName: a value in Secret {name!r} is not text") from None
    # As everybody who is given them takes them: a blank is nothing.
    found = {variable: text for variable, text in texts.items() if text}
    if not found.keys() - {HTTPS_HOSTS}:
        raise _not_found(
            f"spec.model.credentials.secretName: Secret {name!r} holds none of the keys {', '.join(expected)} "
            f"that {scheme} sources use (it holds: {', '.join(sorted(data)) or 'nothing'})"
        )
    check_destinations(source, found)
    return found


def check_destinations(source: ModelSource, credentials: Mapping[str, str]) -> None:
    """See that the Secret's owner means the keys for the hosts that the model's author names.

    Raises:
        RefusedError: ``CredentialsNotFound``, he does not; the message says which key of the Secret names a host.
    """
    places = [source.uri, *([folder_of(source.test_data)] if source.test_data else [])]
    for uri in places:
        try:
            counted = {name: credentials[name] for name in credential_names(uri) if name in credentials}
            check_destination(uri, counted)
        except SourceError as error:
            raise _not_found(error.message) from None


def _not_found(message: str) -> RefusedError:
    return RefusedError(Reason.CREDENTIALS_NOT_FOUND, message, retriable=True)
