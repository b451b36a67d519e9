"""From a URI to the source that reads it."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from onnx_operator.api.conditions import Reason
from onnx_operator.api.schemes import SCHEMES, scheme_of
from onnx_operator.api.sources import SourceSettings
from onnx_operator.api.urls import is_web, shown_uri
from onnx_operator.model.sources.azureaddress import account_of, is_blob_url, parse
from onnx_operator.model.sources.base import ARCHIVE_ENDINGS, Source, SourceError
from onnx_operator.model.sources.hosts import check_https_hosts

_PACKAGE = "onnx_operator.model.sources"


def open_source(
    uri: str,
    *,
    credentials: Mapping[str, str],
    settings: SourceSettings,
    workload_identity: bool = False,
    claims: Path | None = None,
) -> Source:
    """Make the source of a URI; nothing is contacted yet.

    Of ``credentials`` only the variables of the URI's scheme count. The process's own environment and identity count
    only with ``workload_identity``, and then where no credentials are given. ``claims`` is the folder where the claim
    of a ``pvc`` URI is mounted, if it is. Raises :class:`SourceError` (``SourceRefused``) for a URI that no source
    reads, or none here.
    """
    scheme = SCHEMES.get(scheme_of(uri))
    if scheme is None or (scheme.mounted and claims is None):
        raise _unknown(scheme_of(uri), mounted=claims is not None)
    counted = {name: credentials[name] for name in scheme.credentials if credentials.get(name)}
    module, name = scheme.source
    if scheme.name == "https" and is_keyed_blob(uri, counted):
        module, name = SCHEMES["az"].source
    place = {"root": claims} if scheme.mounted else {}
    make: Callable[..., Source] = getattr(import_module(f"{_PACKAGE}.{module}"), name)
    return make(uri, credentials=counted, settings=settings, workload_identity=workload_identity, **place)


def _unknown(name: str, *, mounted: bool) -> SourceError:
    found = f"The scheme {name}:// is not supported" if name else "The URI has no scheme"
    known = ", ".join(scheme.prefix for scheme in SCHEMES.values() if mounted or not scheme.mounted)
    return SourceError(Reason.SOURCE_REFUSED, f"{found}; give one of {known}.")


def may_name_folder(uri: str) -> bool:
    """Tell whether there may be several files where a URI leads: not behind a link, nor where it names a file."""
    if is_web(uri) and not is_blob_url(uri):
        return False
    return not shown_uri(uri).lower().endswith((".onnx", *ARCHIVE_ENDINGS))


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
