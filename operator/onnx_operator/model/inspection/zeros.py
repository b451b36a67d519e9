"""One sparse file of zeros, alone in a folder: what stands in for weights where the runtime loads a structure.

It takes no room on a disk. In a file system in memory, each page that is read would take some.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from onnx_operator.model.trial.standins import ZEROS

_LOG = logging.getLogger(__name__)
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def make(size: int) -> Path | None:
    """Make the file with ``size`` bytes, or as many as can be, and return its folder; None where none can be.

    A folder on a disk is preferred: that of temporary files (``TMPDIR``), ``/var/tmp``, the cache of this user.
    """
    for place in sorted(_places(), key=lambda each: _kind(each) in _IN_MEMORY):
        try:
            folder = Path(tempfile.mkdtemp(prefix="onnx-operator-", dir=place)).resolve()
        except OSError:
            continue
        if _fill(folder / ZEROS, size):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
    _LOG.warning("no folder takes a sparse file: models are judged by tables. Set TMPDIR to one on a disk.")
    return None


def _fill(path: Path, size: int) -> bool:
    path.touch(mode=0o600)
    while size >= 1 << 20:
        try:
            os.truncate(path, size)
        except PermissionError:
            return False
        except OSError:
            # Some file systems have no larger files.
            size //= 2
        else:
            path.chmod(0o400)
            return True
    return False


def _places() -> Iterator[Path]:
    yield Path(tempfile.gettempdir())
    yield Path("/var/tmp")  # noqa: S108 - mkdtemp makes a folder that is this user's alone
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if Path(cache or "~/.cache").expanduser().is_dir():
        yield Path(cache or "~/.cache").expanduser()


def _kind(folder: Path) -> str:
    """The type of a folder's file system; empty where it is not known."""
    try:
        device = folder.stat().st_dev
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        fields = line.split()
        if fields[2] == number:
            return fields[fields.index("-") + 1]
    return ""
