"""A web page of another origin asks the endpoint, in a browser that holds it to the rules."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import browser
from tests.unit.server.serving import Process, identity, serving

ASK = """async ([url, headers]) => {
    try {
        const answer = await fetch(url, {method: "POST", headers, body: '{"data": [1, 2]}'});
        return [answer.status, await answer.text()];
    } catch (error) {
        return [0, String(error)];
    }
}"""
JSON = {"Content-Type": "application/json", "X-Mine": "a"}


class Blank(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><link rel=icon href=data:,><title>app</title>")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def app() -> Iterator[str]:
    """The origin of the page."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Blank) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def ask(chromium: Browser, app: str, process: Process, headers: dict[str, str]) -> tuple[int, str]:
    page = chromium.new_page()
    try:
        page.goto(app)
        status, text = page.evaluate(ASK, [f"http://127.0.0.1:{process.port}/score", headers])
    finally:
        page.close()
    return status, text


def test_a_page_that_is_allowed_scores_and_reads_the_answer(chromium: Browser, app: str) -> None:
    for origin in (app, "*"):
        with serving(identity(), "--cors-allow-origin", origin) as process:
            for headers in (JSON, {}):
                assert ask(chromium, app, process, headers) == (200, '{"y":[1.0,2.0]}')


def test_the_browser_keeps_answers_from_any_other_page(chromium: Browser, app: str) -> None:
    with serving(identity(), "--cors-allow-origin", "https://app.example") as process:
        for headers in (JSON, {}):
            status, text = ask(chromium, app, process, headers)
            assert status == 0
            assert "Failed to fetch" in text
