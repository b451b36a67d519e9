"""Makes the models of the examples anew: `python -m examples.build NAME… | all`.

Each `make_model.py` runs in an environment of its own, made from the `requirements.txt` beside it and kept in the
user's cache; without that file it runs in this one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from examples.catalogue import Example, built, differences, examples
from tests.cluster.layout import ROOT, cache
from tests.cluster.progress import locked

# Training again on another processor does not end at quite the same weights.
TOLERANCE = 0.05


class BuildError(Exception):
    """What kept a model from being made."""


@dataclass(frozen=True)
class Made:
    """A model made anew, and where it differs from the one that is checked in."""

    size: int
    identical: bool
    differences: list[str]


def make(example: Example, folder: Path) -> str:
    """Run the example's `make_model.py` into `folder`; return what it printed. Raises :class:`BuildError`."""
    python = environment(example)
    variables = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        # Shared libraries that `prepare.py` puts into the environment.
        "LD_LIBRARY_PATH": str(python.parents[1] / "lib"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    return _run([python, example.folder / "make_model.py", folder], variables)


def check(example: Example, folder: Path) -> Made:
    """Compare what was made in `folder` with the example's own files."""
    file = example.file
    content = (folder / file.name).read_bytes()
    again = Example(folder)
    found: list[str] = []
    # What a script answers is compared where it is served.
    if (folder / "expected.json").exists():
        found = differences(example.expected, again.expected, TOLERANCE, "expected.json")
    return Made(len(content), file.exists() and content == file.read_bytes(), found)


def environment(example: Example) -> Path:
    """The Python that runs the example's maker, with what its `requirements.txt` pins."""
    requirements = example.folder / "requirements.txt"
    if not requirements.exists():
        return Path(sys.executable)
    version = _wanted_version(example)
    prepare = example.folder / "prepare.py"
    parts = [requirements.read_bytes(), version.encode(), prepare.read_bytes() if prepare.exists() else b""]
    folder = cache() / "examples" / hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    with locked(cache() / "examples.lock", "another build of examples"):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _run([interpreter(version), "-m", "venv", folder])
            pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([*pip, "--upgrade", "pip", "wheel"])
            # The file lists everything: some of these packages disagree about each other's versions.
            _run([*pip, "--no-deps", "--requirement", requirements])
            if prepare.exists():
                _run([sys.executable, prepare, folder])
            (folder / "complete").touch()
    return folder / "bin" / "python"


def interpreter(version: str) -> Path:
    """A Python of a version such as `3.6` on this machine: in PATH or among pyenv's."""
    if sys.version.startswith(f"{version}."):
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for candidate in filter(None, found):
        # pyenv's own commands are there for versions, too, that are not.
        told = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
        if told.stdout.startswith(f"Python {version}."):
            return Path(candidate)
    raise BuildError(f"Python {version} is needed, the last that the framework's packages are for (pyenv has it)")


def _wanted_version(example: Example) -> str:
    pin = example.folder / ".python-version"
    return pin.read_text().strip() if pin.exists() else "{}.{}".format(*sys.version_info)


def _run(command: list[str | Path], variables: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(
            f"{' '.join(map(str, command))} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}"
        )
    return done.stdout


def _keep(example: Example, folder: Path) -> None:
    """Put what was made into the example's folder; a model that is not checked in, into the cache."""
    for made in folder.iterdir():
        target = example.folder
        if made.name == example.file.name and not (example.folder / made.name).exists():
            target = built(example.name)
            target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, target / made.name)


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--write", is_flag=True, help="Replace the example's files by what was made.")
def main(names: tuple[str, ...], write: bool) -> None:
    """Make the models of the examples NAMES, or of all, and compare them with those that are here."""
    known = {example.name: example for example in examples()}
    unknown = set(names) - set(known) - {"all"}
    if unknown:
        raise click.UsageError(f"there is no example {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    failed = False
    for example in known.values() if "all" in names else map(known.__getitem__, names):
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="example-") as temporary:
            folder = Path(temporary)
            # The manifest says how the model's file is called.
            shutil.copyfile(example.folder / "model.yaml", folder / "model.yaml")
            try:
                click.echo(f"{example.name}:")
                for line in make(example, folder).splitlines():
                    click.echo(f"  {line}")
                made = check(example, folder)
            except BuildError as error:
                click.echo(f"  {error}")
                failed = True
                continue
            if write or not example.file.exists():
                _keep(example, folder)
        same = "the same bytes" if made.identical else "other bytes"
        click.echo(f"  {made.size} bytes, {same} as here, in {time.monotonic() - started:.0f} s")
        for difference in made.differences:
            click.echo(f"  {difference}")
        failed = failed or bool(made.differences and not write)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
