"""From a URI to the source that reads it."""

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import CREDENTIAL_VARIABLES
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources.base import Source, SourceError
from onnx_operator.model.sources.https import HttpsSource
from onnx_operator.model.sources.s3 import S3Source

_SOURCES: dict[str, Callable[..., Source]] = {"https": HttpsSource, "s3": S3Source}


def open_source(uri: str, *, credentials: Mapping[str, str], settings: SourceSettings) -> Source:
    """Make the source of a URI; nothing is contacted yet.

    Of ``credentials`` only the variables of the URI's scheme count (``CREDENTIAL_VARIABLES``); the process's
    own environment never does. Raises :class:`SourceError` (``SourceRefused``) for a URI that no source
    reads.
    """
    try:
        scheme = urlsplit(uri).scheme.lower()
    except ValueError as error:
        raise SourceError(Reason.SOURCE_REFUSED, f"The model's URI is malformed: {error}.") from None
    if scheme not in _SOURCES:
        found = f"The scheme {scheme}:// is not supported" if scheme else "The URI has no scheme"
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"{found}; give an https:// address, or s3://BUCKET/KEY.",
        )
    counted = {name: credentials[name] for name in CREDENTIAL_VARIABLES[scheme] if credentials.get(name)}
    return _SOURCES[scheme](uri, credentials=counted, settings=settings)
