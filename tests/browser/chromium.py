"""A real browser without a window, driven by Playwright: Debian's Chromium, installed where it is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import Browser, Page, Request, sync_playwright

from tests.cluster.servers import debian_program

LONG_AFTER = "2028-11-25T12:00:00Z"


def chromium() -> str:
    """The path of the browser."""
    return shutil.which("google-chrome") or debian_program("chromium", "chromium")


@contextmanager
def browser() -> Iterator[Browser]:
    """The browser, until the context ends."""
    with sync_playwright() as playwright:
        # The container that tests run in is the sandbox; Chromium's own wants more than root has there.
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


@contextmanager
def entering(started: Browser, url: str, token: str) -> Iterator[Page]:
    """Open a page that wants a token, and give it one."""
    context = started.new_context()
    try:
        page = context.new_page()
        page.goto(url)
        page.get_by_label("Token").fill(token)
        page.get_by_label("Token").press("Tab")
        page.wait_for_selector("#tensors tr")
        yield page
    finally:
        context.close()


@dataclass
class Watched:
    """A page, and everything that it asked for or complained of."""

    page: Page
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@contextmanager
def visiting(started: Browser, url: str, *, later: bool = False, **options: object) -> Iterator[Watched]:
    """Open a page in a fresh profile; with ``later`` its clock is years ahead."""
    context = started.new_context(**options)  # type: ignore[arg-type]
    try:
        page = context.new_page()
        watched = Watched(page)
        context.on("request", lambda request: watched.requests.append(request))
        page.on("console", lambda said: watched.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: watched.complaints.append(str(error)))
        if later:
            page.clock.set_fixed_time(LONG_AFTER)
        page.goto(url)
        page.wait_for_selector("#tensors tr")
        yield watched
    finally:
        context.close()
