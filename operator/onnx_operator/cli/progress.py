"""A sign of life while a slow link brings a model's structure."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from onnx_operator.api.urls import shown_uri
from onnx_operator.cli.output import console
from onnx_operator.common.text import visible

_LONGEST = 30


@contextmanager
def reading(uri: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show on a terminal how much was read; the bar is gone when it is done. Elsewhere nothing is shown.

    Yields what is to be called with the bytes read so far and the size of the file (None: not known). Of large
    models only a small part is read, so the bar rarely comes far.
    """
    terminal = console(stderr=True)
    if not terminal.is_terminal:
        yield lambda read, total: None
        return
    columns = (
        TextColumn("reading {task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, TimeElapsedColumn(), console=terminal, transient=True) as progress:
        task = progress.add_task(visible(_short(shown_uri(uri))), total=None)

        def update(read: int, total: int | None) -> None:
            progress.update(task, completed=read, total=total)

        yield update


def _short(uri: str) -> str:
    # The end tells most, and the bar needs room too.
    return uri if len(uri) <= _LONGEST else f"…{uri[1 - _LONGEST :]}"
