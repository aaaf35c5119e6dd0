"""Open the built book in a real browser, with the network cut, and say what is wrong with a page."""

import gzip
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    Route,
    sync_playwright,
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
GRAVE = {"serious", "critical"}

OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const names = [...document.querySelectorAll("body *")]
    .filter((e) => e.getBoundingClientRect().right > width + 1 && !e.closest("svg, dialog:not([open])"))
    .map((e) => e.tagName.toLowerCase() + "." + e.className);
  return [`${document.documentElement.scrollWidth} px wide in ${width} px`, ...names.slice(0, 6)];
}"""
SETTLED = "() => Promise.all([document.fonts.ready, window.MathJax?.startup?.promise]).then(() => true)"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of 127.0.0.1; gives the address, without a slash at the end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium; fail with one sentence where there is none."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.fail(
            f"No browser: install Chromium, so that one of {', '.join(BROWSERS)} is on the PATH.",
            pytrace=False,
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def window(browser: Browser, theme: str, width: int) -> Iterator[BrowserContext]:
    """Open a window whose reader prefers `theme` ("light" or "dark")."""
    scheme = "dark" if theme == "dark" else "light"
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        reduced_motion="reduce",
        is_mobile=width < 600,
    )
    context.add_init_script(f"localStorage.mode = localStorage.theme = '{scheme}'")
    yield context
    context.close()


@cache
def transferred(path: Path) -> int:
    """Count the bytes that a server with gzip sends for a file."""
    data = path.read_bytes()
    return min(len(data), len(gzip.compress(data, 6)))


@dataclass
class Visit:
    """What one look at a page found.

    Attributes:
        outside: addresses other than the server's that the page asked for. None was let through.
        errors: what the console or the page reported as an error.
        failed: requests of the page that the server could not answer.
        overflow: how far the page is wider than the window, and the first elements that are.
        barriers: serious and critical findings of axe-core.
        weight: gzipped bytes of the page and of all that it loaded.
    """

    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    overflow: list[str] = field(default_factory=list)
    barriers: list[str] = field(default_factory=list)
    weight: int = 0

    @property
    def faults(self) -> dict[str, list[str]]:
        """Everything that is wrong, by kind; empty for a good page."""
        kinds = ("outside", "errors", "failed", "overflow", "barriers")
        return {kind: getattr(self, kind) for kind in kinds if getattr(self, kind)}


def _watch(page: Page, server: str, folder: Path, found: Visit) -> None:
    loaded: set[Path] = set()

    def guard(route: Route) -> None:
        if route.request.url.startswith((f"{server}/", "data:", "blob:")):
            route.continue_()
        else:
            found.outside.append(route.request.url)
            route.abort()

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            found.errors.append(message.text)

    def on_failure(request: Request) -> None:
        if request.url.startswith(server):
            found.failed.append(f"{request.url}: {request.failure}")

    def on_response(response: Response) -> None:
        if response.status >= 400:
            found.failed.append(f"{response.url}: {response.status}")
        elif response.url.startswith(server):
            path = folder / unquote(urlsplit(response.url).path).lstrip("/")
            if path.is_file() and path not in loaded:
                loaded.add(path)
                found.weight += transferred(path)

    page.route("**/*", guard)
    page.on("console", on_console)
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("requestfailed", on_failure)
    page.on("response", on_response)


def _barriers(page: Page) -> list[str]:
    violations = Axe().run(page).response["violations"]
    return [
        f"{finding['id']} ({finding['impact']}): {finding['help']}: {node['html'][:200]} at {node['target']}"
        f" {[check['message'] for check in node['any'][:1]]}"
        for finding in violations
        if finding["impact"] in GRAVE
        for node in finding["nodes"][:4]
    ]


def visit(context: BrowserContext, server: str, folder: Path, path: str) -> Visit:
    """Open a page, let it settle, and look for faults.

    Args:
        context: the window, from `window`.
        server: the address from `serve`.
        folder: the folder that it serves.
        path: the page, such as `book/index.html`.
    """
    found = Visit()
    page = context.new_page()
    try:
        _watch(page, server, folder, found)
        page.goto(f"{server}/{path}", wait_until="load")
        page.wait_for_function(SETTLED)
        page.wait_for_load_state("networkidle")
        found.overflow = page.evaluate(OVERFLOW)
        found.barriers = _barriers(page)
    finally:
        page.close()
    return found
