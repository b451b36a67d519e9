"""The list of packages: which archives are fetched, and which of their files are models."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LIST = Path(__file__).with_name("packages.toml")
_NAME = r"^(@[a-z0-9][a-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$"
_FILE = r"^[A-Za-z0-9][A-Za-z0-9._+-]*\.(whl|tgz|tar\.gz|zip)$"


class Package(BaseModel):
    """One archive of a public index."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: Literal["pypi", "npm"]
    name: str = Field(pattern=_NAME)
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+-]*$")
    file: str = Field(pattern=_FILE, description="the archive's name as the index's client writes it")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    licence: str
    about: str
    take: tuple[str, ...] = Field(default=("*.onnx",), min_length=1, description="patterns of members to unpack")

    @property
    def folder(self) -> str:
        """The name of its folder in the cache: another archive is another folder."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-") + f"-{self.version}-{self.sha256[:12]}"


def packages(path: Path = LIST) -> list[Package]:
    """All packages of the list. Raises pydantic's ``ValidationError``, which names the entry and field at fault."""
    listed = [Package.model_validate(entry) for entry in tomllib.loads(path.read_text())["package"]]
    names = [(package.index, package.name) for package in listed]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path}: listed twice: {sorted(twice)}")
    return listed
