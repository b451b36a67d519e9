"""One rule of quoting: what a name in an address means, at a real store of each kind.

Names of object stores, of the hub and of volumes are taken to the letter; addresses of the web and of files are URLs.
"""

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.model.sources import SourceError, transfer
from tests.integration.places import LISTING, NAMES, STORES, TO_THE_LETTER, Place


@pytest.mark.parametrize("places", STORES, indirect=True)
@pytest.mark.parametrize("name", NAMES)
async def test_a_name_is_read_as_its_store_writes_it_and_so_are_names_beside_it(places: list[Place], name: str) -> None:
    for place in places:
        async with place.open(name) as source:
            assert await source.locate() == [name]
            stat = await source.stat(name)
            assert stat.size == len(name.encode())
            assert await transfer.read(source, name, 0, stat.size, pin=stat.pin) == name.encode()
            data = b"data of " + name.encode()
            assert await transfer.read(source, f"{name}.data", 0, len(data), pin=None) == data


@pytest.mark.parametrize("places", LISTING, indirect=True)
@pytest.mark.parametrize("name", NAMES)
async def test_a_folder_of_such_a_name_is_searched(places: list[Place], name: str) -> None:
    for place in places:
        async with place.open(f"only {name}/") as source:
            assert await source.locate() == ["model.onnx"]
            body = b"in " + name.encode()
            assert await transfer.read(source, "model.onnx", 0, len(body), pin=None) == body


@pytest.mark.parametrize("places", STORES, indirect=True)
async def test_who_quotes_a_name_that_is_taken_to_the_letter_is_told_so(places: list[Place]) -> None:
    for place in places:
        async with place.open("only my model.onnx/my%20other.onnx") as source:
            with pytest.raises(SourceError) as caught:
                await source.stat((await source.locate())[0])
        assert caught.value.reason is Reason.SOURCE_NOT_FOUND
        assert ("taken to the letter" in caught.value.message) == (place.written is TO_THE_LETTER)
