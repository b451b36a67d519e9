"""What models, stores, files and clusters say cannot steer a terminal, hide a line of a table, or forge one."""

import io
import json
import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import Phase, TerminationMessage
from onnx_operator.api.report import InspectionResult, Refusal, shorten
from onnx_operator.cli import output, predict, tables
from onnx_operator.cli.__main__ import main
from onnx_operator.common.logs import JsonFormatter, PlainFormatter
from onnx_operator.common.text import visible, visible_json
from onnx_operator.model.comparison import Change
from tests.security.fuzzing import mutated
from tests.unit.controller.samples import report

EVIL = (
    "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b31m\r\b\x7f\u202eevil\u2066\u2069\u200b\u200e\u061c\u2028\u2029\ufeff\u00ad"
    "\u3164\U000e0041[red]x[/red][link=https://evil.example]y[/link]:boom:"
)
BACKSLASHED = r"\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b31m\r\x08\x7f\u202eevil\u2066"
FORBIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def assert_safe(printed: str) -> None:
    bad = {c for c in printed if unicodedata.category(c) in FORBIDDEN and c not in "\n\t"}
    assert not bad, f"{bad!r} in {printed!r:.500}"


@pytest.fixture(scope="module")
def evil_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every text of a model that can be chosen is hostile; ONNX Runtime takes it."""
    value = helper.make_tensor_value_info(EVIL, TensorProto.FLOAT, (EVIL, 2))
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, (EVIL, 2))
    graph = helper.make_graph(
        [helper.make_node("Relu", [EVIL], ["y"], name=EVIL, doc_string=EVIL)], EVIL, [value], [answer]
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=EVIL, doc_string=EVIL)
    entry = model.metadata_props.add()
    entry.key = entry.value = EVIL
    path = tmp_path_factory.mktemp("evil") / f"m{EVIL.replace('/', '')[:40]}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def run(evil_model: Path):
    return lambda *arguments: CliRunner().invoke(main, [*map(str, arguments)])


def test_a_hostile_model_is_described_in_harmless_text(evil_model: Path, run) -> None:
    renamed = evil_model.with_name("plain.onnx")
    renamed.write_bytes(evil_model.read_bytes())
    done = run("inspect", renamed)
    assert done.exit_code == 0, done.output
    assert_safe(done.output)
    assert done.output.count(BACKSLASHED) >= 3
    # Markup is text, and shown as it is.
    assert "[red]x[/red][link=https://evil.example]y[/link]:boom:" in done.output


def test_programs_get_text_that_is_safe_to_look_at_and_json_all_the_same(evil_model: Path, run) -> None:
    done = run("inspect", evil_model.with_name("plain.onnx"), "--output", "json")
    assert done.exit_code == 0, done.output
    assert_safe(done.output)
    assert json.loads(done.output)["producer"].startswith(BACKSLASHED)


def test_a_hostile_file_name_is_refused_or_named_harmlessly(evil_model: Path, run) -> None:
    for arguments in ((evil_model,), (evil_model, "--output", "json")):
        done = run("inspect", *arguments)
        assert done.exit_code == 2, done.output
        assert_safe(done.output)


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", EVIL.replace("\0", "")),
        ("inspect", f"https://{EVIL}/x"),
        ("inspect", "\udcff\udcfe.onnx", "--output", "json"),
        ("inspect", "x", f"--{EVIL}"),
        ("inspect", "x", "--sha256", EVIL),
        ("inspect", "x", "--output", EVIL),
        ("inspect", "x", "--allow-network", EVIL),
        (EVIL,),
        ("serve", f"{EVIL.replace('/', '')}.yaml"),
        ("predict", "x", "--endpoint", EVIL, "--data", "{}"),
        ("predict", "x", "--input", EVIL),
    ],
)
def test_errors_repeat_what_they_were_given_harmlessly(run, arguments) -> None:
    done = run(*arguments)
    assert done.exit_code in (1, 2), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert_safe(done.output)


def test_a_manifest_of_somebody_else_is_told_of_harmlessly(run, tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(json.dumps({"kind": "OnnxModel", "spec": {"model": {"uri": 1}, EVIL: 1, "runtime": EVIL}}))
    done = run("serve", path)
    assert done.exit_code == 1
    assert_safe(done.output)


@pytest.mark.parametrize("width", [4096, 80, 20])
@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_that_is_handed_to_the_printer_steers_the_terminal(width: int, terminal: bool) -> None:
    """Also what a table forgot to write out: rich's own styles are all that is left of escape sequences."""
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table(EVIL, title=EVIL, caption=EVIL)
    table.add_row(EVIL)
    found = InspectionResult(
        outcome="Refused", refusal=Refusal(reason=Reason.NOT_ONNX, message=EVIL), source=None, report=None
    )
    text = io.StringIO()
    console = output.console(file=text, width=width, force_terminal=terminal, color_system=None)
    for each in (EVIL, Text(EVIL), table, Panel(EVIL, title=EVIL), tables.refusal(EVIL, found, False)):
        console.print(each)
    console.print(tables.changes([Change(EVIL, breaking=True)], [(EVIL, EVIL, EVIL)]))
    accepted = InspectionResult(outcome="Accepted", report=report(producer=EVIL, notes=[EVIL]), interface=EVIL)
    console.print(tables.report(EVIL, accepted))
    assert_safe(text.getvalue())
    assert "[red]" in text.getvalue() or width == 20


@pytest.mark.parametrize(
    "answer",
    [
        {"outputs": [{"name": EVIL, "datatype": EVIL, "shape": [1, 1], "data": [EVIL]}]},
        {EVIL: EVIL},
        {"outputs": [{"name": EVIL, "datatype": "FP32", "shape": [1, 7], "data": [1.0] * 7}]},
    ],
)
def test_answers_of_a_server_are_shown_harmlessly(answer, capsys) -> None:
    predict.show(answer)
    assert_safe(capsys.readouterr().out)


@pytest.mark.parametrize(
    "answer",
    [
        {"outputs": [None]},
        {"outputs": [{}]},
        {"outputs": [{"name": "y", "datatype": "x", "shape": 7, "data": 7}]},
        {"outputs": [{"name": "y", "datatype": "x", "shape": [{}], "data": [1]}]},
        {"outputs": [{"name": "y", "datatype": "x", "shape": ["a"], "data": [1]}]},
    ],
)
def test_an_answer_that_is_none_of_the_protocol_is_an_error_in_words(answer) -> None:
    with pytest.raises(predict.PredictionError, match="Open Inference Protocol"):
        predict.show(answer)


def test_a_status_and_its_events_are_safe_for_kubectl_describe() -> None:
    """Conditions, failures and reports are all shortened before they are written."""
    assert_safe(shorten(EVIL, 4096))
    assert "\n" not in shorten("Ready\nStatus: True", 4096)
    assert_safe(report(producer=EVIL, notes=[EVIL], metadata={EVIL: EVIL}).bounded().model_dump_json())
    assert len(shorten(EVIL * 1000, 256)) <= 256


def test_a_termination_message_is_safe_for_kubectl_describe_and_says_what_it_said() -> None:
    message = TerminationMessage(phase=Phase.LOADING, reason=Reason.LOAD_FAILED, message=EVIL.replace("\udcff", ""))
    text = message.to_json()
    assert_safe(text)
    assert TerminationMessage.model_validate_json(text) == message
    long = TerminationMessage(phase=Phase.LOADING, message="\u202e" * 5000).to_json()
    assert len(long.encode()) <= 2048
    assert_safe(long)


def test_logs_are_escaped() -> None:
    import logging

    record = logging.makeLogRecord({"msg": "%s", "args": (EVIL,), "name": EVIL, "levelno": 30, "levelname": "WARNING"})
    assert_safe(JsonFormatter().format(record))
    assert "\n" not in JsonFormatter().format(record)
    assert_safe(PlainFormatter().format(record))


@pytest.mark.fuzz
def test_whatever_is_made_visible_is_safe_and_stays_as_it_is(fuzz) -> None:
    for rng in fuzz(2000):
        text = mutated(rng, EVIL.encode()).decode(errors=rng.choice(["replace", "surrogateescape"]))
        codes = [
            rng.choice([rng.randrange(0x300), rng.randrange(0x2000, 0x2100), rng.randrange(0x110000)]) for _ in range(8)
        ]
        # A high surrogate before a low one is another text than its JSON.
        text += "".join(chr(code) for code in codes if not 0xD800 <= code < 0xDC00)
        once = visible(text)
        assert_safe(once.replace("\n", "\0"))
        assert visible(once) == once
        lines = visible(text, lines=True)
        assert lines.count("\n") == text.count("\n")
        assert_safe(lines)
        document = json.dumps({"a": text}, ensure_ascii=False)
        assert_safe(visible_json(document))
        assert json.loads(visible_json(document)) == {"a": text}
        once.encode()
