"""The verdict is the runtime's on every model of the onnx package's backend tests, but where no caller could send."""

import warnings
from functools import cache
from pathlib import Path

import onnx.backend.test
import pytest
import yaml
from onnx.backend.test.loader import load_model_tests
from runtimekit import described, judged, loads, opened

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.api.report import Refusal
from onnx_operator.model.batching.proof import FAILED, prove
from onnx_operator.model.batching.reading import UnreadableError, parse_skeleton
from onnx_operator.model.judge import judge
from onnx_operator.model.reading import skeleton
from onnx_operator.model.reading.folder import MemoryFolder
from onnx_operator.model.trial import standins

STORED = Path(onnx.backend.test.__file__).parent / "data"
LISTED = Path(__file__).with_name("disagreements.yaml")


@cache
def models() -> dict[str, bytes]:
    """Every model that the package holds or generates, by name; generated ones have no folder in theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {case.name: case.model.SerializeToString() for case in load_model_tests(kind="node")}
    for path in sorted(STORED.rglob("*.onnx")):
        name = path.relative_to(STORED)
        found[(name.parent if name.stem == "model" else name.with_suffix("")).as_posix()] = path.read_bytes()
    return found


@pytest.fixture
def without_locales(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the locales of this machine: an image has as few as can be, and others would change the outcome."""
    monkeypatch.setenv("LOCPATH", str(tmp_path))


def test_the_package_holds_the_models_that_are_compared() -> None:
    folders = {name.partition("/")[0] for name in models() if "/" in name}
    assert folders == {"light", "pytorch-converted", "pytorch-operator", "simple"}
    assert len(models()) > 2000


def unsendable(refusal: Refusal | None) -> bool:
    """Whether a refusal is that of an input that neither the protocol nor the server can give to the runtime."""
    return refusal is not None and "can send and the server cannot give" in refusal.message


@pytest.mark.usefixtures("without_locales")
def test_what_the_runtime_loads_is_accepted_and_described_as_it_does_and_nothing_else_is() -> None:
    for name, data in models().items():
        found, session = judged(data), opened(data)
        if unsendable(found.refusal):
            assert any(kind in name.upper() for kind in ("INT4", "INT2", "FLOAT4", "E8M0")), name
        else:
            assert (found.refusal is not None) == isinstance(session, str), (name, found.refusal)
        if found.report is not None and not isinstance(session, str):
            told = {each.name: each for each in (*found.report.inputs, *found.report.outputs)}
            for each in described(session):
                # The runtime says nothing of a rank that it does not know.
                assert told[each.name] in (each, each.model_copy(update={"shape": each.shape or [-1]})), name
            assert not any(note.startswith("ONNX Runtime loads") for note in found.report.notes), name


@pytest.mark.usefixtures("without_locales")
@pytest.mark.parametrize("each", [20, pytest.param(1, marks=pytest.mark.soak)])
def test_verdicts_are_the_same_where_hardly_any_value_is_read(each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor is as good as too large: zeros stand in for it, until a refusal rests on them."""
    monkeypatch.setattr(skeleton, "KEEP_BYTES", 0)
    monkeypatch.setattr(standins, "_INLINE_BYTES", 8)
    for name, data in list(models().items())[::each]:
        found = judged(data)
        if not unsendable(found.refusal):
            assert (found.refusal is None) == loads(data), (name, found.refusal)


@pytest.mark.usefixtures("without_locales")
def test_the_tables_alone_agree_with_the_runtime_or_the_cause_is_listed() -> None:
    """They judge for other architectures and builds, and where the runtime cannot be held."""
    listed = {name: each["loads"] for each in yaml.safe_load(LISTED.read_text()) for name in each["models"]}
    capabilities = load_capabilities()
    found = {}
    for name, data in models().items():
        refusal = judge(MemoryFolder({"m": data}), "m", capabilities=capabilities).refusal
        loaded = loads(data)
        if (refusal is None) != loaded and not unsendable(refusal):
            found[name] = loaded
            print(name, refusal)
    assert found == listed


def test_every_listed_cause_is_told_in_words() -> None:
    for each in yaml.safe_load(LISTED.read_text()):
        assert len(each["cause"]) > 80
        assert each["models"] == sorted(set(each["models"]))
        assert set(each["models"]) <= models().keys()


def test_the_proof_of_batching_fails_for_no_model() -> None:
    for name, data in models().items():
        try:
            structure = parse_skeleton(data)
        except UnreadableError:
            continue
        assert not prove(structure).reason.startswith(FAILED), name
