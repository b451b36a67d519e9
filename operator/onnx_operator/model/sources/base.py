"""The interface of all sources, and their errors."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, Self

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin
from onnx_operator.common.closing import Closing
from onnx_operator.model.refusal import RefusedError


class SourceError(RefusedError):
    """A source could not be read."""


class SourceChangedError(SourceError):
    """Something else lies there than what was pinned; ``observed`` is what does.

    ``observed`` has kind ``None`` and an empty value where the store tells neither version nor strong ETag.
    """

    def __init__(self, message: str, *, observed: SourcePin) -> None:
        super().__init__(Reason.SOURCE_CHANGED, message)
        self.observed = observed

    @classmethod
    def of(cls, what: str, word: str, expected: str, observed: SourcePin | None) -> Self:
        """Say that ``what`` had the version ``expected``; ``word`` is what its store calls one."""
        found = observed.value if observed else f"what has no {word}"
        return cls(
            f"{what} is no longer what was pinned: expected {word} {expected}, found {found}.",
            observed=observed or SourcePin(kind="None", value=""),
        )


class BrokenStreamError(Exception):
    """A stream ended early, stalled or was cut: asking again from where it broke may help. The text says why."""


@dataclass(frozen=True)
class FileStat:
    """What a store tells about a file without sending it."""

    size: int | None
    """Bytes; None when the store does not tell."""
    pin: SourcePin | None
    """None when the store has neither a version nor a strong ETag."""
    sha256: str | None = None
    """Hex digest, where the store vouches for one."""


@dataclass(frozen=True)
class Stream:
    """Bytes on their way."""

    stat: FileStat
    """Of the whole file that is being sent, as far as the answer tells."""
    begin: int
    """Offset of the first byte: 0 instead of what was asked for, where the store serves no ranges."""
    pieces: AsyncIterator[bytes | memoryview]
    """Raises :class:`BrokenStreamError` when the stream breaks or stalls, and :class:`SourceError`.

    Ends without an error where the store ends the stream, be it early: whoever counts must compare.
    """


class Source(Closing, Protocol):
    """Where a URI leads: a file, or a folder that holds a model.

    Files are named relative to their folder (that of the file, or the one that the URI names), with ``/`` between
    the parts; :func:`check_name` says which names may be asked for at all. Calls may overlap. Close it, or use it as
    ``async with``. Sources derive from this class.
    """

    shown: str
    """The URI as messages may show it: without its query."""

    async def locate(self) -> list[str]:
        """Names of what may be the model (a file or an archive), the most likely first.

        More than one only where a model may lie in any of several archives, as with the layers of an image. A URI
        that names a file gives its name; in a folder the one ``.onnx`` file is looked for. Raises
        :class:`SourceError`: ``SourceNotFound`` where there is nothing, ``SourceRefused`` where several would do.
        """

    async def listing(self) -> list[str] | None:
        """Names of all files of the folder that the URI names, and of the folders in it, as the store gives them.

        None where the URI names a file, or a container image, whose layers are archives, or where nothing can be
        listed, as behind ``https`` addresses. Raises :class:`SourceError`: ``SourceRefused`` where there are too many.
        """
        return None

    async def stat(self, name: str) -> FileStat:
        """Look without downloading, within 20 seconds. Raises :class:`SourceError`."""

    def open(
        self, name: str, begin: int = 0, end: int | None = None, *, pin: SourcePin | None = None
    ) -> AbstractAsyncContextManager[Stream]:
        """Read the bytes from ``begin`` up to ``end`` (None: to the end of the file), of the version ``pin``.

        What can pass (429, 5xx, a refused connection) is tried again before the first byte, within 20 seconds and
        minding ``Retry-After``. A pin of kind ``None`` is a plain read. Connections are kept for the next call.
        Raises :class:`SourceChangedError` when something else lies there, :class:`SourceError` otherwise.
        """

    async def aclose(self) -> None:
        """Let go of connections."""


MAX_ETAG_BYTES = 256
_MAX_NAME_BYTES = 1024
_SHOWN_CHARACTERS = 100
"""Of a name that a stranger gave, in a message."""


def strong_etag(etag: str | None) -> SourcePin | None:
    """Make the pin of a strong ETag (in quotes); None of a weak or missing one, or one too long or odd to be kept."""
    if not etag or not etag.startswith('"') or len(etag) > MAX_ETAG_BYTES:
        return None
    # Other bytes are not sent back as they came; a blank or control character belongs into no ETag.
    if not etag.isascii() or any(c <= " " or c == "\x7f" for c in etag):
        return None
    return SourcePin(kind="Conditional", value=etag)


def is_confined(name: str) -> bool:
    """Tell whether a name stays within its folder, whatever file system or store it is used with."""
    parts = name.split("/")
    return (
        len(name.encode(errors="replace")) <= _MAX_NAME_BYTES
        and all(part not in ("", ".", "..") for part in parts)
        and not any(c < " " or c in "\\\x7f" for c in name)
    )


def unreachable(what: str, why: str) -> SourceError:
    """Make the error of something that may work later. ``what`` names the source, ``why`` has no secrets in it."""
    return SourceError(Reason.SOURCE_UNREACHABLE, f"{what} could not be read: {why}.", retriable=True)


def check_name(name: str, shown_uri: str) -> str:
    """Return ``name``. Raises :class:`SourceError` (``SourceRefused``) for one that leaves its folder."""
    if not is_confined(name):
        raise SourceError(
            Reason.SOURCE_REFUSED, f"{shown_uri}: {name[:_SHOWN_CHARACTERS]!r} leads out of the model's folder."
        )
    return name


def split_key(key: str, shown_uri: str, form: str) -> str:
    """Return the key of a URI. Raises :class:`SourceError` for one that names nothing or leads elsewhere."""
    if not key.strip("/") or not is_confined(key.removesuffix("/")):
        raise SourceError(Reason.SOURCE_REFUSED, f"{shown_uri} does not name an object; write {form}.")
    return key


def the_one_model(names: list[str], shown_uri: str) -> str:
    """Choose the one ``.onnx`` file of a folder, or else its one archive.

    Raises :class:`SourceError`: ``SourceNotFound`` where there is none, ``SourceRefused`` where there are several.
    """
    for kind, endings in (("file", (".onnx",)), ("archive", ARCHIVE_ENDINGS)):
        found = [name for name in names if name.lower().endswith(endings)]
        if len(found) > 1:
            few = ", ".join(name[:_SHOWN_CHARACTERS] for name in sorted(found)[:5])
            raise SourceError(
                Reason.SOURCE_REFUSED,
                f"{shown_uri} holds {len(found)} {kind}s that may be the model ({few}{' …' if len(found) > 5 else ''});"
                " give the address of one.",
            )
        if found:
            return found[0]
    raise SourceError(Reason.SOURCE_NOT_FOUND, f"{shown_uri} holds no .onnx file ({len(names)} other files).")


ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
"""Files that are opened to look for a model in them."""
