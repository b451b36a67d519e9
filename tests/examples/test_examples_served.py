"""Every example does on this machine what its folder promises."""

import json
import subprocess
import sys

import pytest

from examples.catalogue import ROOT, Example, differences, examples
from tests.examples.harness import ENVIRONMENT, TOLERANCE, served

ALL = pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)


@ALL
def test_its_model_is_found_valid(example: Example) -> None:
    command = [sys.executable, "-m", "onnx_operator.cli", "inspect", str(example.ensure()), "--output", "json"]

    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["inputs"]


@ALL
def test_its_client_is_answered_as_it_says(example: Example) -> None:
    with served(example) as url:
        answer = example.ask(url)

    assert not differences(example.expected, answer, TOLERANCE), answer


@ALL
def test_its_readme_tells_how_it_was_made_and_where_the_original_is(example: Example) -> None:
    text = (example.folder / "README.md").read_text()

    assert f"examples/{example.name}/model.yaml" in text
    assert f"python -m examples.build {example.name}" in text
    assert "https://" in text, "where the original is"
    assert f"({example.name}/)" in (ROOT / "examples" / "README.md").read_text(), "a row of the table of examples"


@ALL
def test_its_model_is_small_enough_to_be_checked_in_or_made_here(example: Example) -> None:
    checked_in = example.folder / example.file.name

    assert not checked_in.exists() or checked_in.stat().st_size <= 200_000


@ALL
def test_its_maker_pins_every_package(example: Example) -> None:
    requirements = example.folder / "requirements.txt"
    lines = requirements.read_text().split() if requirements.exists() else []

    assert all("==" in line for line in lines)


@ALL
def test_its_manifest_holds_its_script(example: Example) -> None:
    if example.script is None:
        assert "scoring" not in example.manifest["spec"]
        return
    name = example.manifest["spec"]["scoring"]["configMapName"]
    (config_map,) = [d for d in example.documents if d["kind"] == "ConfigMap" and d["metadata"]["name"] == name]
    assert config_map["data"] == {"score.py": example.script.read_text()}
