"""Downloads and reads over a source made up here, which fails on command."""

import asyncio
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.sources import (
    BrokenStreamError,
    FileStat,
    SourceChangedError,
    SourceError,
    Stream,
    parts,
    streams,
    transfer,
)

BODY = random.Random(4).randbytes(200_000)
SHA = hashlib.sha256(BODY).hexdigest()
V1, V2 = (SourcePin(kind="Immutable", value=value) for value in ("v1", "v2"))
PART = 10_000


@dataclass
class MemorySource:
    """Holds one file. ``fault`` is asked before each piece with its offset, and may raise or wait."""

    body: bytes = BODY
    pin: SourcePin | None = field(default_factory=lambda: V1)
    ranges: bool = True
    tells_size: bool = True
    piece: int = 3000
    shown: str = "test://store/m.onnx"
    fault: Callable[[int], object] | None = None
    opened: list[tuple[int, int | None]] = field(default_factory=list)
    streams: int = 0
    most_streams: int = 0

    async def locate(self) -> list[str]:
        return ["m.onnx"]

    async def stat(self, name: str) -> FileStat:
        return FileStat(len(self.body) if self.tells_size else None, self.pin)

    @asynccontextmanager
    async def open(self, name: str, begin: int = 0, end: int | None = None, *, pin: SourcePin | None = None):
        self.opened.append((begin, end))
        if pin is not None and pin.kind != "None" and pin != self.pin:
            raise SourceChangedError("changed", observed=self.pin or SourcePin(kind="None", value=""))
        self.streams += 1
        self.most_streams = max(self.streams, self.most_streams)
        try:
            if not self.ranges:
                begin, end = 0, None
            last = len(self.body) if end is None else min(end, len(self.body))
            yield Stream(await self.stat(name), begin, self._pieces(begin, last))
        finally:
            self.streams -= 1

    async def _pieces(self, begin: int, end: int) -> AsyncIterator[bytes]:
        body = self.body
        for offset in range(begin, end, self.piece):
            await asyncio.sleep(0)
            if self.fault is not None:
                waiting = self.fault(offset)
                if asyncio.iscoroutine(waiting):
                    await waiting
            yield body[offset : min(offset + self.piece, end)]

    async def aclose(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", PART)
    monkeypatch.setattr(streams, "CHUNK_BYTES", 4000)
    monkeypatch.setattr(streams, "_FIRST_DELAY_SECONDS", 0.001)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "m.onnx"


async def fetch(source: MemorySource, out: Path, **options) -> transfer.Downloaded:
    return await transfer.download(source, "m.onnx", out, **options)


def breaking_at(*offsets: int) -> Callable[[int], None]:
    """Break once before the piece at each of the offsets."""
    left = set(offsets)

    def fault(offset: int) -> None:
        if offset in left:
            left.remove(offset)
            raise BrokenStreamError("cut")

    return fault


class Crash(Exception):
    """Stands for whatever ends a process."""


def crashing_after(pieces: int) -> Callable[[int], None]:
    left = [pieces]

    def fault(_: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Crash

    return fault


@pytest.mark.parametrize("pin", [None, V1])
@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 200_000])
async def test_a_file_arrives_whole_and_nothing_else_stays(out, pin, size) -> None:
    body, seen = BODY[:size], []
    source = MemorySource(body)
    got = await fetch(source, out, pin=pin, max_bytes=size, progress=lambda done, total: seen.append((done, total)))
    assert got == transfer.Downloaded(sha256=hashlib.sha256(body).hexdigest(), size=size, pin=V1)
    assert out.read_bytes() == body
    assert [path.name for path in out.parent.iterdir()] == ["m.onnx"]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert not size or seen[-1] == (size, size)


async def test_parts_are_fetched_side_by_side_each_once(out) -> None:
    source = MemorySource()
    await fetch(source, out, pin=V1, parallel=3)
    assert source.most_streams == 3
    assert sorted(source.opened) == [(begin, begin + PART) for begin in range(0, len(BODY), PART)]


async def test_a_slow_part_holds_up_no_other(out) -> None:
    others = asyncio.Event()

    def fault(offset: int):
        if offset >= len(BODY) - PART:
            others.set()
        return others.wait() if offset == 3000 else None

    assert (await fetch(MemorySource(fault=fault), out, pin=V1)).sha256 == SHA


@pytest.mark.parametrize(
    "source",
    [
        MemorySource(ranges=False),
        MemorySource(tells_size=False),
        MemorySource(ranges=False, tells_size=False),
        MemorySource(pin=None),
        MemorySource(pin=None, tells_size=False, ranges=False),
    ],
    ids=["no ranges", "no size", "neither", "no pin", "nothing"],
)
@pytest.mark.parametrize("given", [True, False])
async def test_what_cannot_be_had_in_parts_comes_in_one_stream(out, source, given) -> None:
    none = SourcePin(kind="None", value="sha256:x")
    got = await fetch(source, out, pin=(source.pin or none) if given else None)
    assert (got.sha256, got.size, got.pin) == (SHA, len(BODY), source.pin)
    assert out.read_bytes() == BODY
    assert [path.name for path in out.parent.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("ranges", [True, False])
async def test_streams_that_break_are_continued_under_the_pin(out, ranges) -> None:
    source = MemorySource(fault=breaking_at(3000, 13_000, 57_000, 199_000), ranges=ranges)
    assert (await fetch(source, out, pin=V1)).sha256 == SHA
    assert out.read_bytes() == BODY
    if ranges:
        assert {(3000, PART), (13_000, 2 * PART), (199_000, 20 * PART)} <= set(source.opened)
    else:
        assert source.opened[-2:] == [(0, None), (57_000, None)]


async def test_without_a_strong_pin_a_broken_stream_begins_again(out) -> None:
    source = MemorySource(pin=None, fault=breaking_at(99_000))
    assert (await fetch(source, out)).sha256 == SHA
    assert source.opened == [(0, None), (0, None)]


async def test_without_a_strong_pin_two_versions_are_never_mixed(out) -> None:
    source = MemorySource(pin=None)

    def fault(offset: int) -> None:
        if offset >= 99_000 and source.body is BODY:
            source.body = BODY[::-1]
            raise BrokenStreamError("cut")

    source.fault = fault
    assert (await fetch(source, out)).sha256 == hashlib.sha256(BODY[::-1]).hexdigest()


@pytest.mark.parametrize("given", [True, False])
async def test_a_file_that_changes_on_the_way_is_not_taken(out, given) -> None:
    source = MemorySource()

    def fault(offset: int) -> None:
        if offset >= 100_000:
            source.body, source.pin = BODY[::-1], V2

    source.fault = fault
    with pytest.raises(SourceChangedError) as caught:
        await fetch(source, out, pin=V1 if given else None)
    assert caught.value.observed == V2
    assert source.streams == 0


async def test_two_sizes_of_one_version_are_refused(out) -> None:
    source = MemorySource()

    def fault(offset: int) -> None:
        if offset >= 50_000:
            source.body = BODY + b"more"

    source.fault = fault
    with pytest.raises(SourceError) as caught:
        await fetch(source, out, pin=V1)
    assert caught.value.reason is Reason.SOURCE_REFUSED


@pytest.mark.parametrize("pin", [V1, None])
async def test_a_stream_that_always_breaks_is_given_up(out, pin) -> None:
    def fault(offset: int) -> None:
        if offset >= 60_000:
            raise BrokenStreamError("cut for good")

    with pytest.raises(SourceError) as caught:
        await fetch(MemorySource(pin=pin, fault=fault), out)
    assert caught.value.reason is Reason.SOURCE_UNREACHABLE
    assert caught.value.retriable
    assert "cut for good" in caught.value.message


@pytest.mark.parametrize(
    "source", [MemorySource(), MemorySource(pin=None, tells_size=False), MemorySource(ranges=False)]
)
async def test_more_than_allowed_is_too_large(out, source) -> None:
    with pytest.raises(SourceError) as caught:
        await fetch(source, out, max_bytes=len(BODY) - 1)
    assert caught.value.reason is Reason.TOO_LARGE
    assert not out.exists() or out.stat().st_size < len(BODY)


async def test_a_stream_that_trickles_is_given_up(out, monkeypatch) -> None:
    monkeypatch.setattr(streams, "SLOW_WINDOW_SECONDS", 0.2)
    monkeypatch.setattr(streams, "CHUNK_BYTES", 1)
    source = MemorySource(piece=1, fault=lambda _: asyncio.sleep(0.02))
    with pytest.raises(SourceError) as caught:
        await fetch(source, out, pin=V1)
    assert caught.value.reason is Reason.SOURCE_UNREACHABLE
    assert "too slow" in caught.value.message


@pytest.mark.parametrize("pin", [V1, None])
async def test_a_full_disk_is_an_error_of_the_disk(out, pin) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            await fetch(MemorySource(pin=pin), out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("pieces", [0, 1, 5, 30, 66, 79])
async def test_what_an_earlier_try_brought_is_kept(out, pieces) -> None:
    with pytest.raises(Crash):
        await fetch(MemorySource(fault=crashing_after(pieces)), out, pin=V1, resume=True)
    left = out.with_name("m.onnx.parts")
    complete = len(left.read_bytes().split(b"\n")) - 2
    source, seen = MemorySource(), []
    got = await fetch(source, out, pin=V1, resume=True, progress=lambda done, _: seen.append(done))
    assert got.sha256 == SHA
    assert out.read_bytes() == BODY
    asked = [span for span in source.opened if span != (0, 1)]
    assert len(asked) == 20 - complete
    assert seen[0] > complete * PART
    assert not left.exists()


async def test_without_resume_nothing_is_kept(out) -> None:
    with pytest.raises(Crash):
        await fetch(MemorySource(fault=crashing_after(50)), out, pin=V1)
    source = MemorySource()
    await fetch(source, out, pin=V1)
    assert len(source.opened) == 20


def _other(state: Path, **changes) -> None:
    head, newline, rest = state.read_bytes().partition(b"\n")
    state.write_bytes(json.dumps({**json.loads(head), **changes}, sort_keys=True).encode() + newline + rest)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda out, state: state.unlink(),
        lambda out, state: out.unlink(),
        lambda out, state: os.truncate(out, 150_000),
        lambda out, state: state.write_bytes(b""),
        lambda out, state: state.write_bytes(state.read_bytes()[:20]),
        lambda out, state: _other(state, pin="v0"),
        lambda out, state: _other(state, kind="Conditional"),
        lambda out, state: _other(state, size=1),
        lambda out, state: _other(state, partBytes=5000),
        lambda out, state: _other(state, uri="test://other"),
        lambda out, state: _other(state, boot="an earlier start of the machine"),
    ],
)
async def test_what_may_stem_from_something_else_is_not_kept(out, spoil) -> None:
    with pytest.raises(Crash):
        await fetch(MemorySource(fault=crashing_after(50)), out, pin=V1, resume=True)
    out.write_bytes(bytes(len(BODY)))
    spoil(out, out.with_name("m.onnx.parts"))
    assert (await fetch(MemorySource(), out, pin=V1, resume=True)).sha256 == SHA
    assert out.read_bytes() == BODY


async def test_a_line_that_was_half_written_does_not_count(out) -> None:
    with pytest.raises(Crash):
        await fetch(MemorySource(fault=crashing_after(60)), out, pin=V1, resume=True)
    state = out.with_name("m.onnx.parts")
    missing = next(part for part in range(20) if b"\n%d\n" % part not in state.read_bytes())
    state.write_bytes(state.read_bytes() + b"%d" % missing)
    assert (await fetch(MemorySource(), out, pin=V1, resume=True)).sha256 == SHA


@pytest.mark.parametrize("failing_write", range(0, 60, 3))
async def test_whichever_write_is_the_last_the_next_try_is_right(out, monkeypatch, failing_write) -> None:
    """Data first, then the word that it is there: in no order may a part count that was not written."""
    writes = [0]

    def counted(call):
        def write(*arguments):
            writes[0] += 1
            if writes[0] > failing_write:
                raise Crash
            return call(*arguments)

        return write

    with monkeypatch.context() as patch:
        for name in ("pwritev", "write", "ftruncate"):
            patch.setattr(os, name, counted(getattr(os, name)))
        with pytest.raises(Crash):
            await fetch(MemorySource(), out, pin=V1, resume=True)
    assert (await fetch(MemorySource(), out, pin=V1, resume=True)).sha256 == SHA
    assert out.read_bytes() == BODY


def test_a_process_that_is_killed_is_continued_by_another(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import asyncio, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        import test_transfer as t
        t.parts.PART_BYTES, t.streams.CHUNK_BYTES = t.PART, 4000
        slow = (lambda _: asyncio.sleep(0.005)) if sys.argv[1] == "slow" else None
        source = t.MemorySource(fault=slow)
        print(asyncio.run(t.fetch(source, Path("m.onnx"), pin=t.V1, resume=True)).sha256, len(source.opened))
    """)
    command = [sys.executable, "-c", script]
    with subprocess.Popen([*command, "slow"], cwd=tmp_path) as process:
        state = tmp_path / "m.onnx.parts"
        deadline = time.monotonic() + 30
        while not state.exists() or state.read_bytes().count(b"\n") < 5:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
    done = subprocess.run([*command, "quick"], cwd=tmp_path, capture_output=True, text=True, check=True)
    sha256, requests = done.stdout.split()
    assert sha256 == SHA
    assert int(requests) <= 20 - 4 + 1
    assert (tmp_path / "m.onnx").read_bytes() == BODY


async def test_a_download_that_is_cancelled_writes_no_more(out) -> None:
    begun = asyncio.Event()

    def fault(offset: int):
        if offset > 50_000:
            begun.set()
            return asyncio.sleep(60)
        return None

    source = MemorySource(fault=fault)
    job = asyncio.ensure_future(fetch(source, out, pin=V1, resume=True))
    await begun.wait()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert source.streams == 0
    assert (await fetch(MemorySource(), out, pin=V1, resume=True)).sha256 == SHA


@pytest.mark.parametrize("source", [MemorySource(), MemorySource(ranges=False), MemorySource(pin=None)])
@pytest.mark.parametrize("span", [(0, 1), (0, 200_000), (12_345, 23_456), (199_999, 200_000), (7, 7)])
async def test_a_read_is_exactly_what_was_asked_for(source, span) -> None:
    assert await transfer.read(source, "m.onnx", *span, pin=source.pin) == BODY[slice(*span)]


@pytest.mark.parametrize("pin", [V1, None])
async def test_a_read_that_breaks_goes_on_or_begins_again(pin) -> None:
    source = MemorySource(pin=pin, fault=breaking_at(13_000, 16_000))
    assert await transfer.read(source, "m.onnx", 10_000, 30_000, pin=pin) == BODY[10_000:30_000]
    assert source.opened == [(begin if pin else 10_000, 30_000) for begin in (10_000, 13_000, 16_000)]


async def test_a_read_beyond_the_end_is_an_error() -> None:
    with pytest.raises(SourceError) as caught:
        await transfer.read(MemorySource(), "m.onnx", 199_990, 200_010, pin=V1)
    assert caught.value.reason is Reason.SOURCE_UNREACHABLE
    assert "10 of 20 bytes" in caught.value.message
