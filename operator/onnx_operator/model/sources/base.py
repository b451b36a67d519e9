"""The interface of all sources, and their errors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin

Progress = Callable[[int, int | None], None]
"""Called with the bytes that lie on disk so far and the expected total (None: the store did not say)."""


class SourceError(Exception):
    """A source could not be read.

    ``reason`` is one of ``ModelValid``; ``message`` is for people: it names the URI without its query and
    says what to do; ``retriable`` tells whether the same request can succeed later without any change.
    """

    def __init__(self, reason: Reason, message: str, *, retriable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retriable = retriable


class SourceChangedError(SourceError):
    """Something else lies there than what was pinned; ``observed`` is what does.

    ``observed`` has kind ``None`` and an empty value where the store tells neither version nor strong ETag.
    """

    def __init__(self, message: str, *, observed: SourcePin) -> None:
        super().__init__(Reason.SOURCE_CHANGED, message)
        self.observed = observed


@dataclass(frozen=True)
class SourceStat:
    """What a store tells about an object without sending it."""

    size: int | None
    """Bytes; None when the store does not tell."""
    pin: SourcePin | None
    """None when the store has neither a version nor a strong ETag."""
    sha256: str | None
    """Hex digest, where the store vouches for one."""


@dataclass(frozen=True)
class Downloaded:
    """A complete file on disk."""

    sha256: str
    """Hex digest of the whole file, computed from the bytes as they arrived."""
    size: int
    """Bytes."""
    pin: SourcePin | None
    """What was actually read; None when the store has neither a version nor a strong ETag."""


class Source(Protocol):
    """One object in a store. Not for concurrent calls; close it, or use it as ``async with``."""

    async def stat(self) -> SourceStat:
        """Look without downloading, within 20 seconds. Raises :class:`SourceError`."""

    async def download(
        self,
        destination: Path,
        *,
        pin: SourcePin | None = None,
        max_bytes: int | None = None,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> Downloaded:
        """Write the object to ``destination``.

        With ``pin``, exactly that version: a pin of kind ``None`` is a plain read, whose hash the caller
        compares. With ``resume``, a shorter file already there is continued where the pin allows it. After an
        error the file holds what had arrived, all of one version.

        Raises :class:`SourceChangedError` when something else lies there, :class:`SourceError` otherwise
        (``TooLarge`` above ``max_bytes``), and OSError when the destination cannot be written.
        """

    async def aclose(self) -> None:
        """Let go of connections."""

    async def __aenter__(self) -> Self:
        """Return the source itself."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""


LONGEST_ETAG_BYTES = 256


def strong_etag(etag: str | None) -> SourcePin | None:
    """Make the pin of a strong ETag (in quotes); None of a weak or missing one, or one too long to be kept."""
    if not etag or not etag.startswith('"') or len(etag.encode()) > LONGEST_ETAG_BYTES:
        return None
    return SourcePin(kind="Conditional", value=etag)
