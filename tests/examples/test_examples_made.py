"""What is checked in is what the makers make, each in an environment of its own: `make test-examples`, minutes."""

from pathlib import Path

import pytest

from examples.build import check, make
from examples.catalogue import Example, examples

pytestmark = pytest.mark.examples


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_its_model_can_be_made_anew_and_answers_as_the_one_that_is_here(example: Example, tmp_path: Path) -> None:
    # The manifest says how the model's file is called.
    (tmp_path / "model.yaml").write_bytes((example.folder / "model.yaml").read_bytes())

    make(example, tmp_path)

    made = check(example, tmp_path)
    assert made.size > 0
    assert not made.differences
