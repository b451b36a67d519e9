"""The window promises exactly the file's bytes, with few of them read and few round trips."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_operator.model.reading.window import Window, mapped
from tests.unit.model.wirekit import MemoryBytes

MEBIBYTE = 1 << 20


class Link:
    """A file behind a link of a given latency (s) and speed (bytes/s), with a clock of its own."""

    def __init__(self, size: int, latency: float, speed: float) -> None:
        self.size, self.latency, self.speed, self.now, self.largest = size, latency, speed, 0.0, 0

    def read_at(self, begin: int, end: int) -> bytes:
        assert 0 <= begin < end <= self.size
        self.now += self.latency + (end - begin) / self.speed
        self.largest = max(self.largest, end - begin)
        return bytes(end - begin)

    def clock(self) -> float:
        return self.now


@given(
    data=st.binary(min_size=1, max_size=200_000),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 50_000)), max_size=20),
)
def test_whatever_the_order_the_bytes_are_the_files(data: bytes, places: list[tuple[float, int]]) -> None:
    window = Window(MemoryBytes(data), len(data))
    for share, count in places:
        begin = int(share * (len(data) - 1))
        end = min(begin + count, len(data))
        assert window.slice(begin, end) == data[begin:end]
        buffer, first = window.around(begin, 1)
        assert buffer[begin - first] == data[begin]


def walk(link: Link, pieces: int, gap: int) -> Window:
    """Look at 100 bytes, skip a gap, and so on, as a reader of weights does."""
    window = Window(link, link.size, clock=link.clock)
    for index in range(pieces):
        window.slice(index * (gap + 100), index * (gap + 100) + 100)
    return window


def test_behind_large_weights_little_is_read() -> None:
    size = 300 * (6 * MEBIBYTE + 100)
    link = Link(size, latency=0.01, speed=100e6)
    window = walk(link, 300, 6 * MEBIBYTE)
    assert window.bytes_read <= size / 100
    assert link.now <= 0.2 * size / link.speed


def test_small_gaps_on_a_slow_link_are_read_through_rather_than_asked_for_each() -> None:
    link = Link(1000 * 5100, latency=0.1, speed=10e6)
    window = walk(link, 1000, 5000)
    assert window.reads < 100


def test_a_quick_link_and_large_gaps_cost_one_small_read_each() -> None:
    link = Link(100 * (MEBIBYTE + 100), latency=50e-6, speed=2e9)
    window = walk(link, 100, MEBIBYTE)
    assert window.reads <= 101
    assert window.bytes_read <= 100 * 40_000


def test_never_more_than_a_few_mebibytes_at_once() -> None:
    link = Link(200 * MEBIBYTE, latency=0.2, speed=1e9)
    window = Window(link, link.size, clock=link.clock)
    for begin in range(0, link.size, 4096):
        window.around(begin, 4096)
    assert link.largest <= 4 * MEBIBYTE


def test_a_file_that_gives_less_than_it_has_is_an_error() -> None:
    window = Window(MemoryBytes(b"short"), 100)
    with pytest.raises(ValueError, match="5 bytes came instead of 100"):
        window.slice(0, 100)


def test_layers_that_repeat_are_foreseen() -> None:
    """Three sizes in turn, as the tensors of a network's layers have them."""
    gaps = [600_000, 20_000, 2_000_000] * 20
    link = Link(sum(gaps) + 100 * len(gaps), latency=0.01, speed=100e6)
    expected: list[tuple[int, int]] = []
    read: list[tuple[int, int]] = []

    class Watched:
        def read_at(self, begin: int, end: int) -> bytes:
            read.append((begin, end))
            return link.read_at(begin, end)

    window = Window(Watched(), link.size, clock=link.clock, expect=lambda begin, end: expected.append((begin, end)))
    at = 0
    for index, gap in enumerate(gaps):
        window.slice(at, at + 100)
        at += gap + 100 + index % 3
    met = [any(b <= begin and end <= e for b, e in expected) for begin, end in read]
    assert sum(met[12:]) >= 0.9 * len(met[12:])
    assert len(expected) <= len(read) + 6


def test_nothing_is_foreseen_where_nothing_repeats() -> None:
    expected: list[tuple[int, int]] = []
    link = Link(100_000_000, latency=0.01, speed=100e6)
    window = Window(link, link.size, clock=link.clock, expect=lambda begin, end: expected.append((begin, end)))
    at = 0
    for index in range(40):
        window.slice(at, at + 100)
        at += 50_000 * index + 100_000
    assert len(expected) == 0


def test_a_file_on_disk_is_looked_at_in_place_and_let_go(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(range(256)) * 100)

    with mapped(path) as file:
        assert file.size == 25_600
        assert file.slice(300, 310) == bytes(range(44, 54))
        with pytest.raises(ValueError, match="no byte 25600"):
            file.around(25_600, 1)
        buffer, first = file.around(25_599, 20)
        assert buffer[25_599 - first] == 255


def test_an_empty_file_cannot_be_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.touch()

    with pytest.raises(ValueError, match="empty"), mapped(path):
        pass
