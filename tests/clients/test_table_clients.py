"""Tables as pandas, MLflow's scoring client and kserve's V1 client write them, each in a process of its own."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.catalogue import EXAMPLES, differences
from tests.cluster.servers import python_with
from tests.unit.server.serving import Process, serving

FOLDER = EXAMPLES / "sklearn-pipeline"
ROWS = (FOLDER / "request.json").read_text()
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
BY_ROW = [dict(zip(EXPECTED, row, strict=True)) for row in zip(*EXPECTED.values(), strict=True)]


@pytest.fixture(scope="module")
def server() -> Iterator[Process]:
    with serving((FOLDER / "sklearn-pipeline.onnx").read_bytes()) as process:
        yield process


def ask(environment: str, script: str, server: Process) -> Any:
    command = [python_with(environment), Path(__file__).with_name(script), f"http://127.0.0.1:{server.port}", ROWS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_form_in_which_pandas_writes_a_table_is_answered_alike(server: Process) -> None:
    answers = ask("mlflow", "pandas_tables.py", server)
    assert len(answers) == 6
    for form, answer in answers.items():
        assert not differences(EXPECTED, answer, 1e-5, form)


def test_mlflows_client_gets_its_predictions(server: Process) -> None:
    assert not differences(BY_ROW, ask("mlflow", "mlflow_tables.py", server), 1e-5)


def test_kserves_client_of_the_v1_protocol_gets_its_predictions(server: Process) -> None:
    assert not differences(BY_ROW, ask("kserve", "kserve_tables.py", server), 1e-5)
