"""The verdict agrees with the runtime on every model of the onnx package's backend tests, or the cause is listed."""

import warnings
from functools import cache
from pathlib import Path

import onnx.backend.test
import pytest
import yaml
from modelkit import verdict
from onnx.backend.test.loader import load_model_tests
from runtimekit import loads

from onnx_operator.api.capabilities import load_capabilities

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


@pytest.mark.usefixtures("without_locales")
def test_verdicts_agree_with_the_runtime_or_the_cause_is_listed() -> None:
    listed = {name: each["loads"] for each in yaml.safe_load(LISTED.read_text()) for name in each["models"]}
    capabilities = load_capabilities()
    found = {}
    for name, data in models().items():
        refusal = verdict(data, capabilities).refusal
        loaded = loads(data)
        if (refusal is None) != loaded:
            found[name] = loaded
            print(name, refusal)
    assert found == listed


def test_every_listed_cause_is_told_in_words() -> None:
    for each in yaml.safe_load(LISTED.read_text()):
        assert len(each["cause"]) > 80
        assert each["models"] == sorted(set(each["models"]))
        assert set(each["models"]) <= models().keys()
