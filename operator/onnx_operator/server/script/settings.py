"""What is told to the processes that hold a script, and what they may see of ours."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx_operator.api.schemes import ALL_CREDENTIALS
from onnx_operator.server.errors import StartError

# The operator's own, the addresses of Kubernetes, and what a Python started for us must not pass on.
ALL_CREDENTIALS_PREFIXES = ("ONNX_", "KUBERNETES_", "PYTHONSTARTUP", "PYTHONINSPECT", "OTEL_EXPORTER_OTLP_HEADERS")


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


def entry_script(given: Path) -> Path:
    """The file to run. Raises :class:`ScriptError` naming what is there instead."""
    path = given.absolute()
    if path.is_file():
        return path
    if not path.is_dir():
        raise ScriptError(f"there is no script {given}; expected a Python file or a folder with score.py")
    preferred = path / "score.py"
    if preferred.is_file():
        return preferred
    found = sorted(file for file in path.glob("*.py") if file.name != "__init__.py")
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:20]) or "no Python file"
        raise ScriptError(f"{given} holds {names}; expected score.py, or one Python file")
    return found[0]


def packages_folder(target: Path) -> Path:
    """Where in the folder of requirements the packages lie; the rest of it is the installer's."""
    return target / "site-packages"


def child_environment(settings: ScriptSettings, script: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Ours without credentials and settings, and with what Azure ML sets.

    What a pod template gives the container is for the script, so that the rest is passed on.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name not in ALL_CREDENTIALS and not name.startswith(ALL_CREDENTIALS_PREFIXES)
    }
    threads = str(settings.cpus)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        kept.setdefault(name, threads)
    return {
        **kept,
        "AZUREML_MODEL_DIR": str(settings.model_directory.absolute()),
        "AZUREML_ENTRY_SCRIPT": script.name,
        "AML_APP_ROOT": str(script.parent),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(_import_path(environment)),
    }


def _import_path(environment: Mapping[str, str]) -> list[str]:
    """Where the child finds this package: what we were given, or where we were imported from."""
    ours = str(Path(__file__).parents[3])
    given = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return given if ours in given else [*given, ours]
