"""``python -m tests.chaos``: many seeds, with progress and a summary."""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import click

from tests.chaos import plan
from tests.chaos.run import run, versions
from tests.chaos.seed import Result


@click.command()
@click.option("--seeds", default=50, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.option("--first", default=0, show_default=True, type=click.IntRange(min=0), help="The first of them.")
@click.option("--side-by-side", default=12, show_default=True, type=click.IntRange(min=1), help="How many at a time.")
@click.option("--show", is_flag=True, help="Print the plans, and do nothing.")
@click.option("--folder", type=click.Path(path_type=Path), help="For logs of what failed; default: a temporary one.")
def main(seeds: int, first: int, side_by_side: int, show: bool, folder: Path | None) -> None:
    """Disturb operators by seeds, and see that they end where undisturbed ones do."""
    numbers = range(first, first + seeds)
    if show:
        for number in numbers:
            made = plan.make(number)
            told = f"{made.replicas} operators, {'hurried' if made.hurried else 'as in production'}"
            click.echo(f"seed {number}: {told}{', restarts the control plane' if made.lone else ''}")
            for step in made.steps:
                click.echo(f"  {step}")
            click.echo(f"  ends as {made.finals}")
        return
    place = folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    done = 0

    def tell(result: Result) -> None:
        nonlocal done
        done += 1
        how = f"FAILED: {result.failures[0]}" if result.failures else f"ends after {result.calm_seconds:.1f} s of calm"
        click.echo(f"[{done}/{seeds}] seed {result.seed}: {how}")

    click.echo(f"{versions()}; logs in {place}")
    summary = asyncio.run(run(numbers, side_by_side, place, tell))
    click.echo(summary.text())
    sys.stdout.flush()
    # What is left of a harness that failed must not keep the process.
    os._exit(1 if summary.failed else 0)


if __name__ == "__main__":
    main()
