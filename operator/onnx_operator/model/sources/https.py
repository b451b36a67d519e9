"""Models behind ``https`` addresses that users choose, and behind ``http`` ones of hosts that the settings name."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote, unquote

from yarl import URL

from onnx_operator.api.conditions import Reason
from onnx_operator.api.schemes import HTTPS_CREDENTIALS
from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.model.sources.base import FileStat, SourceError, Stream, check_name, is_confined
from onnx_operator.model.sources.hosts import check_https_hosts, check_plain_http, plain_http_hosts
from onnx_operator.model.sources.web.addresses import parse_url, shown_url
from onnx_operator.model.sources.web.client import Login, WebClient, authorization
from onnx_operator.model.sources.web.ranges import open_pinned, stat_of
from onnx_operator.model.sources.websource import WebSource

_ADVICE = (
    "check the Secret named in spec.model.credentials.secretName (HTTPS_BEARER_TOKEN, or HTTPS_USERNAME and"
    " HTTPS_PASSWORD; HTTPS_HOSTS), or whether a presigned link has expired."
)
_PLAIN_ADVICE = "none are sent over plain http, where anybody on the way could read them; give an https address."
_UNNAMED = "model.onnx"


class HttpsSource(WebSource):
    """One address, read with GET only: presigned links answer no HEAD. Other files lie beside it.

    Every address that is connected to is checked, at each redirect too, and credentials go to the origin of
    the URI alone, if ``HTTPS_HOSTS`` among them names its host; never without TLS. Raises :class:`SourceError`:
    ``SourceRefused`` for an address it will never read, ``CredentialsNotFound`` for credentials that are not meant for
    it.
    """

    def _connect(self, uri: str, credentials: Mapping[str, str], settings: SourceSettings) -> WebClient:
        check_plain_http(uri, settings)
        plain_http = plain_http_hosts(settings)
        try:
            self._url = parse_url(uri, plain_http=plain_http)
        except ValueError:
            hint = " Write a blank in a name as %20." if " " in uri.strip() else ""
            raise SourceError(Reason.SOURCE_REFUSED, f"The model's URI is not a valid https address.{hint}") from None
        if "#" in uri:
            raise SourceError(
                Reason.SOURCE_REFUSED,
                f"{shown_url(self._url)} is followed by a fragment, which is never sent to a server; write # of a name"
                " as %23.",
            )
        self.shown = shown_url(self._url)
        self._name = _file_name(self._url)
        return WebClient(settings, "https", self._login(uri, credentials), plain_http=plain_http)

    def _login(self, uri: str, credentials: Mapping[str, str]) -> Login:
        origin = self._url.origin()
        if origin.scheme == "http":
            return Login.of(origin, "", _PLAIN_ADVICE)
        check_https_hosts(uri, credentials)
        given = (credentials.get(name, "") for name in HTTPS_CREDENTIALS)
        return Login.of(origin, authorization(self.shown, *given), _ADVICE)

    async def locate(self) -> list[str]:
        """Give the last part of the address's path; nothing is asked for."""
        return [self._name]

    async def stat(self, name: str) -> FileStat:
        """Ask for the first byte, and read the size and the ETag beside it."""
        url = self._address(name)
        return await stat_of(self._client, url, shown_url(url))

    @asynccontextmanager
    async def open(
        self, name: str, begin: int = 0, end: int | None = None, *, pin: SourcePin | None = None
    ) -> AsyncIterator[Stream]:
        """Read a range in one request, under ``If-Match`` where the pin is a strong ETag."""
        url = self._address(name)
        async with open_pinned(self._client, url, shown_url(url), begin, end, pin) as stream:
            yield stream

    def _address(self, name: str) -> URL:
        check_name(name, self.shown)
        if name == self._name:
            return self._url
        if self._url.raw_query_string:
            raise SourceError(
                Reason.SOURCE_REFUSED,
                f"The model needs the file {name!r}, but {self.shown} has a query, which signs or chooses one file"
                " only. Give an address without one, or put the model and its files into a .zip or .tar.gz.",
            )
        folder = self._url.raw_path.rpartition("/")[0]
        # Not joined as a reference: a name such as "a:b" would be taken for an address of its own.
        return URL(f"{self._url.origin()}{folder}/{quote(name)}", encoded=True)


def _file_name(url: URL) -> str:
    # %2F too: stores that take a whole key as one part of the path write it so.
    name = unquote(url.raw_path).rpartition("/")[2]
    return name if is_confined(name) else _UNNAMED
