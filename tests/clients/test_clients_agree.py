"""Unmodified clients of others get from this server what ONNX Runtime answers itself, for every node test of onnx."""

import functools
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clients.corpus import Case, Corpus, finite, node_corpus, same, write
from tests.cluster.servers import python_with

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CARRIABLE = 1603


@functools.cache
def corpus() -> Corpus:
    return node_corpus()


def json_form(case: Case) -> bool:
    """What JSON cannot carry: BF16 has no numbers there, and these clients write NaN, which is not JSON."""
    return "BF16" not in case.datatypes and finite(case)


def kserve_json_form(case: Case) -> bool:
    """kserve refuses to write FP16 as JSON."""
    return json_form(case) and "FP16" not in case.datatypes


def not_bf16(case: Case) -> bool:
    """kserve maps BF16 to nothing."""
    return "BF16" not in case.datatypes


def typed_form(case: Case) -> bool:
    """Neither BF16 nor, by the protocol, FP16 has typed contents."""
    return "BF16" not in case.datatypes and all(datatype != "FP16" for _, datatype, _ in case.inputs)


def everything(case: Case) -> bool:
    return True


@contextmanager
def process(*command: Any) -> Iterator[Callable[[Any], str]]:
    """A process that answers each line with one, and ends with its input."""
    with subprocess.Popen(
        [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None

        def say(line: Any = None) -> str:
            assert running.stdin is not None
            assert running.stdout is not None
            if line is not None:
                running.stdin.write(f"{line}\n")
            answer = running.stdout.readline().strip()
            assert answer, f"{command[1]} has ended"
            return answer

        try:
            yield say
            running.stdin.close()
            assert running.wait(60) == 0
        finally:
            if running.poll() is None:
                running.kill()


def test_the_protocol_carries_all_node_tests_but_those_of_types_that_it_has_no_name_for():
    found = corpus()

    assert len(found.cases) == CARRIABLE
    assert dict(found.left_out) == {
        "ONNX Runtime does not load it": 119,
        "ONNX Runtime does not run it": 3,
        **dict.fromkeys(("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"), 18),
        "float8e8m0": 4,
        **dict.fromkeys(("int2", "uint2", "int4", "uint4"), 15),
        "seq": 20,
        "optional": 3,
    }
    assert {datatype for case in found.cases for datatype in case.datatypes} == {
        *("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
        *("FP16", "BF16", "FP32", "FP64", "BYTES"),
    }
    shapes = [array.shape for case in found.cases for _, _, array in case.inputs]
    assert () in shapes
    assert any(0 in shape for shape in shapes)


@pytest.mark.parametrize(
    ("client", "environment", "modes"),
    [
        ("triton_http", "tritonclient", {"binary": (everything, CARRIABLE), "json": (json_form, 1556)}),
        ("triton_grpc", "tritonclient", {"raw": (everything, CARRIABLE)}),
        ("kserve_rest", "kserve", {"binary": (not_bf16, 1588), "json": (kserve_json_form, 1525)}),
        ("kserve_grpc", "kserve", {"raw": (not_bf16, 1588), "typed": (typed_form, 1544)}),
    ],
)
def test_a_client_gets_what_onnx_runtime_answers(
    client: str, environment: str, modes: dict[str, tuple[Callable[[Case], bool], int]], tmp_path: Path
):
    cases = corpus().cases
    jobs = [
        {
            "name": case.name,
            "inputs": case.inputs,
            "outputs": list(case.expected),
            "modes": [mode for mode, (carries, _) in modes.items() if carries(case)],
        }
        for case in cases
    ]
    (tmp_path / "jobs").write_bytes(pickle.dumps(jobs))
    (tmp_path / "models").mkdir()
    files = write(corpus(), tmp_path / "models")

    with process(sys.executable, "-m", "tests.clients.fleet") as fleet:
        ports = fleet().split()
        script = HERE / f"{client}.py"
        with process(python_with(environment), script, *ports, tmp_path / "jobs", tmp_path / "results") as ask:
            assert ask() == "ready"
            for index, file in enumerate(files):
                assert fleet(file) == "ready", cases[index].name
                assert ask(index) == "done"

    results = pickle.loads((tmp_path / "results").read_bytes())
    wrong = {}
    for case in cases:
        for mode in modes:
            if (found := results.get((case.name, mode))) is None:
                continue
            if isinstance(found, str):
                wrong[case.name, mode] = found
            elif list(found) != list(case.expected) or not all(same(case.expected[n], found[n]) for n in found):
                wrong[case.name, mode] = f"expected {case.expected}, got {found}"
    assert wrong == {}, f"{len(wrong)}: " + "\n".join(f"{k} {str(v)[:300]}" for k, v in list(wrong.items())[:12])
    assert {mode: sum(1 for _, m in results if m == mode) for mode in modes} == {m: n for m, (_, n) in modes.items()}
