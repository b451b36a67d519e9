"""Wherever a model keeps its weights, the runtime judges it without them, and opens no file of the model's choice."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from feedkit import ModelFeed
from onnx import TensorProto
from placekit import elsewhere, places
from runtimekit import judged, judged_in, loads

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.model.inspection.isolation import Parser
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.nodes import all_tensors
from onnx_operator.model.reading.skeleton import read_skeleton
from onnx_operator.model.reading.window import Window
from onnx_operator.model.trial.standins import ZEROS, with_stand_ins
from tests.unit.model.wirekit import MemoryBytes

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOSTILE = ["/etc/passwd", "../../etc/passwd", "w.bin", "", "/proc/self/mem", "*/_ORT_MEM_ADDR_/*", "zeros/../../w"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parser() -> AsyncIterator[Parser]:
    async with Parser(InspectionLimits()) as started:
        yield started


@pytest.mark.parametrize("place", places())
async def test_a_sealed_child_judges_it_as_the_runtime_does(parser: Parser, place: str) -> None:
    made = places()[place].SerializeToString()
    assert loads(made)
    result = await parser.verify(
        ModelFeed(made, 4 * 64 * 64), "m.onnx", size=len(made), capabilities=load_capabilities()
    )
    assert result.report is not None, result.refusal
    assert result.report.notes == []
    assert result == judged_in(ModelFeed(made, 4 * 64 * 64).folder, "m.onnx")


@pytest.mark.parametrize("place", places())
@pytest.mark.parametrize("location", HOSTILE)
@pytest.mark.parametrize("dims", [(64, 64), (1, 4), (0,)], ids=str)
async def test_the_runtime_sees_no_location_but_that_of_the_zeros(
    place: str, location: str, dims: tuple[int, ...]
) -> None:
    data = places(elsewhere(location, dims))[place].SerializeToString()
    made = with_stand_ins(read_skeleton(Window(MemoryBytes(data), len(data)))).model
    for each in all_tensors(made):
        entries = {entry.key: entry.value for entry in each.external_data}
        if each.data_location == TensorProto.EXTERNAL or entries:
            assert entries.get("location") == ZEROS
            assert entries.get("offset") == "0"
    text = made.SerializeToString()
    assert location.encode() not in text or location in ("", ZEROS)


@pytest.mark.parametrize("place", places())
async def test_weights_in_another_file_are_judged_in_the_sealed_child_too(parser: Parser, place: str) -> None:
    made = places(elsewhere("w.bin"))[place].SerializeToString()
    files = ModelFeed(made, 4 * 64 * 64)
    result = await parser.verify(files, "m.onnx", size=len(made), capabilities=load_capabilities())
    assert result == judged_in(files.folder, "m.onnx")
    if place == "function":
        # The runtime itself reads none there.
        assert result.refusal is not None
    else:
        assert result.report is not None, result.refusal
        assert result.report.notes == []


@pytest.mark.parametrize("location", ["/etc/passwd", "../w.bin", "*/_ORT_MEM_ADDR_/*"])
@pytest.mark.parametrize("place", places())
async def test_weights_outside_of_the_folder_are_refused(place: str, location: str) -> None:
    result = judged(places(elsewhere(location))[place], {"w.bin": bytes(4 * 64 * 64)})
    assert result.refusal is not None
    assert result.refusal.reason == "ExternalDataMissing"


@pytest.mark.parametrize("dims", [(64, 64), (64, 1)], ids=["large", "small"])
async def test_a_weight_with_an_entry_that_the_runtime_does_not_know_is_refused(dims: tuple[int, int]) -> None:
    made = places(elsewhere("w.bin", dims))["initializer"]
    for each in all_tensors(made):
        if each.name == "w":
            each.external_data.add(key="owner", value="me")
    result = judged(made, {"w.bin": bytes(4 * 64 * 64)})
    assert result.refusal is not None
    assert "model format error" in result.refusal.message
