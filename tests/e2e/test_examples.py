"""The demo is the README's first command: it must do what it says, and do it again when asked again."""

import os
import subprocess
import sys

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.layout import ROOT

pytestmark = pytest.mark.examples


def _demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.demo", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_every_example_answers_as_onnxruntime_does_and_the_broken_one_is_refused(cluster: Cluster) -> None:
    if not cluster.is_local:
        pytest.skip("another cluster needs images that it can pull")
    done = _demo()
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for name in ("squeezenet", "resnet50", "iris"):
        predictions = [line for line in lines if line.split()[:2] == [name, "input"]]
        assert len(predictions) == 2, done.stdout
    assert "UnknownOperator" in done.stdout
    assert "make cluster-down" in done.stdout
    for name in ("squeezenet", "resnet50", "iris"):
        assert cluster.get("onnx", name, "onnx-demo")["status"]["readyReplicas"] >= 1
    assert cluster.find("deployment", "broken", "onnx-demo") is None

    # What is applied already is applied again without any effect.
    before = {m["metadata"]["name"]: m["metadata"]["generation"] for m in cluster.list("onnx", "onnx-demo")}
    where = ("--filename", str(ROOT / "examples"), "--namespace", "onnx-demo")
    assert cluster.kubectl("apply", *where).count("unchanged") == 3
    assert {m["metadata"]["name"]: m["metadata"]["generation"] for m in cluster.list("onnx", "onnx-demo")} == before
    cluster.kubectl("delete", "onnx", "--all", "--namespace", "onnx-demo")


def test_a_context_that_does_not_exist_is_said_in_a_sentence() -> None:
    images = [f"--{name}-image=registry.example.com/{name}:1" for name in ("operator", "server", "s3")]
    done = _demo("--context", "no-such-context", *images, KUBECONFIG=os.devnull)
    assert done.returncode != 0
    assert "no-such-context" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
