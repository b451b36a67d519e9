"""Models in Azure Blob Storage, by ``az``, ``abfss`` and the addresses of blobs."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from obstore.store import AzureStore

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources.azureaddress import ACCOUNT_NAME, account_of, parse
from onnx_operator.model.sources.base import SourceError
from onnx_operator.model.sources.objects import ObjectSource
from onnx_operator.model.sources.objectstore import Connected, make_store

_ACCESS_KEY, _SAS = "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"
_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
_SECRET = "the Secret named in spec.model.credentials.secretName"  # noqa: S105
AUTHORITY = "https://login.microsoftonline.com"
"""Where a service principal's token comes from."""
_CONFIG: dict[str, Any] = {"use_emulator": False, "use_fabric_endpoint": False, "skip_signature": False}


class AzureSource(ObjectSource):
    """A blob, or the blobs below a prefix.

    Credentials are an account key, a SAS token or a service principal, always beside the name of the account that they
    are for: nobody's keys are sent to another account. The Azure CLI is the environment, too.
    """

    part = "az"
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
    advice = f"check {ACCOUNT_NAME} and {_ACCESS_KEY}, {_SAS} or {', '.join(_PRINCIPAL)}"

    def _connect(
        self, uri: str, credentials: Mapping[str, str], settings: SourceSettings, workload_identity: bool
    ) -> Connected:
        address = parse(uri)
        given = {name: value for name, value in credentials.items() if name.startswith("AZURE_") and value}
        account, cloud = account_of(uri, address, given, settings.az.account)
        config, provider = _identity(uri, given)
        ambient = workload_identity and not config and provider is None
        if not config and provider is None and not ambient:
            config = {"skip_signature": True}
        base = settings.az.endpoint.rstrip("/")
        endpoint = f"{base}/{account}" if base else f"https://{account}.blob.{cloud}"
        store = make_store(
            AzureStore,
            uri,
            address.container,
            settings=settings,
            part=self.part,
            endpoint=endpoint,
            config=_CONFIG | {"account_name": account, "endpoint": endpoint} | config,
            provider=provider,
            hidden=() if ambient else ("AZURE_", "AZURITE_", "MSI_", "IDENTITY_"),
        )
        where = settings.az.endpoint or f"Azure Blob Storage (account {account})"
        return Connected(address.container, address.key, store, where, "skip_signature" not in config)


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
