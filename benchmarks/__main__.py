"""``python -m benchmarks [NAME…]``: measure and print; a file is written only where ``--output`` says so."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks import cases, download, machine, measure, memory, remote, report

_INSPECTED: dict[str, tuple[str, Callable]] = {
    "inspect-squeezenet": ("light_squeezenet (no weights)", cases.squeezenet),
    "inspect-resnet50": ("ResNet-50", cases.resnet50),
}
_REMOTE = {case.name: case for case in remote.CASES}
NAMES = [*_INSPECTED, *_REMOTE, "download", "memory"]


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", type=click.Choice(NAMES))
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, help="Of each turn.")
@click.option("--repeats", type=click.IntRange(3, 50), default=3, show_default=True, help="Turns of each measurement.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Also write the page to this file.")
def main(names: tuple[str, ...], seconds: float, repeats: int, output: Path | None) -> None:
    """Measure inspection, downloads and memory estimates against baselines in the same run.

    Without a NAME all are measured, in about eight minutes, most of them for "memory". All traffic stays on this
    machine's loopback.
    """
    chosen = names or NAMES
    described = machine.describe()
    machine.pin(machine.cores()[1])
    inspection, far = [], []
    more: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in NAMES:
            if name not in chosen:
                continue
            click.echo(f"{name} …", err=True)
            if name in _REMOTE or name in ("download", "memory"):
                machine.unpin()
            if name in _REMOTE:
                far.append(remote.measure(_REMOTE[name]))
            elif name == "download":
                more["Downloading"] = download.report(download.measure())
            elif name == "memory":
                more["Estimated memory"] = memory.report(memory.measure())
            elif name in _INSPECTED:
                title, make = _INSPECTED[name]
                inspection.append(measure.inspection(title, make(), folder, seconds, repeats))
    if far:
        more = {"Reading from afar": remote.report(far)} | more
    command = " ".join(["python -m benchmarks", *names, f"--seconds {seconds:g} --repeats {repeats}"])
    page = report.document(command, described, repeats, inspection, more)
    click.echo(page)
    if output is not None:
        output.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
