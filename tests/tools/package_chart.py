"""Packages the chart into dist/, to the same bytes each time: Helm checks and packs it, times and owners are taken out.

``python -m tests.tools.package_chart`` prints the path; SOURCE_DATE_EPOCH sets the time of the files within (seconds).
"""

import gzip
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.cluster import tools

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "onnx-operator"


def without_times(package: bytes, time: int) -> bytes:
    """A package of Helm's whose bytes depend on its content and on this time alone."""
    with tarfile.open(fileobj=io.BytesIO(package)) as old:
        files = {member.name: old.extractfile(member) for member in old if member.isfile()}
        content = {name: file.read() for name, file in files.items() if file}
    packed = io.BytesIO()
    # Chart.yaml first, as Helm has it.
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as new:
        for name in sorted(content, key=lambda name: (not name.endswith("/Chart.yaml"), name)):
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(content[name]), time, 0o644
            new.addfile(member, io.BytesIO(content[name]))
    return gzip.compress(packed.getvalue(), mtime=time)


def package(folder: Path, time: int) -> Path:
    """Pack the chart into a folder.

    Raises:
        subprocess.CalledProcessError: Helm refuses the chart.
    """
    helm = str(tools.program("helm"))
    with tempfile.TemporaryDirectory() as made:
        subprocess.run([helm, "lint", "--strict", "--quiet", str(CHART)], check=True, timeout=60)
        command = [helm, "package", str(CHART), "--destination", made]
        subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)
        (packed,) = Path(made).iterdir()
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / packed.name
        target.write_bytes(without_times(packed.read_bytes(), time))
    return target


if __name__ == "__main__":
    sys.stdout.write(f"{package(ROOT / 'dist', int(os.environ.get('SOURCE_DATE_EPOCH', '0')))}\n")
