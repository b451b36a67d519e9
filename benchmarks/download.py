"""A parallel, hashed download from a local S3 store against ``curl`` of the same object.

Alone: ``python -m benchmarks.download``.
"""

import asyncio
import hashlib
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import obstore

from benchmarks import machine
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources import transfer
from onnx_operator.model.sources.s3 import S3Source
from tests.cluster.stores import KEY_ID, SECRET, S3Gateway
from tests.cluster.tools import program

SIZE = 1_000_000_000
REPEATS = 5
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Row:
    """One repeat, both ways one after the other. Seconds, and seconds of a processor."""

    ours: tuple[float, float]
    curl: tuple[float, float]
    digest: tuple[float, float]
    """What it takes to hash curl's file afterwards, which ours has done by then."""

    @property
    def ratio(self) -> float:
        """How many times as fast as curl, which hashes nothing."""
        return self.curl[0] / self.ours[0]

    @property
    def verified_ratio(self) -> float:
        """How many times as fast as curl and ``openssl dgst`` one after the other."""
        return (self.curl[0] + self.digest[0]) / self.ours[0]


@dataclass(frozen=True)
class _Object:
    endpoint: str
    link: str
    """Presigned, for curl."""
    sha256: str


_METHOD = """\
`transfer.download` of one object of 1 GB from a local S3 server, four ranges at a time and hashed on the way, against
`curl` of the same object, both into memory; they take turns. The aim is at least curl's speed.

With two cores, which the store shares, the aim is **missed**. Hashing, which curl does not do, is what `openssl dgst`
takes beside: two fifths of our processor time. The store spends more on ranges than on one request for all (0.35 s of
its processor against 0.13 s when the parts were tuned). Against `curl` and `openssl dgst` one after the other, which is
the same work, it is about level.
"""


def measure(size: int = SIZE, repeats: int = REPEATS) -> list[Row]:
    """Download both ways in turns, the first turn unmeasured. Raises RuntimeError where the bytes differ."""
    with _folder(3 * size) as folder, _stored(folder, size) as stored:
        rows = [_turn(folder, stored, number % 2 == 0) for number in range(repeats + 1)]
    return rows[1:]


def _turn(folder: Path, stored: _Object, ours_first: bool) -> Row:
    received = folder / "received"
    ours = _ours(received, stored) if ours_first else (0.0, 0.0)
    received.unlink(missing_ok=True)
    curl = _command("curl", "--silent", "--fail", "-o", str(received), stored.link)
    digest = _command("openssl", "dgst", "-sha256", "-out", str(folder / "digest"), str(received))
    if stored.sha256 not in (folder / "digest").read_text():
        raise RuntimeError("curl received other bytes than were sent")
    if not ours_first:
        ours = _ours(received, stored)
    return Row(ours, curl, digest)


def _ours(destination: Path, stored: _Object) -> tuple[float, float]:
    destination.unlink(missing_ok=True)
    settings = SourceSettings.model_validate({"s3": {"endpoint": stored.endpoint}})
    credentials = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}

    async def fetch() -> transfer.Downloaded:
        async with S3Source("s3://bench/model.onnx", credentials=credentials, settings=settings) as source:
            return await transfer.download(source, "model.onnx", destination)

    busy, began = _processor_seconds(resource.RUSAGE_SELF), time.perf_counter()
    got = asyncio.run(fetch())
    took = time.perf_counter() - began
    if got.sha256 != stored.sha256:
        raise RuntimeError(f"{got.sha256} was received, {stored.sha256} was sent")
    return took, _processor_seconds(resource.RUSAGE_SELF) - busy


def _command(*command: str) -> tuple[float, float]:
    busy, began = _processor_seconds(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began, _processor_seconds(resource.RUSAGE_CHILDREN) - busy


def _processor_seconds(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


@contextmanager
def _folder(needed: int) -> Iterator[Path]:
    """A folder in memory if that is large enough, so that no disk is measured; else a temporary one."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > needed
    with tempfile.TemporaryDirectory(prefix="onnx-operator-download-", dir=memory if roomy else None) as folder:
        yield Path(folder)


@contextmanager
def _stored(folder: Path, size: int) -> Iterator[_Object]:
    for name in ("store", "versions"):
        (folder / name).mkdir()
    block, digest, left = os.urandom(_BLOCK), hashlib.sha256(), size
    with S3Gateway.serve(program("versitygw"), folder / "store", folder / "versions") as gateway:
        bucket = gateway.make_bucket("bench")
        with obstore.open_writer(bucket, "model.onnx") as writer:
            while left:
                piece = block[: min(left, _BLOCK)]
                writer.write(piece)
                digest.update(piece)
                left -= len(piece)
        link = obstore.sign(bucket, "GET", "model.onnx", timedelta(hours=1))
        yield _Object(gateway.endpoint, link, digest.hexdigest())


def report(rows: list[Row]) -> str:
    """The parallel download, and why it is not as fast as curl."""
    table = "\n".join(lines(rows))
    return f"{_METHOD}\n```\n{table}\n```"


def lines(rows: list[Row]) -> list[str]:
    """The rows as a table, with the medians of the ratios."""
    table = ["ours s (processor)   curl s (processor)   openssl s (processor)   × curl   × curl and openssl"]
    for row in rows:
        ours, curl, digest = (f"{took:6.2f} ({busy:9.2f})" for took, busy in (row.ours, row.curl, row.digest))
        table.append(f"{ours}    {curl}    {digest}       {row.ratio:6.2f}   {row.verified_ratio:18.2f}")
    plain = statistics.median(row.ratio for row in rows)
    verified = statistics.median(row.verified_ratio for row in rows)
    table.append(f"medians, sha256 always included in ours: {plain:.2f} × curl, {verified:.2f} × curl and openssl")
    return table


if __name__ == "__main__":
    print("\n".join([*machine.describe(), f"{SIZE / 1e9:g} GB over loopback", *lines(measure())]))
