"""The operator's command line."""

import os

import pytest
from click.testing import CliRunner

from onnx_operator.controller.__main__ import LIBRARY_THREADS, main


def test_the_operator_starts_few_threads_on_a_large_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "3"})
    assert CliRunner().invoke(main, ["inspector", "--help"]).exit_code == 0
    assert {name: os.environ[name] for name in LIBRARY_THREADS} == LIBRARY_THREADS | {"OMP_NUM_THREADS": "3"}
