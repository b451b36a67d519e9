"""How a registry is convinced: credentials of a ``.dockerconfigjson``, and tokens for them."""

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from yarl import URL

from onnx_operator.api.conditions import Reason
from onnx_operator.model.sources.base import SourceError
from onnx_operator.model.sources.ocimanifest import Reference
from onnx_operator.model.sources.web.addresses import check_url, read_url
from onnx_operator.model.sources.web.challenges import challenges
from onnx_operator.model.sources.web.client import WebClient, basic, check_header
from onnx_operator.model.sources.web.documents import TOKEN, Document, Text, decode

_WHERE = "The Secret named in spec.model.credentials.secretName"

_MAX_CONFIG = 256 << 10
"""Characters: what tenants put into Secrets is read where other tenants' is."""


def login(docker_config: str, reference: Reference) -> tuple[str, str] | None:
    """Find user and password for a repository; None where the file has none for its registry.

    Of several entries the one with the longest path counts, as for the kubelet. Raises :class:`SourceError`
    (``SourceUnauthorized``) for a malformed file.
    """
    if not docker_config:
        return None
    try:
        if len(docker_config) > _MAX_CONFIG:
            raise ValueError("too large")
        entries = json.loads(docker_config)["auths"]
        found = {_length(key, reference): entry for key, entry in entries.items()}
        entry = found[max(found, default=-1)] if max(found, default=-1) >= 0 else None
        return None if entry is None else _user_and_password(entry, reference)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _unauthorized(
            f"{_WHERE} holds no valid .dockerconfigjson of at most {_MAX_CONFIG} bytes; `kubectl create secret"
            " docker-registry` makes one."
        ) from None


def _length(key: str, reference: Reference) -> int:
    """Length of the path of an entry that counts for this repository, else -1."""
    host, _, path = key.partition("://")[2].partition("/") if "://" in key else key.partition("/")
    path = path.strip("/")
    if path in ("v1", "v2"):
        path = ""
    if host not in reference.names or not f"{reference.repository}/".startswith(f"{path}/" if path else ""):
        return -1
    return len(path)


def _user_and_password(entry: Mapping[str, Any], reference: Reference) -> tuple[str, str] | None:
    if entry.get("identitytoken"):
        raise _unauthorized(
            f"{_WHERE} holds an identity token for {reference.registry}, which a login with a browser leaves and which"
            " is not supported; give a user name and a password or access token that may read."
        )
    user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            user, _, password = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError("auth") from None
    return (user, password) if user or password else None


class _Token(Document):
    token: Text = ""
    access_token: Text = ""


class RegistryLogin:
    """Answers a registry's challenges for one repository, and keeps what was given for it."""

    def __init__(self, origin: URL, reference: Reference, account: tuple[str, str] | None, shown: str) -> None:
        self._origin = origin
        self._reference = reference
        self._basic = check_header(basic(*account, shown), shown) if account else ""
        self._shown = shown
        self._authorization = ""
        self._realm: URL | None = None
        self._lock = asyncio.Lock()

    @property
    def advice(self) -> str:
        """Which credentials to check."""
        return (
            "check that the Secret named in spec.model.credentials.secretName is of type kubernetes.io/dockerconfigjson"
            f" with an entry for {self._reference.registry} that may read {self._reference.repository}; many"
            " registries answer the same for a repository that does not exist."
        )

    def header(self, url: URL) -> str:
        """Authorization for a URL: the registry's alone, and the account only where its tokens are made."""
        if self._realm is not None and url.with_query(None) == self._realm:
            return self._basic
        return self._authorization if url.origin() == self._origin else ""

    async def answer(self, client: WebClient, url: URL, headers: Mapping[str, str], sent: str) -> bool:
        """Get credentials for what answered 401; False where there are no others than were sent.

        Raises :class:`SourceError`.
        """
        if url.origin() != self._origin or url.with_query(None) == self._realm:
            return False
        async with self._lock:
            # Another request got new ones meanwhile.
            if self._authorization != sent:
                return True
            offered = challenges(headers.get("WWW-Authenticate", ""))
            scheme, given = next((each for each in offered if each[0] in ("basic", "bearer")), ("", {}))
            if scheme == "basic":
                self._authorization = self._basic
                return bool(self._basic) and sent != self._basic
            if scheme != "bearer" or not given.get("realm"):
                return False
            self._authorization = f"Bearer {await self._token(client, given['realm'], given.get('service', ''))}"
            return True

    async def _token(self, client: WebClient, realm: str, service: str) -> str:
        what = f"The registry of {self._shown}"
        try:
            url = check_url(read_url(realm), plain_http=client.plain_http)
        except ValueError:
            raise SourceError(
                Reason.SOURCE_REFUSED, f"{what} sends for tokens to an address that cannot be read."
            ) from None
        except SourceError as error:
            raise SourceError(Reason.SOURCE_REFUSED, f"{what} sends for tokens: {error.message}") from None
        self._realm = url.with_query(None)
        # The least that is needed, whatever the registry proposes.
        query = {"scope": f"repository:{self._reference.repository}:pull"} | ({"service": service} if service else {})
        service_name = f"The token service of {self._shown}"
        accept = {"Accept": "application/json"}
        try:
            async with client.document(url.extend_query(query), service_name, TOKEN, headers=accept) as (_, body):
                answer = decode(_Token, body, service_name, f"{service_name} gave no token")
        finally:
            self._realm = None
        token = answer.token or answer.access_token
        if not token or not token.isascii() or any(c <= " " or c == "\x7f" for c in token):
            raise SourceError(Reason.SOURCE_REFUSED, f"{service_name} gave no token.")
        return token


def _unauthorized(message: str) -> SourceError:
    return SourceError(Reason.SOURCE_UNAUTHORIZED, message)
