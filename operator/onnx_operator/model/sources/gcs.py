"""Models in Google Cloud Storage and stores that speak its XML protocol."""

import json
import re
from collections.abc import Mapping
from typing import Any

from obstore.store import GCSStore

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources.base import SourceError
from onnx_operator.model.sources.objects import ObjectSource
from onnx_operator.model.sources.objectstore import Connected, bucket_and_key, make_store

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.\-_]{1,221}")
_FORM = "gs://BUCKET/PATH/MODEL.onnx, or gs://BUCKET/PATH/ of a folder with one model"
_KEY = "GOOGLE_SERVICE_ACCOUNT_KEY"


class GcsSource(ObjectSource):
    """``gs://BUCKET/KEY`` at the endpoint of the settings; the pin is an object's generation.

    The one credential is ``GOOGLE_SERVICE_ACCOUNT_KEY``, the JSON of a service account's key; a file of application
    default credentials is the environment, too.
    """

    part = "gs"
    unauthorized_codes = frozenset({"AccessDenied", "AuthenticationRequired", "ExpiredToken", "InvalidSecurity"})
    container_codes = frozenset({"NoSuchBucket"})
    advice = f"check {_KEY}"

    def _connect(
        self, uri: str, credentials: Mapping[str, str], settings: SourceSettings, workload_identity: bool
    ) -> Connected:
        bucket, key = bucket_and_key(uri, _BUCKET, _FORM)
        service_account = credentials.get(_KEY, "")
        ambient = workload_identity and not service_account
        store = _store(uri, bucket, service_account, settings, ambient)
        where = settings.gs.endpoint or "Google Cloud Storage"
        return Connected(bucket, key, store, where, bool(service_account) or ambient)


def _store(uri: str, bucket: str, service_account: str, settings: SourceSettings, ambient: bool) -> Any:
    endpoint = settings.gs.endpoint.rstrip("/") or "https://storage.googleapis.com"
    # Always given: a key may name another store as its own, to which the model's name would go.
    config: dict[str, Any] = {"base_url": endpoint, "skip_signature": not service_account and not ambient}
    provider: Any = None
    if service_account:
        config["service_account_key"] = _checked(service_account, uri)
    elif not ambient:
        # Never asked, as nothing is signed; but without it a file in the home folder would be read.
        def provider() -> Any:
            return {"token": "", "expires_at": None}

    try:
        return make_store(
            GCSStore,
            uri,
            bucket,
            settings=settings,
            part=GcsSource.part,
            endpoint=endpoint,
            config=config,
            provider=provider,
            hidden=() if ambient else ("GOOGLE_", "SERVICE_ACCOUNT"),
        )
    except SourceError:
        if service_account:
            raise _bad_key(uri) from None
        raise


def _checked(service_account: str, uri: str) -> str:
    """Return the key's JSON without what would switch signing off. Raises SourceError, which tells nothing of it."""
    try:
        content = json.loads(service_account)
        return json.dumps({name: content[name] for name in ("private_key", "private_key_id", "client_email")})
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _bad_key(uri) from None


def _bad_key(uri: str) -> SourceError:
    return SourceError(
        Reason.SOURCE_UNAUTHORIZED,
        f"The credentials for {uri} cannot be used: {_KEY} must be the JSON of a service account's key, with"
        " private_key, private_key_id and client_email; put it into the Secret named in"
        " spec.model.credentials.secretName.",
    )
