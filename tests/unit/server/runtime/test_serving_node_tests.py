"""Of the ``onnx`` package's node tests that ONNX Runtime loads, nearly all are warmed up by inputs that we make up."""

import json
import logging
import os
import random
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest
from onnx.backend.test.loader import load_model_tests

from onnx_operator.server.runtime.failures import LoadError
from onnx_operator.server.runtime.finding import Found, Sources, find_input
from onnx_operator.server.runtime.session import SessionSettings, load

MAX_FAILED = 10
UNMADE = {
    "test_attention_4d_diff_heads_mask4d_padded_kv",
    "test_col2im_5d",
    "test_col2im_dilations",
    "test_convinteger_with_padding",
}
"""The first three need sizes that fit to each other as well as to values; the last no input makes answer."""


def warmed(folder: Path, count: int, seed: int) -> None:
    """Print, as JSON, the names of ``count`` tests (0: all) that load, and of those that are not warmed up."""
    logging.disable(logging.CRITICAL)
    ort.set_default_logger_severity(4)
    cases = load_model_tests(kind="node")
    path = folder / "model.onnx"
    loaded, failed = [], []
    for case in random.Random(seed).sample(cases, count or len(cases)):
        print(case.name, file=sys.stderr, flush=True)
        path.write_bytes(case.model.SerializeToString())
        try:
            model = load(path, SessionSettings())
        except (LoadError, RuntimeError):
            continue
        loaded.append(case.name)
        if not isinstance(find_input(model, Sources()), Found):
            failed.append(case.name)
    print(json.dumps([loaded, failed]))


def asked(folder: Path, count: int, seed: int) -> tuple[list[str], list[str]]:
    """The same from a process of its own: what is made up may kill it, and the last name tells which did."""
    command = [sys.executable, __file__, str(folder), str(count), str(seed)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=environment)
    assert ended.returncode == 0, f"{ended.returncode} at {ended.stderr[-300:]}"
    loaded, failed = json.loads(ended.stdout.splitlines()[-1])
    return loaded, failed


def test_a_slice_of_the_node_tests_is_warmed_up(tmp_path: Path) -> None:
    loaded, failed = asked(tmp_path, 100, seed=11)
    assert len(loaded) > 80
    assert set(failed) <= UNMADE


@pytest.mark.soak
def test_nearly_all_node_tests_are_warmed_up(tmp_path: Path) -> None:
    loaded, failed = asked(tmp_path, 0, seed=0)
    assert len(loaded) > 1700
    assert len(failed) <= MAX_FAILED, failed


if __name__ == "__main__":
    warmed(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
