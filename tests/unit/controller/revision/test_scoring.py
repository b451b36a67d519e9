"""Which of a ConfigMap's files is the script, and what is said where none is."""

from typing import Any

import pytest

from onnx_operator.controller.revision.scoring import read_scoring
from onnx_operator.model.refusal import RefusedError
from tests.unit.controller.samples import spec

SCRIPT = "def init(): pass"


class Cluster:
    """An API server with one ConfigMap."""

    def __init__(self, *names: str) -> None:
        self._names = names

    async def get(self, kind: Any, namespace: str, name: str) -> Any:
        return {"data": dict.fromkeys(self._names, SCRIPT)}


async def read(*names: str, **scoring: str) -> dict[str, str]:
    asked = spec(scoring={"configMapName": "score", **scoring})
    return await read_scoring(Cluster(*names), "default", asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "scoring"),
    [
        (["score.py", "labels.json"], {}),
        (["main.py"], {}),
        (["main.py", "words.py"], {"entryScript": "main.py"}),
    ],
)
async def test_all_files_of_a_config_map_go_with_its_script(names: list[str], scoring: dict[str, str]) -> None:
    assert sorted(await read(*names, **scoring)) == sorted(names)


@pytest.mark.parametrize(
    ("names", "scoring", "message"),
    [
        (["main.py", "words.py"], {}, r"must hold score\.py; it holds main\.py, words\.py"),
        (["score.py"], {"entryScript": "main.py"}, r"entryScript: ConfigMap 'score' holds no main\.py"),
        (["score.py"], {"entryScript": "src/score.py"}, r"holds no src/score\.py \(its keys have no folders\)"),
    ],
)
async def test_a_config_map_without_the_script_is_refused(
    names: list[str], scoring: dict[str, str], message: str
) -> None:
    with pytest.raises(RefusedError, match=message):
        await read(*names, **scoring)
