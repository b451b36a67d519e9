"""What people ship in their packages is judged, described, served and answered as ONNX Runtime does."""

import pytest

from tests.cluster.progress import say
from tests.corpus.differences import differences
from tests.corpus.fetching import CorpusError, fetch, present
from tests.corpus.listing import packages
from tests.corpus.report import difference_table
from tests.corpus.running import Record, examine_all


@pytest.mark.soak
def test_the_product_agrees_with_the_runtime_on_models_of_strangers() -> None:
    for package in packages():
        try:
            fetch(package)
        except CorpusError as error:
            pytest.fail(str(error), pytrace=False)
    models, missing = present()
    assert not missing

    def tell(number: int, record: Record) -> None:
        say(f"{number:>4}/{len(models)}  {record.name}")

    found = [difference for record in examine_all(models, tell) for difference in differences(record)]

    print(difference_table(found))
    assert not found, difference_table(found)
