"""A headless Chromium, the system's, for tests that look at pages; where there is none, they skip visibly."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def browser() -> Iterator[Any]:
    """Yield a browser of playwright. Its own sandbox needs rights that root and containers do not give it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        shown = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield shown
        finally:
            shown.close()


@contextmanager
def watched(shown: Any, url: str, **context: Any) -> Iterator[tuple[Any, list[str], list[str]]]:
    """Yield a page at ``url``, what it said that it should not, and every address that it asked for besides its own data."""
    said: list[str] = []
    asked: list[str] = []
    with shown.new_context(**context) as place:
        page = place.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith("data:") else asked.append(request.url))
        page.goto(url)
        yield page, said, asked


def keep(page: Any, name: str) -> bytes:
    """Return a screenshot of the whole page; with ``DAILIES_SCREENSHOTS`` set to a folder it is kept there too."""
    picture: bytes = page.screenshot(full_page=True)
    if folder := os.environ.get("DAILIES_SCREENSHOTS"):
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"{name}.png"), "wb") as file:
            file.write(picture)
    return picture
