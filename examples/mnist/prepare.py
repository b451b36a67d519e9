"""Gives CNTK, which was built for Open MPI 1.10, Debian's Open MPI 4 under the old names.

CNTK calls it only where several machines train together. Nothing is installed: the packages are unpacked into the
maker's environment.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = ["libopenmpi3", "libhwloc15", "libevent-core-2.1-7", "libevent-pthreads-2.1-7", "libpmix2"]
PACKAGES += ["libnl-3-200", "libnl-route-3-200", "libnuma1"]
OLD_NAMES = {"libmpi.so.12": "libmpi.so.40", "libmpi_cxx.so.1": "libmpi_cxx.so.40"}


def main(environment: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # What apt-get downloads as root it writes as a user of its own.
        folder.chmod(0o777)
        subprocess.run(["apt-get", "download", "--quiet", *PACKAGES], cwd=folder, check=True)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
        for library in (folder / "usr" / "lib").glob("*-linux-gnu/*.so.*"):
            (environment / "lib" / library.name).write_bytes(library.read_bytes())
    for old, new in OLD_NAMES.items():
        link = environment / "lib" / old
        link.unlink(missing_ok=True)
        link.symlink_to(new)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
