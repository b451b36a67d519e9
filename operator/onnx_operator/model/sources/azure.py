"""Models in Azure Blob Storage, by ``az``, ``abfss`` and the addresses of blobs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources.base import SourceError
from onnx_operator.model.sources.objects import ObjectSource
from onnx_operator.model.sources.objectstore import (
    NO_RETRIES,
    client_options,
    make_store,
    refused_settings,
    split_key,
)

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"\$root|\$web|[a-z0-9](?:-?[a-z0-9]){2,62}")
_HOST = re.compile(r"([a-z0-9]{3,24})\.(?:blob|dfs)\.(core\.(?:windows\.net|usgovcloudapi\.net|chinacloudapi\.cn))")
_FORM = (
    "az://CONTAINER/PATH/MODEL.onnx, abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH/MODEL.onnx or"
    " https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH/MODEL.onnx, or one of these with PATH/ of a folder with one"
    " model"
)
_NAME = "AZURE_STORAGE_ACCOUNT_NAME"
_ACCESS_KEY, _SAS = "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"
_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
_SECRET = "the Secret named in spec.model.credentials.secretName"  # noqa: S105
AUTHORITY = "https://login.microsoftonline.com"
"""Where a service principal's token comes from."""


@dataclass(frozen=True)
class BlobAddress:
    """What a URI names. ``account`` is empty where it names none."""

    account: str
    container: str
    key: str
    cloud: str = "core.windows.net"


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
        if "?" in uri:
            # The query may be a signature: it is not repeated.
            raise SourceError(
                Reason.SOURCE_REFUSED,
                f"{uri.partition('?')[0]} has a query: a link with a SAS token is read without Azure credentials; to"
                " read it with them, remove the query from the URI.",
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


class AzureSource(ObjectSource):
    """A blob, or the blobs below a prefix.

    Credentials are an account key, a SAS token or a service principal, always beside the name of the account that they
    are for: nobody's keys are sent to another account. Without them requests are unsigned, and neither the environment
    nor the Azure CLI nor a metadata service is asked, unless ``workload_identity`` says so. Raises
    :class:`SourceError` for a malformed URI, and for credentials that are incomplete or another account's.
    """

    container_word = "container"
    unauthorized_codes = frozenset(
        {
            "AccountIsDisabled",
            "AuthenticationFailed",
            "AuthorizationFailure",
            "InvalidAuthenticationInfo",
            "NoAuthenticationInformation",
            "PublicAccessNotPermitted",
            # What Azure calls a container that may not be read without keys.
            "ResourceNotFound",
        }
    )
    container_codes = frozenset({"ContainerNotFound"})
    advice = f"check {_NAME} and {_ACCESS_KEY}, {_SAS} or {', '.join(_PRINCIPAL)}"

    def __init__(
        self, uri: str, *, credentials: Mapping[str, str], settings: SourceSettings, workload_identity: bool = False
    ) -> None:
        address = parse(uri)
        given = {name: value for name, value in credentials.items() if name.startswith("AZURE_") and value}
        account = _account(uri, address, given, settings)
        config, provider = _identity(uri, given)
        ambient = workload_identity and not config and provider is None
        if not config and provider is None and not ambient:
            config = {"skip_signature": True}
        super().__init__(
            uri,
            container=address.container,
            key=address.key,
            store=_store(uri, address, account, config, provider, settings, ambient),
            where=settings.az.endpoint or f"Azure Blob Storage (account {account})",
            setting="sources.az",
            signed="skip_signature" not in config,
        )


def _container(container: str, uri: str) -> str:
    if not _CONTAINER.fullmatch(container):
        raise SourceError(Reason.SOURCE_REFUSED, f"{uri} names no container; write {_FORM}.")
    return container


def _account(uri: str, address: BlobAddress, given: Mapping[str, str], settings: SourceSettings) -> str:
    named = given.get(_NAME, "")
    if given and not named:
        raise SourceError(
            Reason.SOURCE_UNAUTHORIZED,
            f"The credentials for {uri} lack {_NAME}, the storage account that they are for; add it to {_SECRET}.",
        )
    if named and address.account and named != address.account:
        raise SourceError(
            Reason.SOURCE_UNAUTHORIZED,
            f"The credentials for {uri} are for the storage account {named}, the URI names {address.account}: they are"
            f" not sent there. Correct the URI, or {_NAME} in {_SECRET}.",
        )
    account = address.account or named or settings.az.account
    if not account:
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"{uri} names no storage account, and neither the setting sources.az.account nor {_NAME} in the model's"
            " Secret does; write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH/MODEL.onnx.",
        )
    if not _ACCOUNT.fullmatch(account):
        raise SourceError(
            Reason.SOURCE_UNAUTHORIZED if named == account else Reason.SOURCE_REFUSED,
            f"{account!r} is no storage account for {uri}: a name has 3 to 24 lower-case letters and digits. Correct"
            + (f" {_NAME} in {_SECRET}." if named == account else " the setting sources.az.account."),
        )
    return account


def _identity(uri: str, given: Mapping[str, str]) -> tuple[dict[str, Any], Any]:
    """The options, or the provider, of the one kind of credentials that is there."""
    if key := given.get(_ACCESS_KEY):
        answer: dict[str, Any] = {"access_key": key, "expires_at": None}
        return {}, lambda: answer
    if token := given.get(_SAS):
        pairs = parse_qsl(token.strip().lstrip("?"), keep_blank_values=True)
        if "sig" not in dict(pairs):
            raise SourceError(
                Reason.SOURCE_UNAUTHORIZED,
                f"The credentials for {uri} cannot be used: {_SAS} holds no signature (sig=…); put a SAS token into"
                f" {_SECRET}.",
            )
        sas = {"sas_token": pairs, "expires_at": None}
        return {}, lambda: sas
    present = [name for name in _PRINCIPAL if given.get(name)]
    if present and len(present) < len(_PRINCIPAL):
        missing = " and ".join(name for name in _PRINCIPAL if name not in present)
        raise SourceError(
            Reason.SOURCE_UNAUTHORIZED, f"The credentials for {uri} lack {missing}; add what is missing to {_SECRET}."
        )
    if present:
        tenant, client, secret = (given[name] for name in _PRINCIPAL)
        return {
            "tenant_id": tenant,
            "client_id": client,
            "client_secret": secret,
            "authority_host": AUTHORITY,
        }, None
    return {}, None


def _store(
    uri: str,
    address: BlobAddress,
    account: str,
    identity: dict[str, Any],
    provider: Any,
    settings: SourceSettings,
    ambient: bool,
) -> "AzureStore":
    base = settings.az.endpoint.rstrip("/")
    endpoint = f"{base}/{account}" if base else f"https://{account}.blob.{address.cloud}"
    config = {
        "account_name": account,
        "endpoint": endpoint,
        "use_emulator": False,
        "use_fabric_endpoint": False,
        "skip_signature": False,
        **identity,
    }
    try:
        return make_store(
            AzureStore,
            address.container,
            hidden=() if ambient else ("AZURE_", "AZURITE_", "MSI_", "IDENTITY_"),
            config=config,
            client_options=client_options(settings, endpoint, settings.az.ca_bundle),
            retry_config=NO_RETRIES,
            credential_provider=provider,
        )
    except (BaseError, ValueError) as error:
        raise refused_settings(uri, "sources.az", error) from None
