"""Models in Amazon S3 and stores that speak its protocol."""

import re
from collections.abc import Mapping
from typing import Any

from obstore.store import S3Store

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources.base import SourceError
from onnx_operator.model.sources.objects import ObjectSource
from onnx_operator.model.sources.objectstore import Connected, bucket_and_key, make_store

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9.\-_]{1,254}")
_FORM = "s3://BUCKET/PATH/MODEL.onnx, or s3://BUCKET/PATH/ of a folder with one model"


class S3Source(ObjectSource):
    """``s3://BUCKET/KEY`` at the endpoint of the settings."""

    part = "s3"
    # The last one is versitygw's word for an unknown key, sent as 404.
    unauthorized_codes = frozenset(
        {
            "AccessDenied",
            "AccountProblem",
            "AllAccessDisabled",
            "AuthorizationHeaderMalformed",
            "ExpiredToken",
            "InvalidAccessKeyId",
            "InvalidSecurity",
            "InvalidToken",
            "RequestTimeTooSkewed",
            "SignatureDoesNotMatch",
            "TokenRefreshRequired",
            "XAdminUserNotFound",
        }
    )
    container_codes = frozenset({"NoSuchBucket"})
    advice = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"

    def _connect(
        self, uri: str, credentials: Mapping[str, str], settings: SourceSettings, workload_identity: bool
    ) -> Connected:
        bucket, key = bucket_and_key(uri, _BUCKET, _FORM)
        self._region = settings.s3.region
        ambient = workload_identity and not credentials
        store = _store(uri, bucket, credentials, settings, ambient)
        return Connected(bucket, key, store, settings.s3.endpoint or "Amazon S3", bool(credentials) or ambient)

    def _special(self, text: str, status: str, code: str) -> SourceError | None:
        if "BareRedirect" in text or status in ("301", "307", "308"):
            return SourceError(
                Reason.SOURCE_REFUSED,
                f"The bucket of {self.shown} is not in region {self._region}: set"
                " sources.s3.region to the bucket's region.",
            )
        return None


def _store(uri: str, bucket: str, credentials: Mapping[str, str], settings: SourceSettings, ambient: bool) -> Any:
    key_id, secret = credentials.get("AWS_ACCESS_KEY_ID", ""), credentials.get("AWS_SECRET_ACCESS_KEY", "")
    if credentials and not (key_id and secret):
        missing = "AWS_SECRET_ACCESS_KEY" if key_id else "AWS_ACCESS_KEY_ID"
        raise SourceError(
            Reason.SOURCE_UNAUTHORIZED,
            f"The credentials for {uri} lack {missing}; add it to the Secret named in"
            " spec.model.credentials.secretName.",
        )
    s3 = settings.s3
    endpoint = s3.endpoint.rstrip("/") or f"https://s3.{s3.region}.amazonaws.com"
    if s3.virtual_hosted_style:
        # obstore takes an explicit endpoint as it is, so the bucket's host name is made here.
        scheme, separator, host = endpoint.partition("://")
        endpoint = f"{scheme}{separator}{bucket}.{host}"
    config: dict[str, Any] = {
        "endpoint": endpoint,
        "aws_endpoint_url_s3": endpoint,
        "region": s3.region,
        "virtual_hosted_style_request": s3.virtual_hosted_style,
        "request_payer": False,
        "s3_express": False,
        "unsigned_payload": False,
        "skip_signature": not credentials and not ambient,
    }
    provider: Any = None
    if credentials:
        given = {
            "access_key_id": key_id,
            "secret_access_key": secret,
            "token": credentials.get("AWS_SESSION_TOKEN") or None,
            "expires_at": None,
        }

        def provider() -> Any:
            return given

    return make_store(
        S3Store,
        uri,
        bucket,
        settings=settings,
        part=S3Source.part,
        endpoint=endpoint,
        config=config,
        provider=provider,
        hidden=() if ambient else ("AWS_",),
    )
