"""The source root is called ``operator``: it must never shadow the standard library's module of that name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from onnx_operator.api.capabilities import load_capabilities

ROOT = Path(__file__).resolve().parents[2]
SHOW_OPERATOR = "import operator; assert operator.itemgetter(0)('ab') == 'a'; print(operator.__spec__.origin)"


@pytest.mark.parametrize("path", [[], ["operator"], ["operator", "."], [".", "operator"]], ids=" then ".join)
def test_import_operator_is_still_the_standard_librarys(path):
    entries = [str(ROOT / entry) for entry in path]
    code = f"import sys; sys.path[:0] = {entries!r}; sys.modules.pop('operator', None); {SHOW_OPERATOR}"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert str(ROOT) + "/operator" not in done.stdout, f"operator is {done.stdout.strip()}"


def test_import_operator_is_the_standard_librarys_without_site_packages_too():
    # As in a bare container: no virtual environment, started in the repository root.
    done = subprocess.run([sys.executable, "-S", "-c", SHOW_OPERATOR], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert str(ROOT) + "/operator" not in done.stdout


def test_the_source_root_is_no_package():
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_the_source_root_holds_one_import_package():
    packages = [p.parent.name for p in (ROOT / "operator").glob("*/__init__.py")]
    loose = [p.name for p in (ROOT / "operator").glob("*.py")]

    assert packages == ["onnx_operator"]
    assert loose == []


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "operator" / "onnx_operator" / "py.typed").exists()


def test_the_operator_judges_by_the_onnx_runtime_that_the_server_image_has():
    versions = {
        name: re.findall(r"^onnxruntime==(\S+)", (ROOT / "requirements" / f"{name}.txt").read_text(), re.M)
        for name in ("operator", "server", "dev")
    }
    (version,) = versions["server"]
    assert versions == {name: [version] for name in versions}
    assert load_capabilities().onnx_runtime_version == version


def test_onnx_runtime_reports_its_use_to_nobody():
    threads = "import onnx_operator, os, onnxruntime; print(len(os.listdir('/proc/self/task')))"
    environment = {"PYTHONPATH": str(ROOT / "operator"), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", threads], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize("module", ["server.rpc.inference_pb2", "model.batching.graph_pb2"])
def test_our_messages_are_made_by_a_protobuf_that_is_older_than_the_one_of_their_compiler(module):
    older = "from google.protobuf import runtime_version as r; r.MAJOR, r.MINOR, r.OSS_MAJOR, r.OSS_MINOR = 5, 0, 5, 0"
    code = f"{older}; import onnx_operator.{module} as made; print(made.DESCRIPTOR.name)"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "operator", capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(".proto")
