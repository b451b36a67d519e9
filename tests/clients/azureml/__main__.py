"""Writes ``recorded.json``: what Azure ML's own server answers to the requests of all scripts."""

import json
import tempfile
from pathlib import Path

from tests.clients.azureml.real import answers
from tests.clients.azureml.recorded import RECORDED

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = answers(Path(folder))
    RECORDED.write_text(json.dumps(found, indent=1, ensure_ascii=True) + "\n")
    print(f"{RECORDED}: {sum(len(each['answers']) for each in found['scripts'].values())} answers")
