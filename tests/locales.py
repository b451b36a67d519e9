"""The locales of the images, on any machine with glibc."""

from pathlib import Path

_SYSTEM = Path("/usr/lib/locale/C.utf8")


def of_the_images(folder: Path) -> dict[str, str]:
    """Variables by which the C library finds in ``folder``, which is filled, what the images have: en_US as C.UTF-8."""
    if not _SYSTEM.is_dir():
        raise RuntimeError(f"{_SYSTEM} is missing: the tests need glibc's C.UTF-8, as python:3.11-slim-bookworm has it")
    for name in ("C.utf8", "en_US.utf8"):
        (folder / name).symlink_to(_SYSTEM)
    return {"LOCPATH": str(folder)}
