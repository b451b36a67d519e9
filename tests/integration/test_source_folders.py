"""The one model of a folder, a prefix or a repository is found, at a real store of each kind."""

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.model.sources import SourceError, transfer
from tests.integration.places import LISTING, Place


def without_a_slash(places: list[Place]) -> list[Place]:
    """Those that find out by themselves what lies there; without a slash an address on the hub names a file."""
    return [each for each in places if not each.address.startswith("hf:")]


@pytest.mark.parametrize("places", LISTING, indirect=True)
@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize(
    ("folder", "name", "beside"),
    [
        ("one", "m.onnx", "weights.bin"),
        ("deep", "onnx/m.onnx", ""),
        # Where there is no model, the one archive is taken for it.
        ("packed", "my model.tar.gz", "README.md"),
    ],
)
async def test_the_one_model_of_a_folder_is_found(places: list[Place], folder, name, beside, end) -> None:
    for place in places if end else without_a_slash(places):
        async with place.open(f"{folder}{end}") as source:
            assert await source.locate() == [name]
            for each in filter(None, (name, beside)):
                body = f"{folder}/{each}".encode()
                assert await transfer.read(source, each, 0, len(body), pin=None) == body


@pytest.mark.parametrize("places", LISTING, indirect=True)
@pytest.mark.parametrize(
    ("folder", "reason", "words"),
    [
        ("two", Reason.SOURCE_REFUSED, "a.onnx, b.onnx"),
        ("other", Reason.SOURCE_NOT_FOUND, "no .onnx file"),
        ("none", Reason.SOURCE_NOT_FOUND, ""),
    ],
)
async def test_two_models_are_named_and_none_is_said(places: list[Place], folder, reason, words) -> None:
    for place in places:
        async with place.open(f"{folder}/") as source:
            with pytest.raises(SourceError) as caught:
                await source.locate()
        assert caught.value.reason is reason
        assert words in caught.value.message
