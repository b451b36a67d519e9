"""A line of any process's log is one JSON object, with the same words for the same things."""

import json
import logging
import subprocess
import sys

import pytest

from onnx_operator.common.logs import JsonFormatter, PlainFormatter


def record(message: str, *, failed: bool = False, **extra: object) -> logging.LogRecord:
    error = None
    if failed:
        try:
            raise ValueError("worn out")
        except ValueError:
            error = sys.exc_info()
    return logging.getLogger("a.part").makeRecord(
        "a.part", logging.WARNING, __file__, 1, message, (), error, extra=extra
    )


def test_a_line_tells_when_how_bad_by_whom_and_what() -> None:
    line = json.loads(JsonFormatter().format(record("it broke", failed=True)))

    assert list(line) == ["time", "level", "logger", "message", "traceback"]
    assert line["time"].endswith("Z")
    assert (line["level"], line["logger"], line["message"]) == ("warning", "a.part", "it broke")
    assert "ValueError: worn out" in line["traceback"]


@pytest.mark.parametrize("extra", [{"bytes": 3}, {"fields": {"bytes": 3}}], ids=["beside", "in fields"])
def test_what_goes_with_a_message_stands_beside_it(extra: dict) -> None:
    made = record("read", **extra)

    assert json.loads(JsonFormatter().format(made))["bytes"] == 3
    assert PlainFormatter().format(made).endswith("read bytes=3")


@pytest.mark.parametrize(("ends", "lines"), [("sys.exit(3)", 0), ("1 / 0", 1)], ids=["by itself", "by a fault"])
def test_a_thread_that_ends_itself_is_no_fault_and_one_that_breaks_is(ends: str, lines: int) -> None:
    code = "import sys, threading; from onnx_operator.common import logs; logs.configure()\n"
    code += f"def work():\n    {ends}\nthread = threading.Thread(target=work); thread.start(); thread.join()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in told] == ["critical"] * lines
