"""From a URI to the source that reads it."""

from collections.abc import Callable, Mapping
from importlib import import_module

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import CREDENTIAL_VARIABLES, scheme_of
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources.azureaddress import account_of, is_blob_url, parse
from onnx_operator.model.sources.base import Source, SourceError
from onnx_operator.model.sources.hosts import check_https_hosts

_PACKAGE = "onnx_operator.model.sources"
_AZURE = ("azure", "AzureSource")
_SOURCES: dict[str, tuple[str, str]] = {
    "https": ("https", "HttpsSource"),
    "s3": ("s3", "S3Source"),
    "gs": ("gcs", "GcsSource"),
    "az": _AZURE,
    "abfss": _AZURE,
    "oci": ("oci", "OciSource"),
    "hf": ("huggingface", "HuggingFaceSource"),
    "mlflow": ("mlflow", "MlflowSource"),
    "models": ("mlflow", "MlflowSource"),
}
"""Module and class by scheme: a pod imports the client of its own store alone."""


def open_source(
    uri: str, *, credentials: Mapping[str, str], settings: SourceSettings, workload_identity: bool = False
) -> Source:
    """Make the source of a URI; nothing is contacted yet.

    Of ``credentials`` only the variables of the URI's scheme count (``CREDENTIAL_VARIABLES``). The process's own
    environment and identity count only with ``workload_identity``, and then where no credentials are given. Raises
    :class:`SourceError` (``SourceRefused``) for a URI that no source reads.
    """
    scheme = scheme_of(uri)
    if scheme not in _SOURCES:
        found = f"The scheme {scheme}:// is not supported" if scheme else "The URI has no scheme"
        known = ", ".join(f"{each}:" if each == "models" else f"{each}://" for each in _SOURCES)
        raise SourceError(Reason.SOURCE_REFUSED, f"{found}; give one of {known}.")
    counted = {name: credentials[name] for name in CREDENTIAL_VARIABLES[scheme] if credentials.get(name)}
    module, name = _SOURCES[scheme]
    if scheme == "https" and is_keyed_blob(uri, counted):
        module, name = _AZURE
    make: Callable[..., Source] = getattr(import_module(f"{_PACKAGE}.{module}"), name)
    return make(uri, credentials=counted, settings=settings, workload_identity=workload_identity)


def check_destination(uri: str, credentials: Mapping[str, str]) -> None:
    """See that credentials are meant for the host that a URI leads to, before anybody gets them.

    The sources look for themselves once more. Raises :class:`SourceError`.
    """
    scheme = scheme_of(uri)
    if scheme in ("az", "abfss") or (scheme == "https" and is_keyed_blob(uri, credentials)):
        given = {name: value for name, value in credentials.items() if name.startswith("AZURE_") and value}
        account_of(uri, parse(uri), given)
    elif scheme == "https":
        check_https_hosts(uri, credentials)


def is_keyed_blob(uri: str, credentials: Mapping[str, str]) -> bool:
    """Tell whether an https address is an Azure blob that is to be read with keys; others are links like any."""
    return any(name.startswith("AZURE_") for name in credentials) and is_blob_url(uri)
