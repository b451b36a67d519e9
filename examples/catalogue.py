"""The examples that are a folder each: what is in such a folder, and what its files mean."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.layout import ROOT, cache

EXAMPLES = ROOT / "examples"
_TIMEOUT = 120


class ExampleError(Exception):
    """What an example does not do as its files promise."""


@dataclass(frozen=True)
class Example:
    """One folder with a `model.yaml`."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name, which is the model's too."""
        return self.folder.name

    @property
    def manifest(self) -> dict[str, Any]:
        """The OnnxModel."""
        return next(document for document in self.documents if document["kind"] == "OnnxModel")

    @property
    def documents(self) -> list[dict[str, Any]]:
        """All that the manifest holds: the OnnxModel, and the ConfigMap of its script if it has one."""
        return list(yaml.safe_load_all((self.folder / "model.yaml").read_text()))

    @property
    def file(self) -> Path:
        """The model that `spec.model.uri` names: checked in, or where `python -m examples.build NAME` puts it."""
        name = self.manifest["spec"]["model"]["uri"].rpartition("/")[2]
        checked_in = self.folder / name
        return checked_in if checked_in.exists() else built(self.name) / name

    def ensure(self) -> Path:
        """The model's file, made where it is not here. Takes seconds: such makers need no environment of their own."""
        if not self.file.exists():
            subprocess.run([sys.executable, "-m", "examples.build", self.name], cwd=ROOT, check=True)
        return self.file

    @property
    def script(self) -> Path | None:
        """The `score.py`, where the example has one."""
        script = self.folder / "score.py"
        return script if script.exists() else None

    @property
    def expected(self) -> Any:
        """What the answer holds at least."""
        return json.loads((self.folder / "expected.json").read_text())

    def ask(self, url: str) -> Any:
        """The answer of the server at `url` to the example's client, or to its `request.json`.

        Raises :class:`ExampleError` with what the server or the client says.
        """
        client = self.folder / "client.py"
        if client.exists():
            command = [sys.executable, str(client), url]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
            if done.returncode != 0:
                raise ExampleError(f"{self.name}: client.py fails: {done.stderr}")
            return json.loads(done.stdout)
        body = (self.folder / "request.json").read_bytes()
        path = f"/v2/models/{self.name}/infer" if "inputs" in json.loads(body) else "/score"
        request = urllib.request.Request(url + path, data=body, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode(errors="replace")
            raise ExampleError(f"{self.name} answers {error.code} to POST {path}: {said}") from error


def examples() -> list[Example]:
    """All of them, by name."""
    return [Example(manifest.parent) for manifest in sorted(EXAMPLES.glob("*/model.yaml"))]


def built(name: str) -> Path:
    """Where an example's model lies that is too large to be checked in."""
    return cache() / "examples" / "models" / name


def differences(expected: Any, seen: Any, tolerance: float, where: str = "answer") -> list[str]:
    """Where `seen` is not what is expected: numbers by `tolerance`, relative above 1; objects may hold more."""
    if isinstance(expected, dict) and isinstance(seen, dict):
        missing = [f"{where}.{key} is missing" for key in expected if key not in seen]
        shared = [key for key in expected if key in seen]
        return missing + [
            d for key in shared for d in differences(expected[key], seen[key], tolerance, f"{where}.{key}")
        ]
    if isinstance(expected, list) and isinstance(seen, list):
        if len(expected) != len(seen):
            return [f"{where} has {len(seen)} elements, expected {len(expected)}"]
        pairs = enumerate(zip(expected, seen, strict=True))
        return [d for index, pair in pairs for d in differences(*pair, tolerance, f"{where}[{index}]")]
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (expected, seen))
    if numbers and (isinstance(expected, float) or isinstance(seen, float)):
        near = abs(expected - seen) <= tolerance * max(1.0, abs(expected))
    else:
        near = expected == seen and isinstance(seen, bool) == isinstance(expected, bool)
    return [] if near else [f"{where} is {seen!r}, expected {expected!r}"]
