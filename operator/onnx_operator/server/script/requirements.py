"""``onnx-server install-requirements``: a script's packages, into a folder that only the script's process sees."""

import hashlib
import json
import logging
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata, util
from pathlib import Path

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import Phase
from onnx_operator.common.egress import Egress, EgressError, read_egress
from onnx_operator.server.script.pins import PinError, Pins, read_pins
from onnx_operator.server.script.settings import packages_folder
from onnx_operator.server.termination import TerminationLog

logger = logging.getLogger(__name__)

MARKER = "installed.json"
_INCOMING = ".incoming"
_LAST_LINES = 12


class InstallError(Exception):
    """The packages are not there; the message names the requirement and what pip said."""


def run(
    target: Path, requirements: Sequence[str] = (), files: Sequence[Path] = (), conda_files: Sequence[Path] = ()
) -> int:
    """Install, and return the exit code. The termination message tells what failed."""
    log = TerminationLog.from_environment()
    log.enter(Phase.DOWNLOADING)
    try:
        pins = read_pins(requirements, files, conda_files, installed_version)
        install(target, pins)
    except (PinError, InstallError, EgressError, OSError) as error:
        log.fail(Reason.DOWNLOAD_FAILED, str(error))
        logger.error("%s", error, extra={"fields": {"reason": Reason.DOWNLOAD_FAILED}})
        return 1
    return 0


def installed_version(name: str) -> str | None:
    """The version of a package that this image has."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def install(target: Path, pins: Pins) -> None:
    """Make ``target`` hold exactly ``pins`` and what they depend on.

    Raises :class:`InstallError`, :class:`~onnx_operator.common.egress.EgressError` and OSError.

    Nothing is done where it does already: a restarted pod installs nothing.
    """
    for note in pins.notes:
        logger.warning("%s", note)
    target.mkdir(parents=True, exist_ok=True)
    marker, packages, incoming = target / MARKER, packages_folder(target), target / _INCOMING
    key = _key(pins)
    if packages.is_dir() and _marked(marker) == key:
        logger.info("the requirements are installed", extra={"fields": {"requirements": pins.pins}})
        return
    marker.unlink(missing_ok=True)
    for folder in (packages, incoming):
        shutil.rmtree(folder, ignore_errors=True)
    incoming.mkdir()
    if pins.pins:
        logger.info("installing", extra={"fields": {"requirements": pins.pins}})
        with _pip() as pip, _outside(read_egress()) as variables:
            _install(pip, incoming, pins.pins, variables)
    incoming.rename(packages)
    marker.write_text(json.dumps({"key": key, "requirements": pins.pins}), encoding="utf-8")
    logger.info("the requirements are installed", extra={"fields": {"requirements": pins.pins}})


def _key(pins: Pins) -> str:
    return hashlib.sha256(json.dumps([sys.version, pins.pins]).encode()).hexdigest()


def _marked(marker: Path) -> str:
    try:
        return str(json.loads(marker.read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


@contextmanager
def _pip() -> Iterator[list[str]]:
    """A command that is pip. The image has none: a short-lived environment gets the one that Python brings."""
    if util.find_spec("pip") is not None:
        yield [sys.executable, "-m", "pip"]
        return
    with tempfile.TemporaryDirectory(prefix="installer-") as folder:
        made = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "venv", folder], capture_output=True, text=True, errors="replace", check=False
        )
        if made.returncode:
            raise InstallError(
                f"this Python cannot make an environment with pip: {_tail(made.stderr or made.stdout)}; "
                "the server image's base needs its venv and ensurepip modules"
            )
        yield [str(Path(folder) / "bin" / "python"), "-m", "pip"]


@contextmanager
def _outside(egress: Egress) -> Iterator[dict[str, str]]:
    """Variables by which pip reaches its index: where a variable of the pod says something else, that counts."""
    given = {
        "HTTP_PROXY": egress.http_proxy,
        "HTTPS_PROXY": egress.https_proxy,
        "NO_PROXY": ",".join(egress.no_proxy),
    }
    # Programs look at either spelling.
    variables = {name: value for name, value in given.items() if value and name.lower() not in os.environ}
    if not egress.ca_bundle:
        yield {**variables, **os.environ}
        return
    with tempfile.NamedTemporaryFile("w", prefix="authorities-", suffix=".pem") as file:
        # What pip is given takes the place of the authorities that it would trust by itself.
        system = ssl.create_default_context().get_ca_certs(binary_form=True)
        file.write("\n".join([*map(ssl.DER_cert_to_PEM_cert, system), egress.ca_bundle, ""]))
        file.flush()
        yield {"PIP_CERT": file.name, **variables, **os.environ}


def _install(pip: list[str], folder: Path, pins: Sequence[str], variables: Mapping[str, str]) -> None:
    # Wheels first: what cannot be had as one is found out in a second, and named.
    code, said = _run_pip(pip, folder, pins, ["--only-binary", ":all:"], variables)
    if code and (trouble := _trouble(said)):
        raise InstallError(f"the package index cannot be used for {', '.join(pins)}: {trouble}")
    if code and "No matching distribution found" in said:
        logger.warning("not all of it is to be had as wheels, trying sources too: %s", _cause(said))
        shutil.rmtree(folder)
        folder.mkdir()
        if _run_pip(pip, folder, pins, ["--prefer-binary"], variables)[0] == 0:
            return
    if code:
        raise InstallError(f"{_cause(said)} (Python {sys.version_info.major}.{sys.version_info.minor})")


def _run_pip(
    pip: list[str], folder: Path, pins: Sequence[str], options: list[str], variables: Mapping[str, str]
) -> tuple[int, str]:
    fixed = ["install", "--target", str(folder), "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
    command = [*pip, *fixed, "--progress-bar", "off", "--no-color", *options, *pins]
    said: list[str] = []
    with subprocess.Popen(  # noqa: S603 - our own interpreter; pins are NAME==VERSION, never options
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**variables, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if text := line.rstrip():
                said.append(text)
                logger.info("%s", text, extra={"fields": {"stream": "pip"}})
    return process.returncode, "\n".join(said)


def _trouble(said: str) -> str:
    """What keeps pip from asking the index at all; it then only says that there is no such version."""
    lines = [line for line in said.splitlines() if line.startswith(("Could not fetch URL", "WARNING: Retrying"))]
    return _tail(lines[-1]) if lines and "(from versions: none)" in said else ""


def _cause(said: str) -> str:
    """What pip said went wrong: its lines of errors and conflicts, or its last ones."""
    lines = said.splitlines()
    start = next((n for n, line in enumerate(lines) if line.startswith(("ERROR:", "error:"))), None)
    conflict = next((n for n, line in enumerate(lines) if line.startswith("The conflict is caused by")), None)
    first = min((n for n in (start, conflict) if n is not None), default=None)
    chosen = lines[-_LAST_LINES:] if first is None else lines[first : first + _LAST_LINES]
    return _tail("\n".join(chosen))


def _tail(text: str) -> str:
    # The credentials of an index are part of its address.
    hidden = re.sub(r"(https?://)[^/\s@]+@", r"\1…@", text)
    return " ".join(hidden.split())[:1500]
