"""A sealed child says of everything what its code says unsealed: it may do all that judging takes."""

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from archivekit import targz, tarred, zipped
from feedkit import ModelFeed
from modelkit import linear
from runtimekit import judged_in
from seedkit import light, made, models

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.model.inspection.isolation import Parser
from onnx_operator.model.limits import InspectionLimits

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROOT = Path(__file__).parents[4]
EACH = 50
"""One of so many models of the onnx package; the long form takes all."""
MODEL = linear(64).SerializeToString()
ARCHIVES = {
    **{f"zip {method}": zipped({"a/m.onnx": MODEL, "b": b"x"}, method) for method in (0, zipfile.ZIP_DEFLATED)},
    "zip of names in another code": zipped({"m.onnx": MODEL, "x": b"x"}).replace(b"x", b"\x81"),
    "zip of another method": zipped({"m.onnx": MODEL}, zipfile.ZIP_BZIP2),
    **{f"tar {form}": tarred({"m.onnx": MODEL}, form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT)},
    "tar.gz": targz({"v" * 120 + "/\u00e9/m.onnx": MODEL}),
    "tar.gz, cut": targz({"m.onnx": MODEL})[:-20],
    "tar.gz, damaged": targz({"m.onnx": MODEL * 9}).replace(b"\x00", b"\x01"),
    "empty tar": tarred({}),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parser() -> AsyncIterator[Parser]:
    async with Parser(InspectionLimits(answer_seconds=300, cpu_seconds=120)) as started:
        yield started


async def agrees(parser: Parser, content: bytes) -> None:
    files = ModelFeed(content, 64)
    sealed = await parser.verify(files, "m.onnx", size=len(content), capabilities=load_capabilities())
    assert sealed == judged_in(files.folder, "m.onnx")


async def test_the_seeds_of_the_tests(parser) -> None:
    for content in (*made(), *light()):
        await agrees(parser, content)


@pytest.mark.parametrize("name", ARCHIVES)
async def test_archives(parser, name) -> None:
    await agrees(parser, ARCHIVES[name])


async def test_models_of_the_onnx_package(parser) -> None:
    for content in list(models().values())[::EACH]:
        await agrees(parser, content)


@pytest.mark.soak
async def test_all_models_of_the_onnx_package(parser) -> None:
    for content in models().values():
        await agrees(parser, content)


@pytest.mark.soak
@pytest.mark.parametrize(
    "file",
    ["test_model_verdict", "signatures/test_model_signing", "reading/test_model_weights", "trial/test_random_graphs"],
)
def test_the_other_tests_hold_with_sealed_children(file: str) -> None:
    # Cutting one model at each byte tells nothing more of the calls.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.tools.sealed", "-k", "not wherever_that_was"]
    done = subprocess.run(
        [*command, f"tests/unit/model/{file}.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "operator"), str(ROOT)])},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "forbidden calls: 0" in done.stdout
    assert "0 models and 0 signatures" not in done.stdout
