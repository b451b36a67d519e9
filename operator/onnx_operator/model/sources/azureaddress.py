"""Azure's addresses of blobs, and which storage account the credentials for one are for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from onnx_operator.api.conditions import Reason
from onnx_operator.api.urls import shown_uri
from onnx_operator.model.sources.base import SourceError, split_key

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"\$root|\$web|[a-z0-9](?:-?[a-z0-9]){2,62}")
_HOST = re.compile(r"([a-z0-9]{3,24})\.(?:blob|dfs)\.(core\.(?:windows\.net|usgovcloudapi\.net|chinacloudapi\.cn))")
_FORM = (
    "az://CONTAINER/PATH/MODEL.onnx, abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH/MODEL.onnx or"
    " https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH/MODEL.onnx, or one of these with PATH/ of a folder with one"
    " model"
)
ACCOUNT_NAME = "AZURE_STORAGE_ACCOUNT_NAME"
PUBLIC_CLOUD = "core.windows.net"
_SECRET = "the Secret named in spec.model.credentials.secretName"  # noqa: S105


@dataclass(frozen=True)
class BlobAddress:
    """What a URI names. ``account`` is empty where it names none."""

    account: str
    container: str
    key: str
    cloud: str = PUBLIC_CLOUD


def is_blob_url(uri: str) -> bool:
    """Tell whether an ``https`` address names a blob or a folder of blobs, and carries no signature of its own."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    return (
        parts.scheme.lower() == "https"
        and not parts.query
        and _HOST.fullmatch(parts.netloc.lower()) is not None
        and bool(parts.path.strip("/").partition("/")[2])
    )


def parse(uri: str) -> BlobAddress:
    """Take a URI apart. Raises :class:`SourceError` for one that names no blob."""
    scheme, _, rest = uri.partition("://")
    authority, _, path = rest.partition("/")
    if scheme.lower() == "https":
        if "?" in uri or "#" in uri:
            # The query may be a signature: it is not repeated.
            raise SourceError(
                Reason.SOURCE_REFUSED,
                f"{shown_uri(uri)} has a query or a fragment: a link with a SAS token is read without Azure"
                " credentials; to read it with them, remove the query from the URI. In a name, write ? as %3F and # as"
                " %23.",
            )
        container, _, key = unquote(path).partition("/")
        host = _HOST.fullmatch(authority.lower()) if is_blob_url(uri) else None
    else:
        container, at, host_name = authority.partition("@")
        key = path
        host = _HOST.fullmatch(host_name.lower())
        if scheme.lower() == "az" and not at:
            return BlobAddress("", _container(container, uri), split_key(key, uri, _FORM))
    if host is None:
        raise SourceError(Reason.SOURCE_REFUSED, f"{uri} names no storage account of Azure; write {_FORM}.")
    account, cloud = host[1], host[2]
    return BlobAddress(account, _container(container, uri), split_key(key, uri, _FORM), cloud)


def _container(container: str, uri: str) -> str:
    if not _CONTAINER.fullmatch(container):
        raise SourceError(Reason.SOURCE_REFUSED, f"{uri} names no container; write {_FORM}.")
    return container


def account_of(uri: str, address: BlobAddress, given: Mapping[str, str], default: str | None = None) -> tuple[str, str]:
    """The storage account that is asked, and its cloud.

    ``given`` are the credentials, which name the account that they are for, alone or as its host; a bare name means
    Azure's public cloud, since everybody may own the same name in another. ``default`` is the account of ``az``
    addresses; None where it is not known yet. Raises :class:`SourceError`.
    """
    named = given.get(ACCOUNT_NAME, "")
    if given and not named:
        raise SourceError(
            Reason.SOURCE_UNAUTHORIZED,
            f"The credentials for {uri} lack {ACCOUNT_NAME}, the storage account that they are for; add it to"
            f" {_SECRET}.",
        )
    account, cloud = _named(uri, named) if named else ("", address.cloud)
    if account and address.account and (account, cloud) != (address.account, address.cloud):
        raise SourceError(
            Reason.SOURCE_UNAUTHORIZED,
            f"The credentials for {uri} are for another storage account than {address.account}.blob.{address.cloud}:"
            f" they are not sent there. Correct the URI, or {ACCOUNT_NAME} in {_SECRET} (the account's name, or its"
            f" host where it is not in {PUBLIC_CLOUD}).",
        )
    account = address.account or account or default or ""
    if not account and default is not None:
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"{uri} names no storage account, and neither the setting sources.az.account nor {ACCOUNT_NAME} in the"
            " model's Secret does; write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH/MODEL.onnx.",
        )
    if account and not _ACCOUNT.fullmatch(account):
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"{account!r} is not a storage account for {uri}: a name has 3 to 24 lower-case letters and digits. Correct"
            " the setting sources.az.account.",
        )
    return account, cloud


def _named(uri: str, named: str) -> tuple[str, str]:
    host = _HOST.fullmatch(named)
    if host:
        return host[1], host[2]
    if not _ACCOUNT.fullmatch(named):
        raise SourceError(
            Reason.SOURCE_UNAUTHORIZED,
            f"The credentials for {uri} are for no storage account: a name has 3 to 24 lower-case letters and digits."
            f" Correct {ACCOUNT_NAME} in {_SECRET}.",
        )
    return named, PUBLIC_CLOUD
