"""``python -m benchmarks.serving [CASE…]``: measure and print; a file is written only where ``--output`` says so."""

import tempfile
from dataclasses import replace
from pathlib import Path

import click

from benchmarks import machine
from benchmarks.serving import parts, report, steps
from benchmarks.serving.cases import CASES, ROWS, UNLIKE_CASES, UNLIKE_ROWS
from benchmarks.serving.measure import measure

_PROFILED = ("mlp-json-32", "mlp-binary-32")
_LOADED = "mlp-json-8"
"""The case by which memory and start are compared."""


@click.command()
@click.argument(
    "names", nargs=-1, metavar="[CASE]...", type=click.Choice([case.name for case in (*CASES, *UNLIKE_CASES)])
)
@click.option("--seconds", type=click.FloatRange(1, 60), default=3.0, show_default=True, help="Of each turn.")
@click.option("--repeats", type=click.IntRange(3, 50), default=3, show_default=True, help="Turns of each server.")
@click.option("--peers/--no-peers", default=True, help="Measure KServe and MLServer, too.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Also write the page to this file.")
def main(names: tuple[str, ...], seconds: float, repeats: int, peers: bool, output: Path | None) -> None:
    """Measure our server, KServe's and MLServer's against bare runs of the same models, in about half an hour.

    Needs wrk and h2load (Debian: wrk, nghttp2-client). The peers' environments are made on first use.
    """
    described = machine.describe()
    results, profiles, loaded = [], {}, []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for case in (*CASES, *UNLIKE_CASES):
            if names and case.name not in names:
                continue
            click.echo(f"{case.name} …", err=True)
            results.append(measure(case if peers else replace(case, peers=()), folder, seconds, repeats))
            if case.name in _PROFILED:
                profiles[f"{case.title}, {case.clients} clients"] = steps.measure(
                    case.name, folder / f"{case.name}.onnx"
                )
            if case.name == _LOADED:
                loaded = parts.measure(folder / f"{case.name}.onnx", machine.cores()[0])
    command = " ".join(["python -m benchmarks.serving", *names, f"--seconds {seconds:g} --repeats {repeats}"])
    page = report.document(command, described, repeats, ROWS, UNLIKE_ROWS, results, profiles, loaded)
    click.echo(page)
    if output is not None:
        output.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
