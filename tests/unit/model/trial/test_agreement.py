"""The verdict is the runtime's on every model of the onnx package's backend tests, but where no caller could send."""

from pathlib import Path

import pytest
from runtimekit import described, judged, loads, opened
from seedkit import models

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.api.report import Refusal
from onnx_operator.model.batching.proof import FAILED, prove
from onnx_operator.model.batching.reading import UnreadableError, parse_skeleton
from onnx_operator.model.reading import skeleton
from onnx_operator.model.reading.folder import MemoryFolder
from onnx_operator.model.trial import standins
from onnx_operator.model.verdict import verify
from tests.locales import of_the_images


@pytest.fixture
def images_locales(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have the locales of the images instead of this machine's."""
    for name, value in of_the_images(tmp_path).items():
        monkeypatch.setenv(name, value)


def test_the_package_holds_the_models_that_are_compared() -> None:
    folders = {name.partition("/")[0] for name in models() if "/" in name}
    assert folders == {"light", "pytorch-converted", "pytorch-operator", "simple"}
    assert len(models()) > 2000


def unsendable(refusal: Refusal | None) -> bool:
    """Whether a refusal is that of an input that no caller can send."""
    return refusal is not None and "which no caller can send" in refusal.message


@pytest.mark.usefixtures("images_locales")
def test_what_the_runtime_loads_is_accepted_and_described_as_it_does_and_nothing_else_is() -> None:
    for name, data in models().items():
        found, session = judged(data), opened(data)
        if unsendable(found.refusal):
            assert any(kind in name.upper() for kind in ("INT4", "INT2", "FLOAT4")), name
        else:
            assert (found.refusal is not None) == isinstance(session, str), (name, found.refusal)
        if found.report is not None and not isinstance(session, str):
            told = {each.name: each for each in (*found.report.inputs, *found.report.outputs)}
            for each in described(session):
                # The runtime says nothing of a rank that it does not know.
                assert told[each.name] in (each, each.model_copy(update={"shape": each.shape or [-1]})), name
            assert not any(note.startswith("ONNX Runtime loads") for note in found.report.notes), name


@pytest.mark.usefixtures("images_locales")
@pytest.mark.parametrize("each", [20, pytest.param(1, marks=pytest.mark.soak)])
def test_verdicts_are_the_same_where_hardly_any_value_is_read(each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor is as good as too large: zeros stand in for it, until a refusal rests on them."""
    monkeypatch.setattr(skeleton, "KEEP_BYTES", 0)
    monkeypatch.setattr(standins, "_INLINE_BYTES", 8)
    for name, data in list(models().items())[::each]:
        found = judged(data)
        if not unsendable(found.refusal):
            assert (found.refusal is None) == loads(data), (name, found.refusal)


@pytest.mark.usefixtures("images_locales")
def test_the_tables_alone_agree_with_the_runtime() -> None:
    """They judge for other architectures and builds, and where the runtime cannot be held."""
    capabilities = load_capabilities()
    for name, data in models().items():
        refusal = verify(MemoryFolder({"m": data}), "m", capabilities=capabilities).refusal
        assert unsendable(refusal) or (refusal is None) == loads(data), (name, refusal)


def test_the_proof_of_batching_fails_for_no_model() -> None:
    for name, data in models().items():
        try:
            structure = parse_skeleton(data)
        except UnreadableError:
            continue
        assert not prove(structure).reason.startswith(FAILED), name
