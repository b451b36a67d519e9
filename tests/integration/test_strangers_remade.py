"""Models built as those of strangers are judged, described, served and answered as ONNX Runtime does."""

from pathlib import Path

import pytest

from tests.corpus.differences import differences
from tests.corpus.remade import MODELS, write
from tests.corpus.running import examine

UNLOADABLE = frozenset({"no_kernel", "words_of_an_unknown_place"})
"""What ONNX Runtime does not load, to see that such a refusal is the product's too."""


@pytest.mark.parametrize("name", [*MODELS, "external"])
def test_a_model_of_its_kind_is_treated_as_the_runtime_does(tmp_path: Path, name: str) -> None:
    record = examine(name, write(name, tmp_path))

    assert not [f"{found.kind}: {found.text}" for found in differences(record)]
    assert record.stages["runtime"]["loads"] is (name not in UNLOADABLE)
    if name not in UNLOADABLE:
        assert record.stages["serving"]["answers"] == "bits"
