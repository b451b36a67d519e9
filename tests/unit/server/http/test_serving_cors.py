"""Web pages of other origins: those that are named may ask and read the answers, any others may not read them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from onnx_operator.api.origins import read_azure_origins, read_origin
from onnx_operator.server.http.cors import CrossOrigin
from tests.unit.server.serving import Answer, Process, identity, serving

BODY = b'{"data": [1, 2, 3]}'
APP = "https://app.example"
PREFLIGHT = {
    "Access_Control_Request_Method": "POST",
    "Access_Control_Request_Headers": "authorization,content-type,x-mine",
}
ALLOWED = "access-control-allow-origin"


def ask_first(process: Process, origin: str, path: str = "/score") -> Answer:
    return process.request("OPTIONS", path, Origin=origin, **PREFLIGHT)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("s3cret")
    options = ("--cors-allow-origin", APP, "--cors-allow-origin", "http://localhost:3000", "--token-file", str(token))
    with serving(identity(), *options) as process:
        yield process


@pytest.mark.parametrize("origin", [APP, "http://localhost:3000"])
@pytest.mark.parametrize("path", ["/score", "/v2/models/m/infer"])
def test_a_browser_that_asks_first_is_told_that_the_page_may(server: Process, path: str, origin: str) -> None:
    answer = ask_first(server, origin, path)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers[ALLOWED] == origin
    assert answer.headers["access-control-allow-methods"] == "POST"
    # The token goes in a header, which the page may send.
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type,x-mine"
    assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-credentials" not in answer.headers


def test_the_page_reads_answers_and_errors(server: Process) -> None:
    for status, sent in ((200, BODY), (400, b"{")):
        answer = server.post("/score", sent, Origin=APP, Authorization="Bearer s3cret")
        assert answer.status == status
        assert answer.headers[ALLOWED] == APP
        assert "Inference-Header-Content-Length" in answer.headers["access-control-expose-headers"]
    refused = server.post("/score", BODY, Origin=APP)
    assert (refused.status, refused.headers[ALLOWED]) == (401, APP)
    assert server.request("GET", "/v2/models/m", Origin=APP, Authorization="Bearer s3cret").headers[ALLOWED] == APP


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://app.example",
        "https://app.example.evil.example",
        "https://app.example:444",
        "null",
    ],
)
def test_no_other_page_is_told_so(server: Process, origin: str) -> None:
    assert ALLOWED not in ask_first(server, origin).headers
    answer = server.post("/score", BODY, Origin=origin, Authorization="Bearer s3cret")
    assert ALLOWED not in answer.headers
    # A cache must not give it the answer that was made for another page, nor the other way round.
    assert "Origin" in answer.headers["vary"]
    assert "Origin" in server.post("/score", BODY, Authorization="Bearer s3cret").headers["vary"]


def test_what_only_looks_like_a_browsers_question_is_no_way_around_the_token(server: Process) -> None:
    assert server.request("OPTIONS", "/score", Origin=APP).status == 401
    assert ask_first(server, APP, "/nowhere").status == 401
    assert server.request("POST", "/score", BODY, Origin=APP, **PREFLIGHT).status == 401
    odd = server.request(
        "OPTIONS",
        "/score",
        Origin=APP,
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="a b; c",
    )
    assert odd.status == 200
    assert "access-control-allow-headers" not in odd.headers


def test_without_the_setting_nothing_is_said() -> None:
    with serving(identity()) as process:
        assert ask_first(process, APP).status == 405
        answer = process.post("/score", BODY, Origin=APP)
        assert ALLOWED not in answer.headers
        assert "vary" not in answer.headers


def test_any_origin_may_be_allowed_and_then_none_is_named() -> None:
    with serving(identity(), "--cors-allow-origin", "*") as process:
        for answer in (ask_first(process, "null"), process.post("/score", BODY, Origin=APP)):
            assert answer.headers[ALLOWED] == "*"
            assert "access-control-allow-credentials" not in answer.headers
            assert "Origin" not in answer.headers.get("vary", "").split(", ")


def test_a_server_on_ones_own_machine_lets_the_named_pages_in() -> None:
    with serving(identity(), "--allowed-host", "m.example", "--cors-allow-origin", APP) as process:
        assert ask_first(process, APP).headers[ALLOWED] == APP
        assert process.post("/score", BODY, Origin=APP).headers[ALLOWED] == APP
        assert process.post("/score", BODY, Origin="https://evil.example").status == 403


SCRIPT = """
from azureml.contrib.services.aml_request import rawhttp
from azureml.contrib.services.aml_response import AMLResponse

def init(): pass

@rawhttp
def run(request):
    answer = AMLResponse("done", 200, {"X-Mine": "kept"})
    if request.get_data() == b"own":
        answer.headers["Access-Control-Allow-Origin"] = "https://own.example"
        answer.headers["access-control-allow-credentials"] = "true"
        answer.headers["Access-Control-Expose-Headers"] = "X-Mine"
    return answer
"""


def test_azures_variable_counts_beside_a_script_and_has_the_last_word(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text(SCRIPT)
    variables = {"AML_CORS_ORIGINS": "www.app.example, https://other.example,no origin"}
    with serving(identity(), "--script", str(tmp_path), variables=variables) as process:
        for origin in ("https://www.app.example", "http://www.app.example", "https://other.example"):
            assert ask_first(process, origin).headers[ALLOWED] == origin
            assert process.post("/score", b"x", Origin=origin).headers[ALLOWED] == origin
        assert ALLOWED not in process.post("/score", b"x", Origin=APP).headers
        for origin, allowed in (("https://other.example", "https://other.example"), (APP, None)):
            answer = process.post("/score", b"own", Origin=origin)
            assert answer.headers.get(ALLOWED) == allowed
            assert "access-control-allow-credentials" not in answer.headers
            assert "X-Mine" not in answer.headers.get("access-control-expose-headers", "")
            assert answer.headers["x-mine"] == "kept"
        # Other questions are the script's, as they were.
        assert process.request("OPTIONS", "/score").status == 200
    assert [entry for entry in process.log if "'no origin' is not an origin" in entry["message"]]


def test_without_the_setting_a_script_says_itself_which_pages_may_ask(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text(SCRIPT)
    with serving(identity(), "--script", str(tmp_path)) as process:
        answer = process.post("/score", b"own", Origin=APP)
        assert answer.headers[ALLOWED] == "https://own.example"
        assert answer.headers["access-control-allow-credentials"] == "true"


def test_azures_variable_counts_for_a_model_too() -> None:
    with serving(identity(), variables={"AML_CORS_ORIGINS": "*"}) as process:
        assert process.post("/score", BODY, Origin=APP).headers[ALLOWED] == "*"


@pytest.mark.parametrize(
    "text", ["https://app.example/", "app.example", "https://", "https://a b", "https://a@b", "**"]
)
def test_what_is_no_origin_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected \* or such as https://app\.example\.com"):
        read_origin(text)


def test_origins_are_written_as_browsers_do() -> None:
    assert read_origin("HTTPS://App.example:443") == "https://app.example"
    assert read_origin("http://app.example:443") == "http://app.example:443"
    assert read_origin("http://[::1]:80") == "http://[::1]"
    assert read_origin("capacitor://localhost") == "capacitor://localhost"
    assert read_azure_origins("*") == (["*"], [])
    assert read_azure_origins(" , ,") == ([], [])


def test_no_line_can_be_smuggled_into_an_answer() -> None:
    check = CrossOrigin(["*"])
    assert b"\n" not in check.lines({b"origin": b"x\r\nSet-Cookie: a"}).replace(b"\r\n", b"")
    asked = {b"access-control-request-method": b"POST", b"access-control-request-headers": b"a\r\nb"}
    assert b"Allow-Headers" not in (check.preflight(b"OPTIONS", asked, [b"POST"]) or b"")
