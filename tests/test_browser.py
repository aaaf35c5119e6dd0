"""Every page of the book in a real browser: light and dark, wide and narrow, with the network cut."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, BrowserContext

from tests.browser import chromium, serve, visit, window
from tests.conftest import ROOT

WINDOWS = [(theme, width) for width in (1280, 390) for theme in ("light", "dark")]
LIMIT = 1_500_000

pytestmark = pytest.mark.slow


def pages() -> list[str]:
    """List every page: those of the table of contents, the search page and the index."""
    toc = yaml.safe_load((ROOT / "book/_toc.yml").read_text("utf-8"))
    files = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    return [*(f"{file}.html" for file in files), "search.html", "genindex.html"]


@pytest.fixture(scope="module")  # no longer: Playwright keeps an event loop running, and other files start their own
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(built_book: Path) -> Iterator[str]:
    with serve(built_book) as address:
        yield address


@pytest.fixture(scope="module", params=WINDOWS, ids=lambda kind: f"{kind[0]}-{kind[1]}")
def context(request: pytest.FixtureRequest, browser: Browser) -> Iterator[BrowserContext]:
    with window(browser, *request.param) as context:
        yield context


@pytest.mark.parametrize("path", pages())
def test_a_page_has_no_fault_and_is_light(context: BrowserContext, server: str, built_book: Path, path: str) -> None:
    found = visit(context, server, built_book, path)
    assert found.faults == {}
    assert 0 < found.weight < LIMIT


FAULTY = """<!DOCTYPE html><html lang="en"><head><title>Faulty</title></head><body>
<img src="https://example.invalid/pixel.png" alt="from elsewhere"><img src="missing.png">
<div style="width: 3000px">too wide</div><p style="color: #ccc; background: #fff">too faint</p>
<script>fetch("https://example.invalid/beacon").catch(() => {}); null.oops</script></body></html>"""


def test_each_kind_of_fault_is_noticed(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(FAULTY)
    with serve(tmp_path) as address, window(browser, "light", 1280) as context:
        found = visit(context, address, tmp_path, "index.html")
    assert sorted(found.outside) == ["https://example.invalid/beacon", "https://example.invalid/pixel.png"]
    assert any("null" in error for error in found.errors)
    assert [fault.split("/")[-1] for fault in found.failed] == ["missing.png: 404"]
    assert found.overflow
    assert {barrier.split()[0] for barrier in found.barriers} >= {"image-alt", "color-contrast"}
