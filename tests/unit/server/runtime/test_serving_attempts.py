"""A made-up input may not hurt: not by memory, not by time, and not twice by killing the process."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnx_operator.api.warm_up import WarmUpInputs
from onnx_operator.server.runtime.attempts import MEASURING, STATE_FILE, Attempts, OutOfTimeError
from onnx_operator.server.runtime.finding import Found, NotFound, Sources, find_input
from onnx_operator.server.runtime.warmup import warm_up
from tests.unit.server.serving import identity, linear, load_bytes, model_bytes, node, serving, value

FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64


def endless() -> bytes:
    """A loop that only the runtime's own end ends."""
    body = helper.make_graph(
        [node("Identity", ["cond"], ["cond_out"]), node("Add", ["m", "one"], ["m_out"])],
        "body",
        [value("i", INT64, []), value("cond", BOOL, []), value("m", FLOAT, [1])],
        [value("cond_out", BOOL, []), value("m_out", FLOAT, [1])],
    )
    return model_bytes(
        [node("Loop", ["", "always", "x"], ["y"], body=body)],
        [value("x", FLOAT, [1])],
        [value("y", FLOAT, [1])],
        {"always": np.array(True), "one": np.ones(1, np.float32)},
    )


def hungry() -> bytes:
    """Answers only rows of 65,536 numbers."""
    return model_bytes(
        [node("Concat", ["x", "w"], ["y"], axis=0)],
        [value("x", FLOAT, ["N", "L"])],
        [value("y", FLOAT, None)],
        {"w": np.zeros((1, 65_536), np.float32)},
    )


def test_a_made_up_input_that_never_ends_is_stopped_and_the_model_serves_unwarmed() -> None:
    found = find_input(load_bytes(endless()), Sources(attempts=Attempts(seconds=0.5)))
    assert isinstance(found, NotFound)
    assert "the time for the search was over" in found.message


def test_no_guess_takes_more_than_its_share_of_the_free_memory() -> None:
    model = load_bytes(hungry())
    found = find_input(model, Sources(attempts=Attempts(free=lambda: 1 << 20)))
    assert isinstance(found, NotFound)
    assert "left out, for memory" in found.message
    assert isinstance(find_input(model, Sources(attempts=Attempts(free=lambda: 1 << 30))), Found)


def killed_by_the_first(folder: Path) -> str:
    """What a start leaves whose first made-up input kills it: asked of a process that ends in the middle of it."""
    code = (
        "import os, sys; from pathlib import Path; "
        "import onnx_operator.server.runtime.attempts as attempts; "
        "attempts.run_within = lambda *_: os._exit(137); "
        "from onnx_operator.server.runtime.finding import Sources, find_input; "
        "from onnx_operator.server.runtime.session import SessionSettings, load; "
        "find_input(load(Path(sys.argv[1]), SessionSettings()), Sources(attempts=attempts.Attempts(Path(sys.argv[2]))))"
    )
    model = folder / "model.onnx"
    model.write_bytes(identity(shape=("N", "L")))
    assert subprocess.run([sys.executable, "-c", code, model, folder], timeout=60).returncode == 137
    return (folder / STATE_FILE).read_text()


def test_what_killed_the_process_twice_is_not_tried_again(tmp_path: Path) -> None:
    killed_by_the_first(tmp_path)
    noted = json.loads(killed_by_the_first(tmp_path))
    assert [times for _, times in noted.values()] == [2]
    found = find_input(load_bytes(identity(shape=("N", "L"))), Sources(attempts=Attempts(tmp_path)))
    assert isinstance(found, Found)
    assert found.feed["x"].nbytes >= 64 * next(iter(noted.values()))[0], "small ones of about its size may kill as well"
    assert json.loads((tmp_path / STATE_FILE).read_text()) == noted


def test_one_start_that_was_interrupted_says_nothing_of_the_input_that_ran(tmp_path: Path) -> None:
    """The node was restarted, or somebody stopped waiting: with no other input the model could never start again."""
    for _ in range(3):
        killed_by_the_first(tmp_path)
        found = find_input(load_bytes(identity(shape=("N", "L"))), Sources(required=True, attempts=Attempts(tmp_path)))
        assert isinstance(found, Found)
        assert found.feed["x"].shape == (1, 1)
        assert json.loads((tmp_path / STATE_FILE).read_text()) == {}, "it was answered, and so has killed nothing"


def test_an_input_that_runs_on_after_its_time_may_still_kill_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr("onnx_operator.server.runtime.attempts.run_once", lambda *_: go_on.wait(60))
    monkeypatch.setattr("onnx_operator.server.runtime.attempts._GRACE_SECONDS", 0.1)
    attempts = Attempts(tmp_path, seconds=0.1)
    with pytest.raises(OutOfTimeError):
        attempts.run(None, {}, "slow", 8)
    attempts.note(MEASURING, 0)
    attempts.forget(MEASURING)
    assert json.loads((tmp_path / STATE_FILE).read_text()) == {"slow": [8, 1]}
    go_on.set()
    for _ in range(100):
        if json.loads((tmp_path / STATE_FILE).read_text()) == {}:
            break
        threading.Event().wait(0.1)
    else:
        pytest.fail("it ended, and is still said to have killed the process")


def test_after_a_small_one_killed_only_far_larger_ones_are_tried() -> None:
    """Kernels that divide by a size of nothing do so below some length."""
    attempts = Attempts()
    attempts.ended = {"a": (32, 2)}
    assert attempts.forbids("b", 64, open_sizes=True)
    assert not attempts.forbids("b", 64 * 32, open_sizes=True)
    assert not attempts.forbids("b", 32, open_sizes=False), "where no size is guessed it was a value"


def test_after_a_large_one_killed_no_larger_one_is_tried() -> None:
    attempts = Attempts(free=lambda: None)
    attempts.ended = {"a": (8 << 20, 2)}
    assert attempts.forbids("b", 9 << 20, open_sizes=True)
    assert not attempts.forbids("b", 1 << 20, open_sizes=True)
    attempts.ended = {"a": (8 << 20, 1)}
    assert not attempts.forbids("b", 9 << 20, open_sizes=True), "once it may have been anything"


def test_after_several_kills_the_search_is_given_up_and_the_model_serves(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_text(json.dumps({"a": [1, 2], "b": [2, 1]}))
    with serving(linear(), "--state-directory", str(tmp_path), ready=False) as process:
        facts = process.started()
        assert facts["warmUp"]["warmed"] is False
        assert "3 killed the process" in facts["warmUp"]["message"]
        assert process.post("/score", {"data": [[1, 0, 0, 0]]}).status == 200


def test_kills_while_it_is_measured_cost_the_batches_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnx_operator.server.runtime.warmup._measured", lambda *_, **__: pytest.fail("measured"))
    (tmp_path / STATE_FILE).write_text(json.dumps({MEASURING: [0, 2]}))
    found = warm_up(load_bytes(linear()), 8, sources=Sources(attempts=Attempts(tmp_path)))
    assert (found.warmed, found.batchable) == (True, False)
    assert "measuring it killed the process" in found.reason
    assert found.feed, "requests are answered as before"


def test_one_kill_while_it_is_measured_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_text(json.dumps({MEASURING: [0, 1]}))
    assert warm_up(load_bytes(linear()), 8, sources=Sources(attempts=Attempts(tmp_path))).batchable
    assert json.loads((tmp_path / STATE_FILE).read_text()) == {}


@pytest.mark.parametrize("given", [True, False])
def test_a_kill_by_an_input_that_somebody_gave_is_told_as_any_other(tmp_path: Path, given: bool) -> None:
    told: list[bool] = []
    inputs = WarmUpInputs(shapes={"X": [1, 4]}, values={"X": [1]}) if given else None
    warm_up(load_bytes(linear()), 8, sources=Sources(given=inputs, attempts=Attempts(tmp_path, told.append)))
    assert (True in told) != given
    assert not told[-1]


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{", "null", "x" * (1 << 17), "[" * 60_000),
        *('{"a": "x"}', '{"a": 8}', '{"a": [8]}', '{"a": [1e999, 2]}', '{"a": [-1, 2]}', '{"a": [8, true]}'),
        *('{"a": [8, 0]}', '{"a": [8, 4294967296]}', '{"a": [8, 2, 2]}', '{"a": [8, 2], "b": null}'),
    ],
)
def test_notes_that_somebody_spoilt_count_for_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / STATE_FILE).write_text(content)
    assert Attempts(tmp_path).ended == {}


def test_what_is_no_file_is_neither_read_nor_written_through(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    other = tmp_path / "other"
    other.write_text(json.dumps({"a": [1, 2], "b": [2, 1]}))
    for target in (tmp_path / "pipe", other):
        state = tmp_path / ("state-of-" + target.name)
        state.mkdir()
        (state / STATE_FILE).symlink_to(target)
        attempts = Attempts(state)
        assert attempts.ended == {}
        attempts.note("mine", 8)
        assert json.loads((state / STATE_FILE).read_text()) == {"mine": [8, 1]}
    assert json.loads(other.read_text()) == {"a": [1, 2], "b": [2, 1]}


def test_further_processes_heed_what_killed_and_note_nothing(tmp_path: Path) -> None:
    noted = killed_by_the_first(tmp_path)
    attempts = Attempts(tmp_path, record=False)
    assert attempts.kills == 1
    assert isinstance(find_input(load_bytes(identity(shape=("N", "L"))), Sources(attempts=attempts)), Found)
    assert (tmp_path / STATE_FILE).read_text() == noted


def test_the_pod_tells_while_a_made_up_input_runs(tmp_path: Path) -> None:
    told: list[Any] = []
    find_input(load_bytes(linear()), Sources(attempts=Attempts(tmp_path, told.append)))
    assert told == [True, False]


def test_a_pod_that_cannot_note_what_runs_does_not_say_that_its_next_start_will_know(tmp_path: Path) -> None:
    """The kill would be repeated for ever, and never be told as what it is."""
    (tmp_path / "file").write_text("")
    told: list[Any] = []
    find_input(load_bytes(linear()), Sources(attempts=Attempts(tmp_path / "file", told.append)))
    assert True not in told
