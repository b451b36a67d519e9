"""Scoring scripts of Azure ML answer here what they answer there: the same status, the same bytes.

What ``azureml-inference-server-http`` answered is written down; the soak asks it anew.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients.azureml.real import answers
from tests.clients.azureml.recorded import Told, ask, lay_out, recorded
from tests.clients.azureml.scripts import SCRIPTS, Ask, Script
from tests.cluster.servers import python_with
from tests.unit.server.serving import Process, serving

PACKAGES = ("inference_schema", "wrapt", "pandas", "dateutil", "pytz", "six.py", "tzdata")
"""What a script's requirements would bring. Azure's own server is none of it: ours is to be tried."""


@pytest.fixture(scope="module")
def requirements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("requirements")
    (folder / "site-packages").mkdir()
    installed = next((python_with("azureml").parents[1] / "lib").glob("python3*/site-packages"))
    for name in PACKAGES:
        if (installed / name).exists():
            (folder / "site-packages" / name).symlink_to(installed / name)
    return folder


@contextmanager
def ours(folder: Path, script: Script, requirements: Path, ready: bool = True) -> Iterator[Process]:
    root, models = lay_out(folder, script)
    options = ["--script", str(root), "--requirements-directory", str(requirements)]
    options += ["--entry-script", script.entry] if script.entry not in ("score.py", "src/score.py") else []
    with serving(None, "--model", str(models / "model.onnx"), *options, ready=ready) as process:
        yield process


def compare(question: Ask, azure: Told, found: Told) -> str:
    """What differs, in words; nothing where all is as it should be."""
    if question.beyond is not None:
        told = (found.status, found.body if question.beyond.body is not None else None)
        return "" if told == (question.beyond.status, question.beyond.body) else f"{found}, expected {question.beyond}"
    if azure.status < 400 or azure.message is None:
        return "" if found == azure else f"{found}, Azure ML: {azure}"
    # An error has more to say here, beside Azure ML's own words.
    same = (found.status, found.kind, found.failed, found.message) == (
        azure.status,
        azure.kind,
        azure.failed,
        azure.message,
    )
    return "" if same and json.loads(found.body)["error"] else f"{found}, Azure ML: {azure}"


@pytest.mark.parametrize("name", [name for name, script in SCRIPTS.items() if script.asks])
def test_a_script_answers_as_on_azure_ml(tmp_path: Path, requirements: Path, name: str) -> None:
    script, written = SCRIPTS[name], recorded()["scripts"][name]["answers"]
    assert written.keys() == script.asks.keys(), "python -m tests.clients.azureml writes the answers down anew"
    with ours(tmp_path, script, requirements) as server:
        found = {each: compare(q, Told(**written[each]), ask(server.port, q)) for each, q in script.asks.items()}
    assert not {each: said for each, said in found.items() if said}


@pytest.mark.parametrize("name", [name for name, script in SCRIPTS.items() if not script.asks])
def test_a_script_that_does_not_start_there_does_not_start_here(tmp_path: Path, requirements: Path, name: str) -> None:
    assert not recorded()["scripts"][name]["starts"]
    with ours(tmp_path, SCRIPTS[name], requirements, ready=False) as server:
        assert server.process.wait(60) == 1
        assert json.loads(server.termination.read_text())["reason"] == "LoadFailed"


@pytest.mark.soak
def test_azure_mls_server_still_answers_as_it_is_written_down(tmp_path: Path) -> None:
    assert answers(tmp_path) == recorded()
