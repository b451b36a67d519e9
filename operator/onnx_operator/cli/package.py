"""``kubectl onnx package``: an image of the server with a scoring script and its packages in it, for production."""

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from onnx_operator.api.names import IMAGE_MODEL_DIRECTORY, IMAGE_SCORING_DIRECTORY
from onnx_operator.cli.output import echo

BUILDERS: dict[str, tuple[str, ...]] = {
    "buildah": ("buildah", "bud"),
    "podman": ("podman", "build"),
    "docker": ("docker", "build"),
}
"""Programs that build an image from a Dockerfile, in the order in which they are tried."""

SCRIPT, REQUIREMENTS, MODEL = IMAGE_SCORING_DIRECTORY, "/opt/requirements", IMAGE_MODEL_DIRECTORY
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".git", ".venv", ".ipynb_checkpoints")
_IMAGE = re.compile(r"[a-z0-9]([\w.:/@-]*[\w])?", re.ASCII | re.IGNORECASE)


class PackageError(Exception):
    """The image cannot be made; the message says what to change."""


@dataclass(frozen=True)
class Contents:
    """What goes into the image. ``pins`` are NAME==VERSION, ``model`` a file or a folder."""

    scoring: Path
    base: str
    pins: tuple[str, ...] = ()
    model: Path | None = None
    entry: str = ""
    """The script's path in the folder ``scoring``; where empty the server looks for it."""


def dockerfile(contents: Contents) -> str:
    """The Dockerfile of a build context made by :func:`write_context`."""
    lines = [
        "# A scoring script with its packages, on the server's image.",
        f"FROM {contents.base}",
        f"COPY scoring/ {SCRIPT}/",
    ]
    if contents.pins:
        lines += [
            f"COPY requirements.txt {REQUIREMENTS}.txt",
            "USER 0:0",
            f"RUN onnx-server install-requirements --target {REQUIREMENTS} --file {REQUIREMENTS}.txt",
            "USER 65532:65532",
        ]
    variables = [f"ONNX_SERVER_SERVE_SCRIPT={SCRIPT}"]
    if contents.entry:
        variables.append(f"ONNX_SERVER_SERVE_ENTRY_SCRIPT={_plain(contents.entry, 'the entry script')}")
    if contents.pins:
        variables.append(f"ONNX_SERVER_SERVE_REQUIREMENTS={REQUIREMENTS}")
    if contents.model is not None:
        lines.append(f"COPY model/ {MODEL}/")
        variables.append(f"ONNX_SERVER_SERVE_MODEL={MODEL}/{_entry(contents.model)}")
    return "\n".join([*lines, f"ENV {' '.join(variables)}", ""])


def write_context(contents: Contents, folder: Path) -> list[str]:
    """Fill ``folder`` with all that a build needs; return the names at its top. Raises :class:`PackageError`, OSError.

    A script that is a single file comes alone, a folder comes whole.
    """
    if not _IMAGE.fullmatch(contents.base):
        raise PackageError(
            f"{contents.base!r} is not the name of an image; expected one such as registry.example.com/server:1.0"
        )
    text = dockerfile(contents)
    if folder.exists() and any(folder.iterdir()) and not (folder / "Dockerfile").is_file():
        raise PackageError(
            f"{folder} holds other files; expected an empty folder, or one that was made by this command"
        )
    for old in ("scoring", "model"):
        shutil.rmtree(folder / old, ignore_errors=True)
    (folder / "requirements.txt").unlink(missing_ok=True)
    (folder / "scoring").mkdir(parents=True)
    _copy(contents.scoring, folder / "scoring", folder)
    if contents.pins:
        (folder / "requirements.txt").write_text("".join(f"{pin}\n" for pin in contents.pins), encoding="utf-8")
    if contents.model is not None:
        (folder / "model").mkdir()
        _copy(contents.model, folder / "model", folder)
    (folder / "Dockerfile").write_text(text, encoding="utf-8")
    return sorted(path.name for path in folder.iterdir())


def _copy(source: Path, target: Path, context: Path) -> None:
    if source.is_file():
        shutil.copy2(source, target / source.name)
        return
    if context.resolve().is_relative_to(source.resolve()):
        raise PackageError(f"the context {context} lies in {source}, which goes into it; choose another --context")
    shutil.copytree(source, target, ignore=_LEFT_OUT, dirs_exist_ok=True)


def _entry(model: Path) -> str:
    if model.is_file():
        return _plain(model.name)
    found = sorted(path.relative_to(model) for path in model.rglob("*.onnx"))
    if len(found) != 1:
        there = ", ".join(map(str, found)) or "none"
        raise PackageError(f"{model} must hold one .onnx file, it holds: {there}")
    return _plain(str(found[0]))


def _plain(name: str, what: str = "the model's file") -> str:
    if not re.fullmatch(r"[\w./+-]+", name, re.ASCII):
        raise PackageError(f"{what} is called {name!r}; expected letters, digits and . _ - + / only")
    return name


def find_builder(name: str | None, which: Callable[[str], str | None] = shutil.which) -> tuple[str, ...]:
    """The command of the builder called ``name``, or of the first that is here. Raises :class:`PackageError`."""
    for candidate in [name] if name else list(BUILDERS):
        if which(candidate):
            return BUILDERS[candidate]
    raise PackageError(
        f"{name or 'none of ' + ', '.join(BUILDERS)} is on the PATH; install one, or build the context elsewhere"
    )


def build(builder: Sequence[str], folder: Path, tag: str, options: Sequence[str] = ()) -> None:
    """Build the image; what the builder says goes to the terminal. Raises :class:`PackageError`."""
    command = [*builder, *options, "--tag", tag, "--file", str(folder / "Dockerfile"), str(folder)]
    done = subprocess.run(command, check=False)  # noqa: S603 - the user's own builder and arguments
    if done.returncode:
        raise PackageError(f"{' '.join(builder)} failed with exit code {done.returncode}; the context is {folder}")


def next_steps(folder: Path, tag: str, built: bool, model: bool) -> str:
    """What to do with the context or the image, as commands."""
    name = tag or "registry.example.com/my-model:1"
    lines = [] if built else [f"docker build --tag {name} {folder}     # or podman build, or buildah bud"]
    lines.append(f"docker push {name}     # or podman push, or buildah push")
    if model:
        lines.append(f"docker run --rm --publish 8080:8080 {name} serve --name my-model")
    manifest = f"  scoring:\n    image: {name}"
    return "Next:\n" + "".join(f"  {line}\n" for line in lines) + f"and in the OnnxModel's spec:\n{manifest}"


@click.command(name="package")
@click.argument("scoring", type=click.Path(path_type=Path, exists=True))
@click.option("--from", "base", required=True, metavar="IMAGE", help="The server's image, as the cluster uses it.")
@click.option(
    "--requirement", "requirements", multiple=True, metavar="NAME==VERSION", help="A package; may be repeated."
)
@click.option(
    "--requirements-file", "files", multiple=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option(
    "--conda",
    "conda_files",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A conda environment (myenv.yml); its pip part is installed.",
)
@click.option("--entry-script", "entry", default="", metavar="PATH", help="The script in the folder: src/score.py.")
@click.option("--with-model", "model", type=click.Path(path_type=Path, exists=True), help="Put the model in as well.")
@click.option("--context", "folder", type=click.Path(path_type=Path, file_okay=False), default=Path("onnx-package"))
@click.option("--build", "build_it", is_flag=True, help="Build it with buildah, podman or docker.")
@click.option("--builder", type=click.Choice(list(BUILDERS)), help="Default: the first that is installed.")
@click.option("--build-option", "options", multiple=True, help="Handed to the builder as it is; may be repeated.")
@click.option("--tag", default="", help="The image's name; needed with --build.")
def package(
    scoring: Path,
    base: str,
    requirements: tuple[str, ...],
    files: tuple[Path, ...],
    conda_files: tuple[Path, ...],
    entry: str,
    model: Path | None,
    folder: Path,
    build_it: bool,
    builder: str | None,
    options: tuple[str, ...],
    tag: str,
) -> None:
    """Make an image of the scoring script SCORING (score.py, or its folder) and its packages, for production.

    The build context is written to the folder of --context; with --build the image is built from it. The model is
    fetched by the pods as ever, unless --with-model puts it into the image.
    """
    from onnx_operator.server.script.pins import PinError, read_pins
    from onnx_operator.server.script.requirements import installed_version
    from onnx_operator.server.script.settings import ScriptError, entry_script

    if build_it and not tag:
        raise click.UsageError("--build needs --tag, the image's name")
    try:
        entry_script(scoring, entry)
        pins = read_pins(requirements, files, conda_files, installed_version)
        command = find_builder(builder) if build_it else ()
        names = write_context(Contents(scoring, base, pins.pins, model, entry), folder)
        for note in pins.notes:
            echo(f"note: {note}", err=True)
        echo(f"{folder} holds {', '.join(names)}")
        if build_it:
            build(command, folder, tag, options)
    except (PackageError, PinError, ScriptError, OSError) as error:
        raise click.ClickException(str(error)) from None
    echo(next_steps(folder, tag, build_it, model is not None))
