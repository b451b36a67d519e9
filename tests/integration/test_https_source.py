"""The ``https`` source against a real web server: nginx over TLS, with and without what downloads like."""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources import SourceChangedError, SourceError, open_source, transfer
from tests.cluster import servers
from tests.unit.model.webkit import Authority, read

BODY, OTHER, WEIGHTS = os.urandom(5_000_000), os.urandom(5_000_000), os.urandom(100_000)
LOCATIONS = """
location /plain/ { max_ranges 0; }
location /weak/ { sub_filter "nothing" "nothing at all"; sub_filter_types *; sub_filter_last_modified on; }
location /gzip/ { gzip on; gzip_types *; gzip_min_length 1; }
location /packed/ { add_header Content-Encoding gzip; }
location /moved/ { return 302 /ranges/$uri; }
location /private/ { if ($http_authorization != "Bearer T0KEN") { return 401; } }
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nginx") / "files"


@pytest.fixture(scope="module")
def url(files: Path, authority: Authority) -> Iterator[str]:
    for place in ("ranges", "plain", "weak", "gzip", "packed", "private", "changing"):
        folder = files / place
        folder.mkdir(parents=True)
        (folder / "m.onnx").write_bytes(BODY)
        (folder / "m.onnx.data").write_bytes(WEIGHTS)
    (files / "ranges" / "moved").symlink_to(files / "ranges")
    with servers.nginx(files.parent, authority.chain, LOCATIONS) as served:
        yield served


def source_of(uri: str, authority: Authority, **credentials: str):
    settings = SourceSettings.model_validate(
        {"allowed_networks": ["127.0.0.0/8"], "https": {"ca_bundle": authority.pem}}
    )
    return open_source(uri, credentials=credentials, settings=settings)


@pytest.mark.parametrize("place", ["ranges", "gzip", "moved"])
async def test_a_file_is_pinned_by_its_etag_and_read_by_ranges(url, authority, tmp_path, place) -> None:
    async with source_of(f"{url}/{place}/m.onnx?key=a%2Fb", authority) as source:
        stat = await source.stat("m.onnx")
        assert stat.size == len(BODY)
        assert stat.pin is not None
        got, stream = await read(source, "m.onnx", 1_000_000, 1_000_100, stat.pin)
        assert (got, stream.begin) == (BODY[1_000_000:1_000_100], 1_000_000)
        done = await transfer.download(source, "m.onnx", tmp_path / "m", pin=stat.pin)
    assert done.sha256 == hashlib.sha256(BODY).hexdigest()


async def test_hundreds_of_ranges_at_once_bring_the_file(url, authority) -> None:
    async with source_of(f"{url}/ranges/m.onnx", authority) as source:
        pin = (await source.stat("m.onnx")).pin
        gate = asyncio.Semaphore(8)

        async def part(begin: int) -> bytes:
            async with gate:
                return (await read(source, "m.onnx", begin, begin + 16_384, pin))[0]

        assert b"".join(await asyncio.gather(*map(part, range(0, len(BODY), 16_384)))) == BODY


async def test_without_ranges_the_file_comes_from_its_beginning(url, authority, tmp_path) -> None:
    async with source_of(f"{url}/plain/m.onnx", authority) as source:
        stat = await source.stat("m.onnx")
        got, stream = await read(source, "m.onnx", 1_000_000, 1_000_100)
        assert (got, stream.begin) == (BODY, 0)
        done = await transfer.download(source, "m.onnx", tmp_path / "m", pin=stat.pin)
    assert done.sha256 == hashlib.sha256(BODY).hexdigest()


async def test_a_weak_etag_pins_nothing_and_the_file_is_read_all_the_same(url, authority, tmp_path) -> None:
    async with source_of(f"{url}/weak/m.onnx", authority) as source:
        stat = await source.stat("m.onnx")
        assert (stat.size, stat.pin) == (None, None)
        done = await transfer.download(source, "m.onnx", tmp_path / "m", pin=None)
    assert done.sha256 == hashlib.sha256(BODY).hexdigest()


async def test_what_is_sent_packed_against_the_request_is_refused(url, authority) -> None:
    async with source_of(f"{url}/packed/m.onnx", authority) as source:
        with pytest.raises(SourceError) as caught:
            await source.stat("m.onnx")
    assert caught.value.reason is Reason.SOURCE_REFUSED
    assert "gzip" in caught.value.message


async def test_files_beside_the_model_and_missing_ones(url, authority) -> None:
    async with source_of(f"{url}/ranges/m.onnx", authority) as source:
        assert (await read(source, "m.onnx.data"))[0] == WEIGHTS
        with pytest.raises(SourceError) as caught:
            await source.stat("other.data")
    assert caught.value.reason is Reason.SOURCE_NOT_FOUND


async def test_a_replaced_file_is_noticed(url, authority, files) -> None:
    async with source_of(f"{url}/changing/m.onnx", authority) as source:
        before = (await source.stat("m.onnx")).pin
        (files / "changing" / "m.onnx").write_bytes(OTHER[:-1])
        with pytest.raises(SourceChangedError) as caught:
            await read(source, "m.onnx", 0, 100, before)
        assert caught.value.observed == (await source.stat("m.onnx")).pin


async def test_credentials_open_what_is_private(url, authority) -> None:
    async with source_of(
        f"{url}/private/m.onnx", authority, HTTPS_BEARER_TOKEN="T0KEN", HTTPS_HOSTS=url.split("/")[2]
    ) as source:
        assert (await source.stat("m.onnx")).size == len(BODY)
    async with source_of(f"{url}/private/m.onnx", authority) as source:
        with pytest.raises(SourceError) as caught:
            await source.stat("m.onnx")
    assert caught.value.reason is Reason.SOURCE_UNAUTHORIZED
