"""What the sources that are read by HTTP share."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from yarl import URL

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.model.sources.base import Source, SourceChangedError, SourceError
from onnx_operator.model.sources.web.addresses import check_url, destination, read_url
from onnx_operator.model.sources.web.client import WebClient
from onnx_operator.model.sources.web.ranges import WebRange, open_range


class WebSource(Source):
    """A URI that one :class:`WebClient` reads. Subclasses take it apart and say whom the client asks.

    The constructor contacts nobody. Raises :class:`SourceError` for a URI, settings or credentials of no use.
    """

    version_word = ""
    """What the store calls that which pins a file for good."""

    def __init__(
        self,
        uri: str,
        *,
        credentials: Mapping[str, str],
        settings: SourceSettings,
        workload_identity: bool = False,
    ) -> None:
        self.shown = uri
        self._credentials = credentials
        self._settings = settings
        self._workload_identity = workload_identity
        self._lock = asyncio.Lock()
        """Held while it is found out where the URI leads: once, whoever asks."""
        self._client = self._connect(uri, credentials, settings)

    def _connect(self, uri: str, credentials: Mapping[str, str], settings: SourceSettings) -> WebClient:
        """Read the URI, and make the client for it. Raises :class:`SourceError`."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def _open_version(
        self, name: str, url: URL, what: str, begin: int, end: int | None, pinned: str
    ) -> AsyncIterator[WebRange]:
        """Read a range of a version that never changes; where it is gone, say what there is instead.

        ``pinned`` is empty where any version will do. Raises :class:`SourceChangedError` and :class:`SourceError`.
        """
        try:
            async with open_range(self._client, url, what, begin, end) as part:
                assert part is not None
                yield part
        except SourceError as error:
            if pinned and error.reason is Reason.SOURCE_NOT_FOUND:
                pin = (await self.stat(name)).pin
                if pin is None or pin.value != pinned:
                    raise SourceChangedError.of(what, self.version_word, pinned, pin) from None
            raise


def pinned_version(pin: SourcePin | None) -> str:
    """The version that a pin names for good; empty where it names none."""
    return pin.value if pin is not None and pin.kind == "Immutable" else ""


def platform_url(text: str, setting: str) -> URL:
    """Read an address of the settings, with TLS or without. Raises :class:`SourceError` (``SourceRefused``)."""
    try:
        url = read_url(text.rstrip("/"))
        return check_url(url, plain_http={destination(url)})
    except (ValueError, SourceError):
        raise SourceError(
            Reason.SOURCE_REFUSED, f"The setting {setting} is not an https or http address: {text!r}."
        ) from None
