"""The built book asks no other server for anything, and links to a repository only where one is set."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from course.book import code_digest
from course.chapters import CourseError
from course.repository import REPOSITORY_VARIABLE, colab_url, repository

CHAPTER = "book/chapters/01_attention"
URL = "https://github.com/someone/transformer"
COLAB = (
    "https://colab.research.google.com/github/someone/transformer"
    "/blob/published/notebooks/01_attention/01_attention.ipynb"
)
LARGEST = 2_200_000

LOADING_ATTRIBUTES = {"src", "srcset", "poster", "data", "background"}
LINKS_THAT_LOAD = {"stylesheet", "preload", "prefetch", "modulepreload", "icon", "preconnect", "dns-prefetch"}
ELSEWHERE = re.compile(r"""(?:https?:)?//[\w-]""")


class Page(HTMLParser):
    """What a page loads, and its images without a description."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.undescribed: list[str] = []
        self.inline: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._inside = tag
        if tag != "a":
            self.loads += [values[name] for name in LOADING_ATTRIBUTES & values.keys()]
        if tag == "link" and LINKS_THAT_LOAD & set(values.get("rel", "").split()):
            self.loads.append(values["href"])
        if tag == "img" and not values.get("alt", "").strip():
            self.undescribed.append(values.get("src", ""))
        self.inline.append(values.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def parsed(folder: Path) -> dict[str, Page]:
    return {
        path.relative_to(folder).as_posix(): Page(path.read_text("utf-8"))
        for path in sorted(folder.rglob("*.html"))
        if "_static" not in path.parts
    }


@pytest.fixture(scope="module")
def pages(built_book: Path) -> dict[str, Page]:
    return parsed(built_book)


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(pages: dict[str, Page]) -> None:
    assert len(pages) > 10
    outside = {
        (name, text[:200])
        for name, page in pages.items()
        for text in [*page.loads, *page.inline]
        if ELSEWHERE.match(text) or re.search(r"""["'(]https?://""", text)
    }
    assert outside == set()


@pytest.mark.slow
def test_no_style_sheet_loads_anything_from_elsewhere(built_book: Path) -> None:
    imports = re.compile(r"""(?:url\(|@import)\s*["']?(?:https?:)?//[^)"']*""")
    found = {path.name: imports.findall(path.read_text("utf-8")) for path in built_book.rglob("*.css")}
    assert {name: urls for name, urls in found.items() if urls} == {}


@pytest.mark.slow
def test_every_image_is_described(pages: dict[str, Page]) -> None:
    assert {name: page.undescribed for name, page in pages.items() if page.undescribed} == {}


@pytest.mark.slow
def test_every_local_file_that_a_page_loads_is_there(built_book: Path, pages: dict[str, Page]) -> None:
    missing = {
        (name, link)
        for name, page in pages.items()
        for link in page.loads
        if not link.startswith("data:")
        and not (built_book / name).parent.joinpath(re.sub(r"[?#].*", "", link)).is_file()
    }
    assert missing == set()


@pytest.mark.slow
def test_no_file_is_large_and_the_icon_script_is_gone(built_book: Path) -> None:
    files = [path for path in built_book.rglob("*") if path.is_file()]
    assert {path.name: path.stat().st_size for path in files if path.stat().st_size > LARGEST} == {}
    assert {path.name for path in files if path.name == "fontawesome.js" or path.suffix == ".map"} == set()


@pytest.mark.slow
def test_mathjax_is_loaded_on_pages_with_formulas_only(built_book: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        has_formula = 'class="math' in (built_book / name).read_text("utf-8")
        assert any("mathjax" in link for link in page.loads) == has_formula, name


@pytest.mark.slow
def test_the_root_leads_to_the_front_page(built_book: Path) -> None:
    assert 'content="0; url=book/index.html"' in (built_book / "index.html").read_text("utf-8")


@pytest.mark.slow
def test_a_book_without_a_repository_links_to_none(built_book: Path) -> None:
    for path in built_book.rglob("*.html"):
        text = path.read_text("utf-8")
        assert "colab.research.google.com" not in text
        assert "source-repository-button" not in text


@pytest.mark.parametrize("url", [URL, f"{URL}/", f"{URL}.git", f"  {URL} "])
def test_a_repository_is_read_from_its_address(url: str) -> None:
    assert repository(url, {}) == (URL, "someone", "transformer")


def test_the_environment_overrides_the_configured_repository() -> None:
    found = repository("https://github.com/other/book", {REPOSITORY_VARIABLE: URL})
    assert found is not None
    assert found.owner == "someone"


@pytest.mark.parametrize("environment", [{}, {REPOSITORY_VARIABLE: ""}, {REPOSITORY_VARIABLE: " "}])
def test_without_an_address_there_is_no_repository(environment: dict[str, str]) -> None:
    assert repository("", environment) is None


@pytest.mark.parametrize("url", ["transformer", "https://github.com/someone", "ftp://github.com/a/b", f"{URL}/tree/x"])
def test_an_address_that_is_none_is_refused_with_advice(url: str) -> None:
    with pytest.raises(CourseError, match=r"https://github\.com/OWNER/REPOSITORY"):
        repository(url, {})


def test_colab_opens_the_notebook_of_a_chapter_on_github() -> None:
    assert colab_url(repository(URL, {}), CHAPTER) == COLAB
    assert colab_url(repository(URL, {}), "book/preface") is None
    assert colab_url(repository("https://gitlab.com/someone/transformer", {}), CHAPTER) is None
    assert colab_url(None, CHAPTER) is None


def test_the_digest_follows_the_code_behind_the_pages(tmp_path: Path) -> None:
    (tmp_path / "solutions").mkdir()
    module = tmp_path / "solutions" / "attention.py"
    module.write_text("a = 1\n")
    before = code_digest(tmp_path)
    assert code_digest(tmp_path) == before
    module.write_text("a = 2\n")
    assert code_digest(tmp_path) != before


@pytest.mark.parametrize("url", ["", URL])
def test_links_to_the_repository_appear_only_when_it_is_set(url: str, tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "html"
    page = source / f"{CHAPTER}.md"
    page.parent.mkdir(parents=True)
    page.write_text("# Attention\n")
    (source / "index.md").write_text(f"# Book\n\n```{{toctree}}\n{CHAPTER}\n```\n")
    settings = ["extensions=myst_parser,sphinx_book_theme,course.book", "html_theme=sphinx_book_theme"]
    options = [option for setting in settings for option in ("-D", setting)]
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-C", *options, str(source), str(output)]
    environment = os.environ | {REPOSITORY_VARIABLE: url}
    build = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr
    chapter = (output / f"{CHAPTER}.html").read_text("utf-8")
    front = (output / "index.html").read_text("utf-8")
    assert (COLAB in chapter) == bool(url)
    assert (f'href="{URL}"' in chapter) == bool(url)
    assert "colab" not in front
