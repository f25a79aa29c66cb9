"""A real headless Chromium with the network off, for the tests and the benchmark of the page."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
READY = "window.Bokeh && Bokeh.index.roots.length > 0 && Bokeh.index.roots.every(view => view.has_finished())"


@contextmanager
def opened(path: Path, **context: Any) -> Iterator[tuple[Any, list[str], float]]:
    """The page from its file, what the browser complained about, and the seconds until every plot was drawn.
    ``context``: options of the browser's context, such as a touch screen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            options = {"offline": True, "viewport": {"width": 1200, "height": 900}} | context
            page = browser.new_context(**options).new_page()
            complaints: list[str] = []
            page.on("console", lambda one: complaints.append(one.text) if one.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
            page.on("requestfailed", lambda request: complaints.append(request.url))
            begun = time.monotonic()
            page.goto(path.as_uri())
            page.wait_for_function(READY)
            yield page, complaints, time.monotonic() - begun
        finally:
            browser.close()
