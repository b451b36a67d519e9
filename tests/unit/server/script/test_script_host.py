"""A score.py runs in a process of its own, and nothing it does reaches the server."""

import asyncio
import json
import logging
import os
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnx_operator.server import plugins
from onnx_operator.server.script.answers import ScriptAnswer
from onnx_operator.server.script.host import ScriptHost
from onnx_operator.server.script.settings import ScriptError, ScriptSettings
from tests.unit.server.serving import linear

JSON = [("Content-Type", "application/json")]


def write(folder: Path, text: str, name: str = "score.py") -> ScriptSettings:
    models, scoring = folder / "models", folder / "scoring"
    models.mkdir(exist_ok=True)
    scoring.mkdir(exist_ok=True)
    (scoring / name).write_text(textwrap.dedent(text))
    return ScriptSettings(scoring, models, first_restart_delay=0.05)


@asynccontextmanager
async def hosting(settings: ScriptSettings) -> AsyncIterator[ScriptHost]:
    host = ScriptHost(settings)
    await host.start()
    try:
        yield host
    finally:
        await host.stop()


async def ask(host: ScriptHost, body: Any = None, seconds: float = 30) -> ScriptAnswer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await host.score(content, JSON, seconds=seconds)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def said(answer: ScriptAnswer) -> str:
    return str(json.loads(answer.body)["error"])


async def test_a_script_of_2018_just_runs(tmp_path: Path) -> None:
    settings = write(
        tmp_path,
        """
        import json
        import numpy as np
        import onnxruntime
        from azureml.core.model import Model

        LABELS = ["setosa", "versicolor", "virginica"]

        def init():
            global session, input_name, output_name
            path = Model.get_model_path('iris')
            session = onnxruntime.InferenceSession(path, None)
            input_name = session.get_inputs()[0].name
            output_name = session.get_outputs()[1].name

        def softmax(x):
            e = np.exp(x - np.max(x, axis=1, keepdims=True))
            return e / e.sum(axis=1, keepdims=True)

        def run(raw_data):
            try:
                data = np.array(json.loads(raw_data)['data']).astype('float32')
                scores = softmax(session.run([output_name], {input_name: data})[0])
                return json.dumps({"label": LABELS[int(np.argmax(scores))], "scores": scores.tolist()})
            except Exception as e:
                return json.dumps({"error": str(e)})
        """,
    )
    (tmp_path / "models" / "model.onnx").write_bytes(linear())
    async with hosting(settings) as host:
        answer = await ask(host, {"data": [[1, 0, 0, 0]]})
    assert answer.status == 200
    # As on Azure ML: the text that run() made is itself sent as JSON, and its clients decode it twice.
    result = json.loads(json.loads(answer.body))
    assert result["label"] == "virginica"
    assert sum(result["scores"][0]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("expression", "body", "kind"),
    [
        ("{'a': [1, 2.5, None]}", b'{"a": [1, 2.5, null]}', "application/json"),
        ("'text'", b'"text"', "application/json"),
        ("3", b"3", "application/json"),
        ("np.arange(4, dtype='int8').reshape(2, 2)", b"[[0, 1], [2, 3]]", "application/json"),
        ("{'p': np.float32(0.5)}", b'{"p": 0.5}', "application/json"),
        ("b'\\x00\\xff'", b"\x00\xff", "application/octet-stream"),
    ],
)
async def test_what_run_returns_becomes_the_answer(tmp_path: Path, expression: str, body: bytes, kind: str) -> None:
    settings = write(tmp_path, f"import numpy as np\ndef init(): pass\ndef run(raw_data): return {expression}\n")
    async with hosting(settings) as host:
        answer = await ask(host)
    assert (answer.status, answer.body) == (200, body)
    assert dict(answer.headers)["Content-Type"] == kind


async def test_an_exception_is_a_500_with_its_message_and_a_traceback_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = write(tmp_path, "def init(): pass\ndef run(raw_data):\n    raise KeyError('no such label')\n")
    async with hosting(settings) as host:
        answers = [await ask(host) for _ in range(3)]
        assert host.restarts == 0
    assert [answer.status for answer in answers] == [500] * 3
    assert said(answers[0]) == "KeyError: 'no such label'"
    record = next(record for record in caplog.records if record.levelno == logging.ERROR)
    fields: dict[str, str] = getattr(record, "fields", {})
    assert fields["line"] == "score.py, line 3"
    assert "Traceback" in fields["traceback"]


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("os._exit(3)", "the script ended its process with exit code 3"),
        ("os.kill(os.getpid(), 9)", "the script's process was ended by SIGKILL"),
        ("ctypes.string_at(0)", "the script's process was ended by SIGSEGV"),
        ("os.closerange(3, 100)", "the script ended its process with exit code"),
        ("tell(b'garbage' * 9)", "the script wrote into the server's channel"),
        ("tell(frame(b'[' * 50_000))", "the script wrote into the server's channel"),
        ("tell(frame(answer(b'1e999')))", "the script wrote into the server's channel"),
    ],
)
async def test_a_crash_fails_its_own_request_and_the_script_comes_back(
    tmp_path: Path, ending: str, message: str
) -> None:
    settings = write(
        tmp_path,
        f"""
        import ctypes, os, stat, struct
        def frame(header):
            return struct.pack(">IQ", len(header), 0) + header
        def answer(status, seconds=b"0"):
            return b'{{"kind": "answer", "headers": [["a", 1]], "status": %b, "seconds": %b}}' % (status, seconds)
        def tell(text):
            for fd in sockets():
                os.write(fd, text)
        def sockets():
            return [fd for fd in range(3, 50) if os.path.exists(f"/proc/self/fd/{{fd}}")
                    and stat.S_ISSOCK(os.fstat(fd).st_mode)]
        def init(): pass
        def run(raw_data):
            if raw_data == '"die"':
                {ending}
            return os.getpid()
        """,
    )
    async with hosting(settings) as host:
        before = json.loads((await ask(host)).body)
        answer = await ask(host, "die")
        assert answer.status == 502
        assert message in said(answer)
        await until(lambda: host.ready)
        after = json.loads((await ask(host)).body)
    assert before != after
    assert host.restarts == 1


@pytest.mark.parametrize("ending", ["sys.exit(4)", "raise KeyboardInterrupt", "quit()"])
async def test_what_ends_a_program_ends_a_request_only(tmp_path: Path, ending: str) -> None:
    settings = write(tmp_path, f"import sys\ndef init(): pass\ndef run(raw_data):\n    {ending}\n")
    async with hosting(settings) as host:
        assert (await ask(host)).status == 500
        assert host.restarts == 0


@pytest.mark.parametrize(
    "loop",
    [
        "while True: pass",
        # Holds the interpreter's lock in C code: no signal handler of Python's would ever run.
        "import ctypes; ctypes.PyDLL(None).pause()",
        "import signal, time; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64)); time.sleep(3600)",
    ],
)
async def test_a_hang_is_ended_after_the_time_of_a_request(tmp_path: Path, loop: str) -> None:
    settings = write(tmp_path, f"def init(): pass\ndef run(raw_data):\n    if raw_data == '1':\n        {loop}\n")
    async with hosting(settings) as host:
        answer = await ask(host, 1, seconds=0.3)
        assert answer.status == 504
        assert said(answer) == "run() did not return in 0.3 s"
        await until(lambda: host.restarts == 1 and host.ready)
        assert (await ask(host, 2)).status == 200


async def test_while_the_script_restarts_callers_are_told_when_to_come_back(tmp_path: Path) -> None:
    settings = write(
        tmp_path,
        """
        import os, pathlib, time
        marker = pathlib.Path(__file__).with_suffix(".started")
        def init():
            if marker.exists():
                raise RuntimeError("the second start fails")
            marker.touch()
        def run(raw_data):
            os._exit(1)
        """,
    )
    async with hosting(replace(settings, first_restart_delay=30)) as host:
        assert (await ask(host)).status == 502
        await until(lambda: host.restarts == 1 and "second start" in host._last_failure)
        assert not host.ready
        answer = await ask(host)
    assert answer.status == 503
    assert int(dict(answer.headers)["Retry-After"]) >= 1
    assert "RuntimeError: the second start fails (score.py, line 6)" in said(answer)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package' (score.py, line 1)"),
        ("def init(:\n", "SyntaxError"),
        (
            "def init():\n    raise ValueError('bad weights')\ndef run(d): pass",
            "ValueError: bad weights (score.py, line 2)",
        ),
        ("def init(): pass\n", "score.py has no function run()"),
        ("def run(d): pass\n", "score.py has no function init()"),
        ("def init(): pass\ndef run(): pass\n", "run() takes no data"),
        ("def init(): pass\ndef run(*d): pass\n", "run() has the parameter *d"),
        ("import os\nos._exit(9)\n", "ended its process with exit code 9"),
        ("import sys\nsys.exit('gone')\n", "SystemExit: gone (score.py, line 2)"),
        ("import time\ndef init(): time.sleep(999)\ndef run(d): pass\n", "init() did not return in 1 s"),
    ],
)
async def test_a_script_that_cannot_be_used_says_why(tmp_path: Path, text: str, message: str) -> None:
    host = ScriptHost(replace(write(tmp_path, text), init_timeout=1 if "sleep" in text else 60))
    with pytest.raises(ScriptError) as error:
        await host.start()
    assert message in error.value.message
    assert not host.ready


async def test_a_folder_needs_one_script(tmp_path: Path) -> None:
    settings = write(tmp_path, "def init(): pass\ndef run(raw_data): return 1\n", "main.py")
    async with hosting(settings) as host:
        assert (await ask(host)).body == b"1"
    (tmp_path / "scoring" / "other.py").write_text("")
    with pytest.raises(ScriptError, match=r"holds main\.py, other\.py; expected score\.py"):
        await ScriptHost(settings).start()
    with pytest.raises(ScriptError, match="there is no script"):
        await ScriptHost(replace(settings, script=tmp_path / "nothing")).start()


async def test_what_the_script_prints_goes_to_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    settings = write(
        tmp_path,
        """
        import os, sys
        def init(): pass
        def run(raw_data):
            print("hello")
            print("careful", file=sys.stderr)
            os.write(1, b"\\xff\\xfe not text\\n")
            os.system("echo from a program")
            os.write(1, b"x" * 100000 + b"\\n")
            return 1
        """,
    )
    async with hosting(settings) as host:
        assert (await ask(host)).status == 200
    lines = {(r.getMessage()[:20], getattr(r, "fields", {}).get("stream")) for r in caplog.records if r.name == "score"}
    assert {("hello", "stdout"), ("careful", "stderr"), ("\ufffd\ufffd not text", "stdout")} <= lines
    assert ("from a program", "stdout") in lines
    assert max(len(r.getMessage()) for r in caplog.records if r.name == "score") <= 1 << 17
    assert "hello" not in capfd.readouterr().out


async def test_the_script_sees_azures_variables_and_none_of_our_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("ONNX_SERVER_SERVE_TOKEN_FILE", "/token")
    monkeypatch.setenv("THRESHOLD", "0.5")
    settings = write(
        tmp_path, "import os\ndef init(): pass\ndef run(raw_data): return {**os.environ, 'cwd': os.getcwd()}\n"
    )
    with Path(os.devnull).open() as inherited:
        os.set_inheritable(inherited.fileno(), True)
        async with hosting(settings) as host:
            seen = json.loads((await ask(host)).body)
    assert seen["AZUREML_MODEL_DIR"] == str(tmp_path / "models")
    assert seen["AZUREML_ENTRY_SCRIPT"] == "score.py"
    assert seen["cwd"] == str(tmp_path / "scoring")
    assert seen["THRESHOLD"] == "0.5"
    assert "AWS_SECRET_ACCESS_KEY" not in seen
    assert not [name for name in seen if name.startswith("ONNX_")]


@pytest.mark.parametrize(("said", "expected"), [(None, None), ("logfire-plugin", "logfire-plugin")])
async def test_a_script_has_the_pydantic_plugins_that_the_server_starts_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, expected: str | None
) -> None:
    environment = {} if said is None else {"PYDANTIC_DISABLE_PLUGINS": said}
    plugins.keep_out(environment)
    monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", environment["PYDANTIC_DISABLE_PLUGINS"])
    settings = write(tmp_path, "import os\ndef init(): pass\ndef run(raw_data): return dict(os.environ)\n")
    async with hosting(settings) as host:
        seen = json.loads((await ask(host)).body)
    assert seen.get("PYDANTIC_DISABLE_PLUGINS") == expected


async def test_the_script_inherits_no_open_socket_or_file(tmp_path: Path) -> None:
    settings = write(
        tmp_path, "import os\ndef init(): pass\ndef run(raw_data): return sorted(os.listdir('/proc/self/fd'))"
    )
    with Path(os.devnull).open() as inherited:
        os.set_inheritable(inherited.fileno(), True)
        async with hosting(settings) as host:
            names = json.loads((await ask(host)).body)
    # The three standard streams, the channel, and the listing itself.
    assert len(names) == 5


async def test_too_long_an_answer_is_refused_and_nothing_ends(tmp_path: Path) -> None:
    settings = write(tmp_path, "def init(): pass\ndef run(raw_data): return 'x' * int(raw_data)\n")
    async with hosting(replace(settings, max_output_bytes=1000)) as host:
        answer = await ask(host, 5000)
        assert answer.status == 500
        assert said(answer) == "run() returned 5002 bytes, at most 1000 are sent"
        assert (await ask(host, 500)).status == 200
        assert host.restarts == 0


async def test_an_answer_that_is_no_json_names_its_type(tmp_path: Path) -> None:
    async with hosting(write(tmp_path, "def init(): pass\ndef run(raw_data): return {1, 2}\n")) as host:
        answer = await ask(host)
    assert answer.status == 500
    assert said(answer).startswith("run() returned set, which cannot be written as JSON")


async def test_too_much_memory_is_an_error_of_the_request(tmp_path: Path) -> None:
    settings = write(tmp_path, "def init(): pass\ndef run(raw_data): return len(bytearray(int(raw_data)))\n")
    async with hosting(replace(settings, memory_bytes=256 << 20)) as host:
        answer = await ask(host, 1 << 30)
        assert (answer.status, said(answer)) == (500, "MemoryError")
        assert (await ask(host, 10)).body == b"10"


async def test_a_process_that_dies_between_requests_is_replaced(tmp_path: Path) -> None:
    settings = write(
        tmp_path,
        """
        import os, threading
        def init(): pass
        def run(raw_data):
            if raw_data == '1':
                threading.Timer(0.05, os._exit, [7]).start()
            return os.getpid()
        """,
    )
    async with hosting(settings) as host:
        first = json.loads((await ask(host, 1)).body)
        await until(lambda: host.restarts == 1 and host.ready)
        assert json.loads((await ask(host, 2)).body) != first


async def test_requests_are_run_one_at_a_time_in_each_process(tmp_path: Path) -> None:
    settings = write(
        tmp_path,
        """
        import os, time
        busy = False
        def init(): pass
        def run(raw_data):
            global busy
            assert not busy
            busy = True
            time.sleep(0.01)
            busy = False
            return [os.getpid(), int(raw_data)]
        """,
    )
    async with hosting(replace(settings, workers=2)) as host:
        answers = await asyncio.gather(*(ask(host, number) for number in range(40)))
    results = [json.loads(answer.body) for answer in answers]
    assert [number for _, number in results] == list(range(40))
    assert len({pid for pid, _ in results}) == 2


async def test_who_waits_too_long_for_the_script_does_not_end_it(tmp_path: Path) -> None:
    settings = write(tmp_path, "import time\ndef init(): pass\ndef run(raw_data): time.sleep(float(raw_data))\n")
    async with hosting(settings) as host:
        long = asyncio.create_task(ask(host, 1.0))
        await asyncio.sleep(0)
        short = await ask(host, 0, seconds=0.2)
        assert short.status == 504
        assert "busy with other requests" in said(short)
        assert (await long).status == 200
        assert host.restarts == 0


async def test_a_caller_who_leaves_does_not_disturb_the_next(tmp_path: Path) -> None:
    settings = write(
        tmp_path, "import time\ndef init(): pass\ndef run(raw_data):\n    time.sleep(0.3)\n    return raw_data\n"
    )
    async with hosting(settings) as host:
        leaving = asyncio.create_task(ask(host, "first"))
        await asyncio.sleep(0.1)
        leaving.cancel()
        assert json.loads(json.loads((await ask(host, "second")).body)) == "second"
        assert host.restarts == 0


async def test_stopping_lets_the_running_request_finish_and_refuses_others(tmp_path: Path) -> None:
    settings = write(tmp_path, "import time\ndef init(): pass\ndef run(raw_data):\n    time.sleep(0.5)\n    return 1\n")
    host = ScriptHost(settings)
    await host.start()
    running, waiting = asyncio.create_task(ask(host)), asyncio.create_task(ask(host))
    await asyncio.sleep(0.1)
    await host.stop()
    assert (await running).body == b"1"
    assert (await waiting).status == 503
    assert (await ask(host)).status == 503


async def test_threads_and_programs_left_behind_end_with_the_server(tmp_path: Path) -> None:
    settings = write(
        tmp_path,
        """
        import subprocess, threading, time
        def init():
            global left
            left = subprocess.Popen(["sleep", "3600"])
            threading.Thread(target=time.sleep, args=[3600]).start()
        def run(raw_data):
            return left.pid
        """,
    )
    host = ScriptHost(settings)
    await host.start()
    pid = json.loads((await ask(host)).body)
    await host.stop()

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
        except FileNotFoundError:
            return True

    await until(gone)


async def test_a_large_body_arrives_whole(tmp_path: Path) -> None:
    settings = write(tmp_path, "def init(): pass\ndef run(raw_data): return [len(raw_data), raw_data[-3:]]\n")
    async with hosting(settings) as host:
        answer = await ask(host, b"x" * (32 << 20) + b"end")
    assert json.loads(answer.body) == [(32 << 20) + 3, "end"]


async def test_a_body_that_is_no_text_is_refused(tmp_path: Path) -> None:
    async with hosting(write(tmp_path, "def init(): pass\ndef run(raw_data): return 1\n")) as host:
        answer = await ask(host, b"\xff\xd8\xff")
        other = await host.score(b"", [], method="DELETE")
    assert answer.status == 400
    assert "not UTF-8" in said(answer)
    assert other.status == 405


async def test_a_get_hands_its_query_to_run(tmp_path: Path) -> None:
    settings = write(
        tmp_path,
        """
        import json
        def init(): pass
        def run(raw_data, request_headers):
            return [json.loads(raw_data), request_headers["X-A"]]
        """,
    )
    async with hosting(settings) as host:
        answer = await host.score(b"", [("x-a", "b")], method="GET", target="/score?a=1&b=[1,2]&c=x&c=y")
    assert json.loads(answer.body) == [{"a": 1, "b": [1, 2], "c": ["x", "y"]}, "b"]


async def test_modules_beside_the_script_are_its_own_and_never_the_servers(tmp_path: Path) -> None:
    settings = write(
        tmp_path, "import helper, pydantic\ndef init(): pass\ndef run(raw_data): return [helper.N, pydantic.N]\n"
    )
    (tmp_path / "scoring" / "helper.py").write_text("N = 5\n")
    (tmp_path / "scoring" / "pydantic.py").write_text("N = 6\n")
    (tmp_path / "scoring" / "socket.py").write_text("raise SystemExit('shadowed')\n")
    async with hosting(settings) as host:
        assert (await ask(host)).body == b"[5, 6]"


async def test_a_crash_is_answered_at_once_whatever_the_time_limit(tmp_path: Path) -> None:
    settings = write(tmp_path, "import os\ndef init(): pass\ndef run(raw_data): os.abort()\n")
    async with hosting(settings) as host:
        async with asyncio.timeout(60):
            answer = await ask(host, seconds=3600)
        assert "SIGABRT" in said(answer)
