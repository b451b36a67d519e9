"""The one place where the commands print: nothing from outside steers the terminal or is taken for markup."""

from __future__ import annotations

import json
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

import click

from onnx_operator.common.text import visible, visible_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

_WIDE = 4096


def echo(text: str, *, err: bool = False) -> None:
    """Print lines of text."""
    click.echo(visible(text, lines=True), err=err)


def echo_json(value: Any, *, indent: int | None = None) -> None:
    """Print a value for programs: it means what it meant, in characters that are safe to look at."""
    click.echo(visible_json(json.dumps(value, indent=indent, ensure_ascii=False)))


def console(*, stderr: bool = False, **options: Any) -> Console:
    """A console that takes no markup, and writes out whatever would steer the terminal."""
    from rich.console import Console
    from rich.segment import Segment

    class Safe(Console):
        """rich's own control sequences are styles and control segments; text never is."""

        def render(self, renderable: Any, options: Any = None) -> Any:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(visible(segment.text, lines=True), segment.style)

    return Safe(highlight=False, markup=False, emoji=False, stderr=stderr, **options)


def show(renderable: RenderableType, *, to_stderr: bool = False) -> None:
    """Print for a terminal; into a file or pipe lines are as long as their text."""
    terminal = console(stderr=to_stderr)
    if terminal.is_terminal:
        terminal.print(renderable)
        return
    text = StringIO()
    console(file=text, width=_WIDE).print(renderable)
    echo("\n".join(line.rstrip() for line in text.getvalue().split("\n")).rstrip("\n"), err=to_stderr)


class Commands(click.Group):
    """Commands whose errors are printed as carefully as everything else."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Read the command line."""
        with _careful():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with _careful():
            return super().invoke(ctx)


@contextmanager
def _careful() -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        # click prints this text as it is.
        error.message = visible(error.message, lines=True)  # type: ignore[misc]
        raise
