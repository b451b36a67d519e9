"""Who uploads the pointers of Git LFS instead of the files is told so, wherever a pointer lies."""

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from modelkit import CAPABILITIES, model, value
from onnx import TensorProto, helper
from webkit import FileServer, Request, Server, settings

from onnx_operator.api.contract import DataPlan, FetchPlan
from onnx_operator.api.report import InspectionRequest
from onnx_operator.api.sources import ModelFiles, SourceFile, SourcePin
from onnx_operator.model.inspection.inspection import inspect
from onnx_operator.model.lfs import MAX_POINTER_BYTES, pointer_text
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.reading.folder import MemoryFolder
from onnx_operator.model.verdict import verify
from onnx_operator.server.fetching.fetch import Retries, fetch
from onnx_operator.server.fetching.plan import FetchError

DIGEST = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{DIGEST}\nsize 102583340\n".encode()
TOLD = ("Git LFS pointer", "102583340 bytes", "git lfs pull", "upload the file")


def with_weights(dims: tuple[int, ...], location: str = "w.bin") -> bytes:
    """A model whose weights of this shape lie in another file."""
    made = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    made.external_data.add(key="location", value=location)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return model([node], [value("x", dims)], [value("y", dims)], [made]).SerializeToString()


def refusal(files: dict[str, bytes], name: str) -> tuple[str, str]:
    result = verify(MemoryFolder(files), name, capabilities=CAPABILITIES)
    assert result.refusal is not None
    return result.refusal.reason.value, result.refusal.message


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("dims", [(100, 100), (2, 2)], ids=["shorter than the weights", "longer than the weights"])
@pytest.mark.parametrize("pack", [None, zipped, tarred], ids=["folder", "zip", "tar.gz"])
def test_a_pointer_in_the_place_of_weights_is_named_with_the_tensor_and_the_file(dims, pack) -> None:
    files = {"m/m.onnx": with_weights(dims), "m/w.bin": POINTER}
    reason, message = refusal({"m.zip": pack(files)}, "m.zip") if pack else refusal(files, "m/m.onnx")
    assert reason == "ExternalDataMissing"
    assert '"w"' in message
    assert '"w.bin"' in message
    assert all(word in message for word in TOLD)


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"m.onnx": POINTER}, "m.onnx"),
        ({"m.zip": POINTER}, "m.zip"),
        ({"m.zip": zipped({"m.onnx": POINTER})}, "m.zip"),
        ({"m.zip": tarred({"m.onnx": POINTER})}, "m.zip"),
    ],
    ids=["the model", "an archive", "the model in a zip", "the model in a tar.gz"],
)
def test_a_pointer_in_the_place_of_the_model_is_named_with_the_size_of_the_real_file(files, name) -> None:
    reason, message = refusal(files, name)
    assert reason == "NotOnnx"
    assert all(word in message for word in TOLD)


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (POINTER.replace(b"\n", b"\r\n"), "102583340 bytes"),
        (POINTER.replace(b"git-lfs.github.com", b"hawser.github.com"), "102583340 bytes"),
        (POINTER.replace(b"\noid", b"\next-0-case sha256:00\noid"), "102583340 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "unknown size"),
        (POINTER.replace(b"102583340", b"9" * 1000), ""),
        (POINTER + b"x" * MAX_POINTER_BYTES, ""),
        (b"# " + POINTER, ""),
        (b"version 2", ""),
        (b"", ""),
    ],
)
def test_what_is_a_pointer(content, size) -> None:
    text = pointer_text(content)
    assert bool(text) == bool(size)
    assert size in text


def test_weights_that_are_as_small_as_a_pointer_are_weights() -> None:
    files = {"m.onnx": with_weights((8, 4)), "w.bin": bytes(128)}
    assert verify(MemoryFolder(files), "m.onnx", capabilities=CAPABILITIES).outcome == "Accepted"


def serving(files: dict[str, bytes], etags: bool = True):
    async def handler(request: Request) -> None:
        found = files.get(request.path)
        etag = f'"{hashlib.sha256(found or b"").hexdigest()}"' if etags else None
        await (request.answer(404) if found is None else FileServer(found, etag)(request))

    return handler


async def test_test_data_that_are_pointers_are_named(authority) -> None:
    files = {"/m.onnx": with_weights((2, 2)), "/w.bin": bytes(16), "/t/input_0.pb": b"x", "/t/output_0.pb": POINTER}
    async with Server(serving(files), authority.server) as server:
        request = InspectionRequest(
            uri=f"{server.url}/m.onnx",
            test_data=f"{server.url}/t",
            sources=settings(authority),
            capabilities=CAPABILITIES,
        )
        result = await inspect(request, limits=InspectionLimits())
    assert result.refusal is not None
    assert result.refusal.message.startswith("spec.model.testData: output_0.pb is a Git LFS pointer")
    assert all(word in result.refusal.message for word in TOLD)


@pytest.mark.parametrize("place", ["model", "weights", "test data"])
@pytest.mark.parametrize("planned", [POINTER, bytes(40_000)], ids=["planned before it was told", "overwritten since"])
async def test_the_pod_names_a_pointer_that_it_downloads(authority, tmp_path: Path, place, planned) -> None:
    uri = {"model": "/m.onnx", "weights": "/w.bin", "test data": "/t/input_0.pb"}[place]
    contents = {"/m.onnx": b"model", "/w.bin": b"weights", "/t/input_0.pb": b"data"}

    def file(path: str) -> SourceFile:
        content = planned if path == uri else contents[path]
        pin = SourcePin(kind="None", value=f"sha256:{hashlib.sha256(content).hexdigest()}")
        return SourceFile(name=path.removeprefix("/t").removeprefix("/"), pin=pin, size_bytes=len(content))

    for folder in ("model", "data"):
        (tmp_path / folder).mkdir()
    async with Server(serving(contents | {uri: POINTER}, etags=False), authority.server) as server:
        plan = FetchPlan(
            uri=f"{server.url}/m.onnx",
            model=ModelFiles(files=[file("/m.onnx"), file("/w.bin")], model="m.onnx"),
            directory=str(tmp_path / "model"),
            sources=settings(authority),
            test_data=DataPlan(uri=f"{server.url}/t/", files=[file("/t/input_0.pb")], directory=str(tmp_path / "data")),
        )
        with pytest.raises(FetchError) as caught:
            await fetch(plan, {}, Retries(attempts=1), tmp_path)
    assert caught.value.reason == ("DownloadFailed" if planned == POINTER else "SourceChanged")
    assert all(word in caught.value.message for word in TOLD)
    assert not list(tmp_path.rglob(uri.rpartition("/")[2]))


@pytest.mark.parametrize("command", ["inspect", "serve"])
@pytest.mark.parametrize("pointer", ["m.onnx", "w.bin"])
def test_the_command_line_names_a_pointer_of_a_folder(tmp_path: Path, command, pointer) -> None:
    for name, content in {"m.onnx": with_weights((100, 100)), "w.bin": bytes(40_000), pointer: POINTER}.items():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", "onnx_operator.cli", command, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    told = " ".join((done.stdout + done.stderr).split())
    assert all(word in told for word in TOLD)


def test_serve_names_a_pointer_among_the_test_data(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(with_weights((2, 2)))
    (tmp_path / "w.bin").write_bytes(bytes(16))
    data = tmp_path / "data"
    data.mkdir()
    for name in ("input_0.pb", "output_0.pb"):
        (data / name).write_bytes(POINTER)
    command = [sys.executable, "-m", "onnx_operator.cli", "serve", str(tmp_path / "m.onnx"), "--port", "0"]
    done = subprocess.run(
        [*command, "--test-data", str(data)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert "input_0.pb is a Git LFS pointer" in " ".join((done.stdout + done.stderr).split())


async def test_a_pointer_beside_the_model_holds_up_no_script(authority, tmp_path: Path) -> None:
    pin = SourcePin(kind="None", value=f"sha256:{hashlib.sha256(POINTER).hexdigest()}")
    beside = SourceFile(name="train.csv", pin=pin, size_bytes=len(POINTER))
    (tmp_path / "scoring").mkdir()
    async with Server(serving({"/train.csv": POINTER}, etags=False), authority.server) as server:
        plan = FetchPlan(
            uri=f"{server.url}/m.onnx",
            model=ModelFiles(files=[beside], model="m.onnx"),
            directory=str(tmp_path),
            sources=settings(authority),
            scoring={"score.py": ""},
            scoring_directory=str(tmp_path / "scoring"),
        )
        await fetch(plan, {}, Retries(attempts=1), tmp_path)
    assert (tmp_path / "train.csv").read_bytes() == POINTER
