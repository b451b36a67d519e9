"""What is told to the processes that hold a script, and what they may see of ours."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx_operator.api.names import IMAGE_MODEL_DIRECTORY, MODEL_DIRECTORY
from onnx_operator.api.schemes import ALL_CREDENTIALS
from onnx_operator.server import plugins
from onnx_operator.server.errors import StartError
from onnx_operator.server.runtime.threads import limit_libraries

# The operator's own, the addresses of Kubernetes, and what a Python started for us must not pass on.
ALL_CREDENTIALS_PREFIXES = ("ONNX_", "KUBERNETES_", "PYTHONSTARTUP", "PYTHONINSPECT", "OTEL_EXPORTER_OTLP_HEADERS")

_MAX_FOLDERS = 10_000
"""In which a script is looked for."""


class ScriptError(StartError):
    """The script cannot be used.

    ``message`` names the exception, what it said and the line of the script; ``traceback`` is for the log.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.traceback = traceback


@dataclass(frozen=True)
class ScriptSettings:
    """A script and the bounds it is held to. Times in seconds, sizes in bytes."""

    script: Path
    """``score.py``, or the folder that holds it."""
    model_directory: Path
    """What ``AZUREML_MODEL_DIR`` says."""
    entry_script: str = ""
    """The script's path within its folder; where empty it is looked for."""
    requirements: Path | None = None
    """The folder that ``onnx-server install-requirements --target`` filled."""
    name: str = ""
    version: str = ""
    workers: int = 1
    """Processes, each of which loads the model; each answers one request at a time."""
    cpus: int = 1
    """What the numeric libraries of each process take for the number of CPUs."""
    init_timeout: float = 300.0
    max_output_bytes: int = 64 << 20
    memory_bytes: int | None = None
    """How much data memory each process may ask for before it gets a MemoryError; None is as much as there is."""
    first_restart_delay: float = 0.5
    """Doubled by each crash without an answer in between; the first restart after an answer is immediate."""
    longest_restart_delay: float = 30.0


@dataclass(frozen=True)
class EntryScript:
    """The file to run, and the folder that it belongs to, in which it works and finds its own modules."""

    path: Path
    root: Path

    @property
    def name(self) -> str:
        """Its path within the folder, as ``AZUREML_ENTRY_SCRIPT`` has it."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def import_folders(self) -> list[Path]:
        """Where its modules are found: the folder, its own folder, and that which its package lies in."""
        package = self.path.parent
        while (package / "__init__.py").is_file() and package.parent != package:
            package = package.parent
        return list(dict.fromkeys([self.root, self.path.parent, package]))


def entry_script(given: Path, entry: str = "") -> EntryScript:
    """The script in ``given``, a file or a folder, in which ``entry`` is its path; where empty it is looked for.

    Raises :class:`ScriptError` naming what is there instead.
    """
    path = given.absolute()
    if path.is_file():
        if entry:
            raise ScriptError(f"the entry script {entry!r} is looked for in a folder; {given} is a file")
        return EntryScript(path, path.parent)
    if not path.is_dir():
        raise ScriptError(f"there is no script {given}; expected a Python file or a folder with score.py")
    return EntryScript(_named(path, entry) if entry else _found(path, given), path)


def _named(folder: Path, entry: str) -> Path:
    # The folder stays as it was given: where it holds a ".." a shortened path would not begin with it.
    within = Path(os.path.normpath(entry))
    path = folder / within
    if within.is_absolute() or ".." in within.parts or not path.is_file():
        raise ScriptError(f"{folder} holds no script {entry}; expected a path in it, such as src/score.py")
    return path


def _found(folder: Path, given: Path) -> Path:
    """``score.py`` or the only script at the top; else the one ``score.py`` in the folders within."""
    preferred = folder / "score.py"
    if preferred.is_file():
        return preferred
    found = sorted(file for file in folder.glob("*.py") if file.name != "__init__.py")
    if len(found) == 1 and re.search(rb"\brun\b", found[0].read_bytes()):
        return found[0]
    within = sorted(_scripts_within(folder))
    if len(within) == 1:
        return within[0]
    if len(found) == 1:
        return found[0]
    shown = [file.relative_to(folder).as_posix() for file in (*found, *within)]
    names = ", ".join(shown[:20]) or "no Python file"
    raise ScriptError(
        f"{given} holds {names}; expected score.py, or one Python file, or --entry-script with the script's path in it"
    )


def _scripts_within(folder: Path) -> Iterator[Path]:
    for number, (place, folders, files) in enumerate(os.walk(folder)):
        if number > _MAX_FOLDERS:
            raise ScriptError(f"{folder} holds more than {_MAX_FOLDERS} folders; name the script with --entry-script")
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        if "score.py" in files:
            yield Path(place, "score.py")


def model_folder(model: Path, given: Path | None = None) -> Path:
    """What ``AZUREML_MODEL_DIR`` says: the folder of all that came with the model.

    ``given`` is that folder; where None it is what ``fetch`` fills in a pod, what ``kubectl onnx package --with-model``
    fills in an image, or the model's own. Where all of it lies in one folder within, that is meant, as with an archive
    of a folder.
    """
    own = model if model.is_dir() else model.parent
    filled = (Path(each) for each in (MODEL_DIRECTORY, IMAGE_MODEL_DIRECTORY))
    root = given or next((folder for folder in filled if own.is_relative_to(folder)), own)
    while root != own and own.is_relative_to(root):
        inside = [each for each in root.iterdir() if not each.name.startswith(".")]
        if len(inside) != 1 or not inside[0].is_dir():
            break
        root = inside[0]
    return root


def packages_folder(target: Path) -> Path:
    """Where in the folder of requirements the packages lie; the rest of it is the installer's."""
    return target / "site-packages"


def child_environment(settings: ScriptSettings, script: EntryScript, environment: Mapping[str, str]) -> dict[str, str]:
    """Ours without credentials and settings, and with what Azure ML sets.

    What a pod template gives the container is for the script, so that the rest is passed on.
    """
    kept = {
        name: value
        for name, value in plugins.let_in(environment).items()
        if name not in ALL_CREDENTIALS and not name.startswith(ALL_CREDENTIALS_PREFIXES)
    }
    limit_libraries(kept, settings.cpus)
    return {
        **kept,
        "AZUREML_MODEL_DIR": str(settings.model_directory.absolute()),
        "AZUREML_ENTRY_SCRIPT": script.name,
        "AML_APP_ROOT": str(script.root),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(_import_path(environment)),
    }


def _import_path(environment: Mapping[str, str]) -> list[str]:
    """Where the child finds this package: what we were given, or where we were imported from."""
    ours = str(Path(__file__).parents[3])
    given = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return given if ours in given else [*given, ours]
