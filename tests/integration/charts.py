"""Helm's commands on the chart, away from anyone's own settings of Helm."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.fixtures import built_program

CHART = Path(__file__).parents[2] / "charts" / "onnx-operator"
NAMESPACE = "platform"


@pytest.fixture(scope="session")
def helm() -> Path:
    """The program."""
    return built_program("helm")


class Chart:
    """The chart, by Helm."""

    def __init__(self, helm: Path, folder: Path) -> None:
        self._helm = helm
        self._folder = folder

    def run(
        self, *command: str, values: dict[str, Any] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """One command with these values; how it ends is the caller's."""
        given: list[str] = []
        if values is not None:
            file = self._folder / "values.yaml"
            file.write_text(yaml.safe_dump(values))
            given = ["--values", str(file)]
        homes = {f"HELM_{kind}_HOME": str(self._folder / kind) for kind in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            [str(self._helm), *command, *given],
            env=os.environ | homes,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def template(
        self, values: dict[str, Any] | None = None, namespace: str = NAMESPACE, release: str = "onnx-operator"
    ) -> list[dict[str, Any]]:
        """The objects of a release."""
        done = self.run("template", release, str(CHART), "--namespace", namespace, values=values)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    def refusal(self, values: dict[str, Any]) -> str:
        """What Helm says against values."""
        done = self.run("template", "onnx-operator", str(CHART), values=values)
        assert done.returncode != 0
        return done.stderr


@pytest.fixture
def chart(helm: Path, tmp_path: Path) -> Chart:
    """The chart, with a folder of its own for values."""
    return Chart(helm, tmp_path)
