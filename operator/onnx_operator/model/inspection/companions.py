"""What lies beside a model in its folder, for a scoring script that reads it: listed and pinned, not looked into."""

import asyncio
from collections.abc import Collection, Iterator

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourceFile
from onnx_operator.model.inspection.feed import SourceFeed
from onnx_operator.model.sources.base import SourceError, is_confined

MAX_FILES = 500
"""Of a model's folder. Each is a line of what pods are told, and a question to the store."""
_MAX_PART_BYTES = 255
"""Of one part of a name: what Linux file systems take."""
_AT_ONCE = 8


async def companions(feed: SourceFeed, known: Collection[str], left_out: Collection[str] = ()) -> list[SourceFile]:
    """All files of the folder that the source's URI names, but for those that are ``known`` or ``left_out``.

    Hidden files are none of them. Empty where the URI names a file. Raises :class:`SourceError`: ``TooLarge`` for
    too many, ``SourceRefused`` for names that no folder can hold.
    """
    shown = feed.source.shown
    listed = await feed.source.listing() or []
    names = sorted({name for name in listed if not _is_hidden(name)} - {*known, *left_out})
    if len(names) + len(known) > MAX_FILES:
        raise SourceError(
            Reason.TOO_LARGE,
            f"{shown} holds {len(names) + len(known)} files, of which a scoring script gets all; at most {MAX_FILES} "
            "are possible. Give the address of the model's file, or make an archive of what the script reads.",
        )
    _check(names, known, shown)
    found: list[SourceFile] = []
    for some in _batches(names):
        answers = await asyncio.gather(*(_describe(feed, name) for name in some), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            if answer is not None:
                found.append(answer)
    return found


async def _describe(feed: SourceFeed, name: str) -> SourceFile | None:
    try:
        return await feed.describe(name)
    except SourceError as error:
        # A store's mark of an empty folder is listed, and is no file.
        if error.reason is Reason.SOURCE_NOT_FOUND:
            return None
        raise


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part.strip(".") for part in name.split("/"))


def _check(names: Collection[str], known: Collection[str], shown: str) -> None:
    everything = {*names, *known}
    for name in names:
        if not is_confined(name):
            raise SourceError(Reason.SOURCE_REFUSED, f"{shown} holds {name!r:.200}, which leads out of the folder.")
        if any(len(part.encode(errors="replace")) > _MAX_PART_BYTES for part in name.split("/")):
            raise SourceError(
                Reason.SOURCE_REFUSED, f"{shown} holds {name!r:.100}…, a name longer than a pod's volume takes."
            )
    for name in everything:
        for at, character in enumerate(name):
            if character == "/" and name[:at] in everything:
                raise SourceError(
                    Reason.SOURCE_REFUSED,
                    f"{shown} holds {name[:at]!r:.200} as a file and as a folder ({name!r:.200}), which no volume can.",
                )


def _batches(names: list[str]) -> Iterator[list[str]]:
    for at in range(0, len(names), _AT_ONCE):
        yield names[at : at + _AT_ONCE]
