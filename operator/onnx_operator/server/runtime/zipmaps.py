"""Class probabilities as the tensor that they are, instead of a sequence of maps (``model.reading.zipmaps``).

The change is made in a copy in memory: the file itself, its digest and what an inspection says of it stay as they are.
Weights are neither parsed nor, where they are external, copied.
"""

import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from onnx_operator.model.reading.zipmaps import Change, Classes, Edit, find_change


@contextmanager
def served_form(path: Path) -> Iterator[tuple[Path, Mapping[str, Classes]]]:
    """The file to load for the model at ``path``, and the classes of the outputs that it has as tensors.

    It is ``path`` itself where there is nothing to change. External data are relative to the folder of ``path`` either
    way.
    """
    file, classes = _written(path)
    if file is None:
        yield path, {}
        return
    try:
        yield Path(f"/proc/self/fd/{file}"), classes
    finally:
        os.close(file)


def _written(path: Path) -> tuple[int | None, Mapping[str, Classes]]:
    """A file in memory with the changed model, and the classes of its outputs; None where nothing is changed."""
    if not hasattr(os, "memfd_create"):
        return None, {}
    try:
        with path.open("rb") as original, mmap.mmap(original.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            change = find_change(mapped)
            if not change.classes:
                return None, {}
            with memoryview(mapped) as view:
                return _in_memory(view, change), change.classes
    except (OSError, ValueError):
        return None, {}


def _in_memory(view: memoryview, change: Change) -> int:
    file = os.memfd_create("model")
    try:
        for part in _parts(view, change.edits):
            _write(file, part)
    except BaseException:
        os.close(file)
        raise
    return file


def _write(file: int, part: memoryview | bytes) -> None:
    with memoryview(part) as content:
        at = 0
        while at < len(content):
            with content[at:] as rest:
                at += os.write(file, rest)


def _parts(view: memoryview, edits: Sequence[Edit]) -> Iterator[memoryview | bytes]:
    at = 0
    for edit in edits:
        with view[at : edit.start] as kept:
            yield kept
        yield edit.content
        at = edit.end
    with view[at:] as kept:
        yield kept
