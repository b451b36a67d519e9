"""Reading large models over a shaped link, against downloading them over the same link.

Alone: ``python -m benchmarks.remote``.
"""

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median

import obstore
from obstore.store import S3Store

from benchmarks import machine, sparse
from benchmarks.link import BYTES_PER_SECOND, ROUND_TRIP_SECONDS, Link
from benchmarks.worker import Worker
from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.api.report import InspectionRequest
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.inspection.inspection import inspect
from onnx_operator.model.inspection.isolation import Parser
from onnx_operator.model.limits import InspectionLimits
from tests.cluster.stores import KEY_ID, SECRET, S3Gateway
from tests.cluster.tools import program

BUCKET = "models"
REPEATS = 3


@dataclass(frozen=True)
class Case:
    """A model and what is aimed at: shares of its bytes and of the time that downloading takes."""

    name: str
    title: str
    write: Callable[[Path], object]
    most_bytes: float
    most_time: float | None
    peak_mebibytes: int = 64


CASES = (
    Case("remote-single", "one file, 300 large tensors", sparse.write_single_file, 0.01, 0.20),
    Case("remote-external", "external data, 300 large tensors", sparse.write_external, 0.001, None),
)


@dataclass(frozen=True)
class Row:
    """Bytes and seconds, medians; ``download_seconds`` is None where it was not measured."""

    case: Case
    model_bytes: int
    read_bytes: int
    seconds: float
    download_seconds: float | None
    peak_added_bytes: int
    """What reading and checking added to a process with everything imported; the model's structure is part of it."""
    structure_bytes: int


def measure(case: Case, repeats: int = REPEATS) -> Row:
    """Inspect, the first time unmeasured, then download."""
    core, other = machine.cores()
    with tempfile.TemporaryDirectory() as temporary, _gateway(Path(temporary)) as gateway:
        gateway.make_bucket(BUCKET)
        folder = gateway.folder / BUCKET
        model = folder / "model.onnx"
        case.write(model)
        for path in folder.glob("*"):
            if path.is_file():
                # The gateway tells ETags of what it was sent; these files were written beneath it.
                os.setxattr(path, "user.etag", f'"{path.name}-{path.stat().st_size}"'.encode())
        total = sum(path.stat().st_size for path in folder.glob("*"))
        with Link(other, int(gateway.endpoint.rpartition(":")[2])) as link:
            endpoint = f"http://127.0.0.1:{link.port}"
            turns = asyncio.run(_turns(link, endpoint, repeats + 1))[1:]
            downloads = [_curl(endpoint) for _ in range(repeats)] if case.most_time else []
        with Worker(core, "judge", model) as verify:
            peak = verify.ready["peakAddedBytes"]
        return Row(
            case,
            total,
            max(read for read, _ in turns),
            median(seconds for _, seconds in turns),
            median(downloads) if downloads else None,
            peak,
            _structure(model),
        )


async def _turns(link: Link, endpoint: str, count: int) -> list[tuple[int, float]]:
    request = InspectionRequest(
        uri=f"s3://{BUCKET}/model.onnx",
        credentials={"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET},
        sources=SourceSettings.model_validate({"s3": {"endpoint": endpoint}}),
        capabilities=load_capabilities(),
    )
    limits = InspectionLimits()
    found = []
    async with Parser(limits) as parser:
        for _ in range(count):
            link.received()
            began = time.perf_counter()
            result = await inspect(request, limits=limits, parser=parser)
            seconds = time.perf_counter() - began
            assert result.refusal is None, result.refusal
            found.append((link.received(), seconds))
    return found


def _curl(endpoint: str) -> float:
    keys = {"access_key_id": KEY_ID, "secret_access_key": SECRET}
    store = S3Store(BUCKET, config={"endpoint": endpoint, "region": "us-east-1", **keys})
    link = obstore.sign(store, "GET", "model.onnx", timedelta(hours=1))
    began = time.perf_counter()
    subprocess.run(["curl", "--silent", "--fail", "-o", "/dev/null", link], check=True)
    return time.perf_counter() - began


def _structure(model: Path) -> int:
    from onnx_operator.model.reading.skeleton import read_skeleton
    from onnx_operator.model.reading.window import Window

    with model.open("rb") as file:

        class Disk:
            def read_at(self, begin: int, end: int) -> bytes:
                return os.pread(file.fileno(), end - begin, begin)

        return read_skeleton(Window(Disk(), model.stat().st_size)).model.ByteSize()


@contextmanager
def _gateway(folder: Path) -> Iterator[S3Gateway]:
    store, versions = folder / "store", folder / "versions"
    store.mkdir()
    versions.mkdir()
    with S3Gateway.serve(program("versitygw"), store, versions) as gateway:
        yield gateway


def report(rows: list[Row]) -> str:
    """A table in Markdown, with the aims."""
    lines = [
        f"Over a link of {BYTES_PER_SECOND / 1e6:.0f} MB/s and {ROUND_TRIP_SECONDS * 1e3:.0f} ms round trip (a proxy in"
        " user space, a local S3 server behind it), against `curl` of the same file over the same link: medians of"
        f" {REPEATS} inspections, then of {REPEATS} downloads. The process that forks for parsing runs already, as in"
        " the operator. Bytes are those that came back through the link, headers included. *Memory* is what the verdict"
        " on the same file, read from a local disk, adds at its peak to a process that has everything imported, less"
        " the structure.",
        "",
        "| model | read | aim | seconds | of downloading | aim | memory MiB | aim |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        share = row.read_bytes / row.model_bytes
        time_share = "–" if row.download_seconds is None else f"**{row.seconds / row.download_seconds:.3f}**"
        aim = "–" if row.case.most_time is None else f"{row.case.most_time:g}"
        memory = (row.peak_added_bytes - row.structure_bytes) / 2**20
        lines.append(
            f"| {row.case.title}, {row.model_bytes / 1e9:.1f} GB | {row.read_bytes / 1e6:.2f} MB,"
            f" **{share:.4%}** | {row.case.most_bytes:.1%} | {row.seconds:.2f} | {time_share} | {aim}"
            f" | **{memory:.0f}** | {row.case.peak_mebibytes} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(report([measure(case) for case in CASES]))
