"""Connections for HTTP: each address is checked when it is connected to, and no variable of the process counts.

But where a proxy connects in our place, which no address can be checked for: it is asked for what the platform team has
chosen or named, see :meth:`onnx_operator.common.egress.Egress.may_proxy`.
"""

import functools
import socket
import ssl
from contextvars import ContextVar

import aiohttp
from yarl import URL

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourceSettings
from onnx_operator.common.egress import CA_FILES, Egress, EgressError, read_egress
from onnx_operator.model.sources.base import SourceError, unreachable
from onnx_operator.model.sources.web.addresses import AddressGuard, destination
from onnx_operator.model.sources.web.answers import BoundedConnector

_KEPT_SECONDS = 60
_READ_BUFFER_BYTES = 256 << 10

_refused: ContextVar[list[str]] = ContextVar("_refused")


def watch_refusals() -> list[str]:
    """Give a list that gets the addresses which the guard keeps this task's next requests from."""
    refused: list[str] = []
    _refused.set(refused)
    return refused


class Connections:
    """Keeps connections; those to the origin ``platform``, which the platform team chose, may lead anywhere."""

    def __init__(self, settings: SourceSettings, ca_bundle: str, ca_setting: str, platform: URL | None) -> None:
        self._settings = settings
        self._ca_bundle = ca_bundle
        self._ca_setting = ca_setting
        self._platform = platform
        self._guard = _guard(settings)
        self._egress = current_egress()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def aclose(self) -> None:
        """Close all."""
        while self._sessions:
            await self._sessions.popitem()[1].close()

    def way(self, url: URL) -> tuple[aiohttp.ClientSession, str | None]:
        """Give what sends requests to this URL, and the proxy to ask.

        Raises :class:`SourceError` for malformed certificates, and ValueError for a URL that names no host.
        """
        trusted = self._platform is not None and url.origin() == self._platform
        host, port = destination(url)
        may = trusted or self._egress.may_proxy(host)
        proxy = (self._egress.proxy_for(url.scheme, host, port) if may else "") or None
        # Of the proxy's own address, which the platform team has chosen, nothing is asked.
        return self._session(trusted or proxy is not None), proxy

    def _session(self, trusted: bool) -> aiohttp.ClientSession:
        if trusted not in self._sessions:
            connector = BoundedConnector(
                ssl=_tls(self._ca_bundle, self._egress, self._ca_setting),
                socket_factory=None if trusted else self._socket,
                limit=0,
                keepalive_timeout=_KEPT_SECONDS,
                use_dns_cache=False,
            )
            self._sessions[trusted] = aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_READ_BUFFER_BYTES,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=self._settings.connect_timeout_seconds,
                    sock_connect=self._settings.connect_timeout_seconds,
                    sock_read=self._settings.read_timeout_seconds,
                ),
                headers={"User-Agent": "onnx-operator"},
            )
        return self._sessions[trusted]

    def _socket(self, info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        family, kind, protocol, _, where = info
        address = str(where[0])
        if not self._guard.allows(address):
            _refused.get().append(address)
            raise OSError(f"{address} is not allowed")
        return socket.socket(family=family, type=kind, proto=protocol)


def current_egress() -> Egress:
    """How the outside is reached at this moment. Raises :class:`SourceError`, which is worth a retry."""
    try:
        return read_egress()
    except EgressError as error:
        raise unreachable("the source", f"the ConfigMap or Secret of settings.egress cannot be used: {error}") from None


def _guard(settings: SourceSettings) -> AddressGuard:
    try:
        return AddressGuard(settings.allowed_networks)
    except ValueError as error:
        raise SourceError(
            Reason.SOURCE_REFUSED, f"The setting sources.allowedNetworks is malformed: {error}."
        ) from None


def _tls(ca_bundle: str, egress: Egress, ca_setting: str) -> ssl.SSLContext:
    try:
        return _context("\n".join(filter(None, (ca_bundle, egress.ca_bundle))))
    except (ssl.SSLError, ValueError) as error:
        which = f"{ca_setting}, or {' or '.join(CA_FILES)} of egress," if egress.ca_bundle else ca_setting
        raise SourceError(
            Reason.SOURCE_REFUSED, f"The setting {which} is not a PEM bundle of certificates: {error}."
        ) from None


@functools.lru_cache(maxsize=8)
def _context(ca_bundle: str) -> ssl.SSLContext:
    """One for all sources with these authorities: with the system's it takes tens of milliseconds, and about 1 MiB."""
    context = ssl.create_default_context()
    if ca_bundle:
        context.load_verify_locations(cadata=ca_bundle)
    return context
