"""Examines models one at a time, each in a process of its own that may take so long and no longer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx_operator.api.contract import MAX_KILLS
from tests.cluster.layout import ROOT
from tests.corpus.fetching import Stranger
from tests.locales import of_the_images

MAX_SECONDS = 420
"""A guard against hanging, far above what any model takes."""


@dataclass
class Record:
    """What was found out about one model, by stage."""

    name: str
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: str = ""
    """What ended the examination, where that was not its end: the stage and how."""


_MAX_STARTS = MAX_KILLS + 4
"""Two kills while it is measured, a start that knows of all of them, and one that is told no input."""
_WARMING = "warmUp"


def examine(name: str, path: Path, seconds: float = MAX_SECONDS) -> Record:
    """Examine the model at ``path``.

    A made-up input may end the process; that is tried again as a restarted pod would, and at last without knowing an
    input: whether the model is served all the same is what counts.
    """
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        state, locales = Path(folder, "state"), Path(folder, "locales")
        state.mkdir()
        locales.mkdir()
        variables = of_the_images(locales)
        for start in range(_MAX_STARTS):
            last = start == _MAX_STARTS - 1
            record = _once(name, [str(path), str(state), *([_WARMING] if last else [])], variables, seconds)
            if not record.ended.startswith(f"{_WARMING}: ended by"):
                break
    return record


def _once(name: str, arguments: Sequence[str], variables: dict[str, str], seconds: float) -> Record:
    command = ["nice", "-n", "10", sys.executable, "-m", "tests.corpus.examine", *arguments]
    environment = os.environ | variables | {"PYTHONPATH": os.pathsep.join([str(ROOT / "operator"), str(ROOT)])}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    late = ""
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        late = f"took more than {seconds:g} s"
        _end(process)
        said, _ = process.communicate()
    finally:
        _end(process)
    record, running = Record(name), ""
    for line in said.decode(errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError):
            entry = json.loads(line)
            running = "" if "found" in entry else entry["stage"]
            if "found" in entry:
                record.stages[entry["stage"]] = entry["found"]
    if late or process.returncode:
        record.ended = f"{running or 'the beginning'}: {late or _how(process.returncode)}"
    return record


def _end(process: subprocess.Popen[bytes]) -> None:
    # The server that it started is in its group as well.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _how(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def examine_all(strangers: Sequence[Stranger], tell: Callable[[int, Record], None]) -> list[Record]:
    """Examine all, telling of each when it is done."""
    records = []
    for number, stranger in enumerate(strangers, 1):
        records.append(examine(stranger.name, stranger.path))
        tell(number, records[-1])
    return records
